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
  # First of all, because the first that fits counts: from a node that does not answer the pod moves to another one.
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 10}
  {{- with .root.Values.spiderpoolController.tolerations }}
  {{- toYaml . | nindent 2 }}
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
{{- end }}

{{/* The names of the definitions. */}}
{{- define "spiderpool.crds" -}}
{{- range $kind := list "spidercoordinators" "spiderendpoints" "spideripaddresses" "spiderippools" "spiderippoolusages" "spidermultusconfigs" "spiderreservedips" "spidersubnets" }}
- {{ $kind }}.spiderpool.spidernet.io
{{- end }}
{{- end }}
