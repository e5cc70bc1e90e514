{{- define "spiderpool.clean.env" -}}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_NAMESPACE" "path" "metadata.namespace") }}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_NAME" "path" "metadata.name") }}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_UID" "path" "metadata.uid") }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_LOG_LEVEL" .Values.spiderpoolController.debug.logLevel
  "SPIDERPOOL_AGENT_NAME" .Values.spiderpoolAgent.name
  "SPIDERPOOL_CONTROLLER_NAME" .Values.spiderpoolController.name
  "SPIDERPOOL_INIT_NAME" .Values.spiderpoolInit.name
  "SPIDERPOOL_MULTUS_NAME" (ternary .Values.multus.multusCNI.name "" .Values.multus.multusCNI.uninstall)
  "SPIDERPOOL_CLEAN_NODE_MANIFEST" "/etc/spiderpool/clean-node.yaml"
) }}
{{- end }}
