{{/*
Tolerations of a pod that moves to another node. First of all, because the first that fits counts: one that tolerates
everything would stay for ever on a node that does not answer.
*/}}
{{- define "spiderpool.deadNode" -}}
- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 10}
- {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 10}
{{- end }}

{{/* {root, image}: what the pods of all Jobs have in common. They must run where the cluster's network is broken. */}}
{{- define "spiderpool.jobPod" -}}
{{- with include "spiderpool.pullSecrets" .image }}
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

{{/* {root, name, deadline}: the pod that applies the definitions. */}}
{{- define "spiderpool.crds.pod" -}}
{{- $init := .root.Values.spiderpoolInit -}}
{{- $pod := include "spiderpool.jobPod" (dict "root" .root "image" $init.image) | fromYaml -}}
{{- toYaml (set $pod "hostNetwork" true) }}
serviceAccountName: {{ .name }}
containers:
  - name: apply-crds
    {{- include "spiderpool.container.image" (dict "root" .root "image" $init.image) | nindent 4 }}
    command: [{{ $init.binName | quote }}]
    args: [apply-crds, {{ printf "--deadline=%d" .deadline | quote }}]
    resources:
      {{- toYaml $init.resources | nindent 6 }}
    securityContext:
      {{- include "spiderpool.securityContext.unprivileged" (dict "over" $init.securityContext) | nindent 6 }}
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
