{{/* The Job's environment; what it makes is in its ConfigMap. */}}
{{- define "spiderpool.init.env" -}}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_LOG_LEVEL" .Values.spiderpoolController.debug.logLevel
  "SPIDERPOOL_INIT_DEADLINE" 110
) }}
{{- end }}
