{{/* The daemon's environment. The name with DEAFULT is spelled as Spiderpool 1.x spells it. */}}
{{- define "spiderpool.controller.env" -}}
{{- $controller := .Values.spiderpoolController -}}
{{- $gc := .Values.ipam.gc -}}
{{- $tls := $controller.tls -}}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_NAME" "path" "metadata.name") }}
{{ include "spiderpool.env.field" (dict "name" "SPIDERPOOL_POD_NAMESPACE" "path" "metadata.namespace") }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_LOG_LEVEL" $controller.debug.logLevel
  "SPIDERPOOL_HEALTH_PORT" ($controller.httpPort | int)
  "SPIDERPOOL_ENABLED_METRIC" $controller.prometheus.enabled
  "SPIDERPOOL_ENABLED_DEBUG_METRIC" $controller.prometheus.enabledDebugMetric
  "SPIDERPOOL_METRIC_HTTP_PORT" ($controller.prometheus.port | int)
  "SPIDERPOOL_WEBHOOK_PORT" ($controller.webhookPort | int)
  "SPIDERPOOL_CONTROLLER_DEPLOYMENT_NAME" $controller.name
  "SPIDERPOOL_AGENT_SERVICE_ACCOUNT" .Values.spiderpoolAgent.name
  "SPIDERPOOL_WEBHOOK_TLS_METHOD" $tls.method
  "SPIDERPOOL_WEBHOOK_TLS_SECRET" $tls.secretName
  "SPIDERPOOL_CLUSTER_DNS_DOMAIN" .Values.global.clusterDnsDomain
  "SPIDERPOOL_WEBHOOK_EXTRA_DNS_NAMES" (join "," $tls.auto.extraDnsNames)
  "SPIDERPOOL_WEBHOOK_EXTRA_IP_ADDRESSES" (join "," $tls.auto.extraIpAddresses)
  "SPIDERPOOL_WEBHOOK_CERT_VALIDITY" (mul (int64 $tls.auto.certExpiration) 86400)
  "SPIDERPOOL_WEBHOOK_CA_VALIDITY" (mul (int64 $tls.auto.caExpiration) 86400)
  "SPIDERPOOL_COORDINATOR_ENABLED" .Values.coordinator.enabled
  "SPIDERPOOL_COORDINATOR_DEAFULT_NAME" .Values.coordinator.name
  "SPIDERPOOL_CILIUM_CONFIGMAP_NAMESPACE_NAME" .Values.global.ciliumConfigMap
  "SPIDERPOOL_MULTUS_CONFIG_ENABLED" .Values.multus.enableMultusConfig
  "SPIDERPOOL_GC_IP_ENABLED" $gc.enabled
  "SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION" ($gc.gcAll.intervalInSecond | int)
  "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_READY_NODE_ENABLED" $gc.statelessPod.zombieOnReadyNode
  "SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED" $gc.statelessPod.zombieOnNotReadyNode
  "SPIDERPOOL_GC_ENABLE_STATELESS_RUNNING_POD_ON_EMPTY_POD_STATUS_IPS" $gc.statelessPod.enableGcRunningPodOnEmptyPodStatusIPs
  "SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY" ($gc.gcDeletingTimeOutPodDelay | int)
) }}
{{- /* glibc raises this limit by itself; large tables of the leader are not handed back to the kernel then when they have grown. */}}
{{ include "spiderpool.env.value" (dict "name" "MALLOC_MMAP_THRESHOLD_" "value" "131072") }}
{{- if include "spiderpool.controller.readsCniConfig" . }}
{{ include "spiderpool.env.value" (dict "name" "SPIDERPOOL_CNI_CONFIG_DIR" "value" .Values.global.cniConfHostPath) }}
{{- end }}
{{- end }}

{{/* Whether the controller looks into its node's directory for CNI configuration. */}}
{{- define "spiderpool.controller.readsCniConfig" -}}
{{- if and .Values.coordinator.enabled (eq .Values.coordinator.podCIDRType "auto") -}}true{{- end -}}
{{- end }}
