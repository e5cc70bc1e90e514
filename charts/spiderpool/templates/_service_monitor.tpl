{{/* {root, of}: what tells the Prometheus operator to read a component's metrics. */}}
{{- define "spiderpool.serviceMonitor" -}}
{{- $monitor := .of.prometheus.serviceMonitor -}}
{{- if $monitor.install }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  {{- include "spiderpool.metadata" (dict "root" .root "name" .of.name "component" .of.name "namespace" $monitor.namespace "labels" $monitor.labels "annotations" $monitor.annotations) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "spiderpool.selector" (dict "root" .root "component" .of.name) | nindent 6 }}
  namespaceSelector:
    matchNames: [{{ .root.Release.Namespace }}]
  endpoints:
    - port: metrics
      path: /metrics
      interval: {{ $monitor.interval }}
      honorLabels: true
{{- end }}
{{- end }}
