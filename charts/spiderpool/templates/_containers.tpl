{{/* What containers have in common. */}}

{{/* No rights at all; {over} is laid over it. */}}
{{- define "spiderpool.securityContext.unprivileged" -}}
{{- $own := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $own (.over | default dict | deepCopy) | toYaml -}}
{{- end }}

{{/*
Root on files of the node, with the capabilities of {add} and no other; {over} is laid over it. The default profiles
of AppArmor and SELinux forbid writes below /sys/fs/bpf and to the node's folders.
*/}}
{{- define "spiderpool.securityContext.node" -}}
{{- $capabilities := dict "drop" (list "ALL") -}}
{{- with .add }}{{- $_ := set $capabilities "add" . -}}{{- end -}}
{{- $own := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "runAsUser" 0 "capabilities" $capabilities "appArmorProfile" (dict "type" "Unconfined") "seLinuxOptions" (dict "type" "spc_t" "level" "s0") -}}
{{- mergeOverwrite $own (.over | default dict | deepCopy) | toYaml -}}
{{- end }}

{{/* {checks, port, host}: the three probes; host is empty for a pod with a network of its own. */}}
{{- define "spiderpool.probes" -}}
{{- $in := . -}}
{{- range $kind := list "startup" "liveness" "readiness" }}
{{- $check := index $in.checks (printf "%sProbe" $kind) }}
{{ $kind }}Probe:
  httpGet:
    {{- with $in.host }}
    host: {{ . | quote }}
    {{- end }}
    path: /v1/runtime/{{ $kind }}
    port: {{ $in.port }}
    scheme: HTTP
  periodSeconds: {{ $check.periodSeconds }}
  failureThreshold: {{ $check.failureThreshold }}
  successThreshold: 1
  timeoutSeconds: 5
{{- end }}
{{- end }}

{{/* Where a process with all addresses of its host is asked by the kubelet. */}}
{{- define "spiderpool.loopback" -}}
{{- ternary "127.0.0.1" "::1" (eq (include "spiderpool.enableIPv4" .) "true") -}}
{{- end }}

{{/*
The folder that an agent mounts to find the node's folder for plugins. k3s has the plugins below a link `current` that
each of its versions moves: the mount is of the folder above, so that the agent follows the link.
*/}}
{{- define "spiderpool.cniMount" -}}
{{- $path := .Values.global.cniBinHostPath -}}
{{- $above := splitList "/current/" (printf "%s/" $path) | first -}}
{{- ternary $above $path (and (ne $above "") (contains "/current/" (printf "%s/" $path))) -}}
{{- end }}

{{/* A variable from the pod itself: {name, path}. */}}
{{- define "spiderpool.env.field" -}}
- name: {{ .name }}
  valueFrom:
    fieldRef:
      apiVersion: v1
      fieldPath: {{ .path }}
{{- end }}

{{/* A variable as text: {name, value}. */}}
{{- define "spiderpool.env.value" -}}
- name: {{ .name }}
  value: {{ .value | toString | quote }}
{{- end }}

{{/* Variables as text, from a map. */}}
{{- define "spiderpool.env.values" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}
