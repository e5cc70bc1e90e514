{{/* The daemon's environment. */}}
{{- define "spiderpool.agent.env" -}}
{{- $agent := .Values.spiderpoolAgent -}}
{{- $maps := .Values.coordinator.ebpf.maps -}}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_NAME" "path" "metadata.name") }}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_NAMESPACE" "path" "metadata.namespace") }}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_NODE_NAME" "path" "spec.nodeName") }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_LOG_LEVEL" $agent.debug.logLevel
  "SPIDERPOOL_HEALTH_PORT" ($agent.httpPort | int)
  "SPIDERPOOL_ENABLED_METRIC" $agent.prometheus.enabled
  "SPIDERPOOL_METRIC_HTTP_PORT" ($agent.prometheus.port | int)
  "SPIDERPOOL_STATE_DIR" (dir .Values.global.ipamUNIXSocketHostPath)
  "SPIDERPOOL_CNI_BIN_DIR" .Values.global.cniBinHostPath
  "SPIDERPOOL_CNI_CONF_DIR" .Values.global.cniConfHostPath
  "SPIDERPOOL_RAISE_MEMLOCK" $agent.raiseMemlock
  "SPIDERPOOL_NODE_MOUNT_NAMESPACE" "/proc/1/ns/mnt"
  "SPIDERPOOL_BPF_NICS" ($maps.nics | int)
  "SPIDERPOOL_BPF_CIDRS" ($maps.cidrs | int)
  "SPIDERPOOL_BPF_ARRIVALS" ($maps.arrivals | int)
  "SPIDERPOOL_BPF_NAT" ($maps.nat | int)
  "SPIDERPOOL_BPF_LINK_FLOWS" ($maps.linkFlows | int)
) }}
{{- with .Values.multus.multusCNI }}
{{- if .install }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_MULTUS_SERVICE_ACCOUNT" .name
  "SPIDERPOOL_MULTUS_LOG_LEVEL" .log.logLevel
  "SPIDERPOOL_MULTUS_LOG_FILE" .log.logFile
) }}
{{- end }}
{{- end }}
{{- with .Values.multus.multusCNI.defaultCniCRName }}
- name: MULTUS_CLUSTER_NETWORK
  value: {{ printf "%s/%s" $.Release.Namespace . | quote }}
{{- end }}
{{- end }}
