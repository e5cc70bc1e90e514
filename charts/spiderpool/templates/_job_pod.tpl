{{/*
Tolerations of a pod that moves to another node. First of all, because the first that fits counts: one that tolerates
everything would stay for ever on a node that does not answer.
*/}}
{{- define "spiderpool.deadNode" -}}
- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 10}
- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 10}
{{- end }}

{{/* {root, image or images}: what the pods of all Jobs have in common. They must run where the cluster's network is broken. */}}
{{- define "spiderpool.jobPod" -}}
{{- with include "spiderpool.pullSecretsOf" (.images | default (list .image)) }}
{{- . }}
{{ end -}}
restartPolicy: Never
hostNetwork: {{ .root.Values.spiderpoolController.hostnetwork }}
priorityClassName: {{ .root.Values.spiderpoolController.priorityClassName | quote }}
securityContext:
  seccompProfile:
    type: RuntimeDefault
nodeSelector:
  {{- toYaml .root.Values.spiderpoolController.nodeSelector | nindent 2 }}
tolerations:
  {{- include "spiderpool.deadNode" . | nindent 2 }}
  {{- with .root.Values.spiderpoolController.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* {root, name, image, command, args, resources}: a container that ends at once. */}}
{{- define "spiderpool.crds.proof" -}}
- name: {{ .name }}
  {{- include "spiderpool.container.image" . | nindent 2 }}
  command: {{ .command | toJson }}
  args: {{ .args | toJson }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "spiderpool.securityContext.unprivileged" dict | nindent 4 }}
  volumeMounts:
    - {name: plugins, mountPath: /plugins}
{{- end }}

{{/*
{root, name, deadline}: the pod that applies the definitions. It succeeds only if every image of the agents can be had: else an
upgrade would end agents whose successors nobody can start. Side by side, because each init container takes a kubelet a second.
*/}}
{{- define "spiderpool.crds.pod" -}}
{{- $root := .root -}}
{{- $init := $root.Values.spiderpoolInit -}}
{{- $agent := $root.Values.spiderpoolAgent -}}
{{- $multus := $root.Values.multus.multusCNI -}}
{{- $plugins := $root.Values.plugins -}}
{{- $images := list $init.image $agent.image -}}
{{- if $multus.install -}}{{- $images = append $images $multus.image -}}{{- end -}}
{{- if $plugins.installCNI -}}{{- $images = append $images $plugins.image -}}{{- end -}}
{{- $pod := include "spiderpool.jobPod" (dict "root" $root "images" $images) | fromYaml -}}
{{- toYaml (set $pod "hostNetwork" (not $root.Values.openshift.enabled)) }}
serviceAccountName: {{ .name }}
volumes:
  - name: plugins
    emptyDir: {}
containers:
  - name: apply-crds
    {{- include "spiderpool.container.image" (dict "root" .root "image" $init.image) | nindent 4 }}
    command: [{{ $init.binName | quote }}]
    args: [apply-crds, {{ printf "--deadline=%d" .deadline | quote }}]
    resources:
      {{- toYaml $init.resources | nindent 6 }}
    securityContext:
      {{- include "spiderpool.securityContext.unprivileged" (dict "over" $init.securityContext) | nindent 6 }}
  {{- include "spiderpool.crds.proof" (dict "root" $root "name" "agent-image" "image" $agent.image "command" (list $agent.binName) "args" (list "--version") "resources" $agent.initResources) | nindent 2 }}
  {{- if $multus.install }}
  {{- include "spiderpool.crds.proof" (dict "root" $root "name" "multus-image" "image" $multus.image "command" (list "/install_multus") "args" (list "--type" "thin" "--dest-dir" "/plugins") "resources" $multus.resources) | nindent 2 }}
  {{- end }}
  {{- if $plugins.installCNI }}
  {{- include "spiderpool.crds.proof" (dict "root" $root "name" "plugins-image" "image" $plugins.image "command" (list "/usr/bin/spiderpool-agent") "args" (list "--version") "resources" $plugins.resources) | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The rules by which a Job applies the definitions of the custom resources. */}}
{{- define "spiderpool.crds.rules" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [create]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames:
    {{- include "spiderpool.crds" . | trim | nindent 4 }}
  verbs: [get, update]
# Made if nobody has it, and never changed.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [network-attachment-definitions.k8s.cni.cncf.io]
  verbs: [get]
{{- end }}

{{/* The names of the definitions. */}}
{{- define "spiderpool.crds" -}}
{{- range $kind := list "spidercoordinators" "spiderendpoints" "spideripaddresses" "spiderippools" "spiderippoolusages" "spidermultusconfigs" "spiderreservedips" "spidersubnets" }}
- {{ $kind }}.spiderpool.spidernet.io
{{- end }}
{{- end }}
