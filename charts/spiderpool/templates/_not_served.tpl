{{/*
What this version does not do. A row: the value, what it may be today, what it would do, what to do instead.
Take a row out together with the words "Not supported yet" in values.yaml when the feature is there.
*/}}
{{- define "spiderpool.notServed" -}}
- value: ipam.enableCleanOutdatedEndpoint
  may: [false]
  would: remove SpiderEndpoints whose addresses no pool knows
  instead: set it to false; endpoints go with the addresses of their pods
- value: ipam.gc.statelessPod.enableGcRunningPodOnEmptyPodStatusIPs
  may: [false]
  would: free the addresses of running pods whose status shows none
  instead: set it to false; addresses of pods that are gone or finished are freed
- value: coordinator.detectGateway
  may: [false]
  would: be ipam.enableGatewayDetection under its old name
  instead: remove it, and set ipam.enableGatewayDetection
- value: coordinator.detectIPConflict
  may: [false]
  would: be ipam.enableIPConflictDetection under its old name
  instead: remove it, and set ipam.enableIPConflictDetection
{{- range $plugins := list "installRdmaCNI" "installOvsCNI" "installSriovCNI" "installibSriovCNI" "installIpoibCNI" "installVlanCNI" }}
- value: plugins.{{ $plugins }}
  may: [false]
  would: install further CNI plugins on the nodes
  instead: set it to false; the projects' archives bring them to {{ $.Values.global.cniBinHostPath }}
{{- end }}
- value: spiderpoolAgent.networkResourcePlugin.enabled
  may: [false]
  would: offer network interfaces as resources of the node
  instead: set it to false
- value: spiderpoolAgent.prometheus.enabledRdmaMetric
  may: [false]
  would: show the counters of RDMA devices
  instead: set it to false
{{- range $component, $port := dict "spiderpoolAgent" 5712 "spiderpoolController" 5724 }}
- value: {{ $component }}.debug.gopsPort
  may: [{{ $port }}]
  would: be the port for gops, a debugger of Go programs
  instead: leave it out; these are no Go programs, and the port is free
- value: {{ $component }}.prometheus.prometheusRule.install
  may: [false]
  would: install alerts for the Prometheus operator
  instead: set it to false, and write alerts on the metrics that docs/metrics.md names
{{- end }}
- value: grafanaDashboard.install
  may: [false]
  would: install dashboards for the Grafana operator
  instead: set it to false
- value: rdma.rdmaSharedDevicePlugin.install
  may: [false]
  would: install the device plugin for shared RDMA devices
  instead: set it to false, and install it with its own manifest
- value: sriov.install
  may: [false]
  would: install the SR-IOV network operator
  instead: set it to false, and install the operator with its own chart
- value: iaasNetworkProvider.serverUrl
  may: [""]
  would: ask a cloud for each address
  instead: leave it empty
{{- end }}

{{/* From the chart of Spiderpool 0.4 and older: what became of `feature`. */}}
{{- define "spiderpool.feature" -}}
{{- range $key, $value := .Values.feature }}
{{- if not (has $key (list "enableIPv4" "enableIPv6")) }}
- feature.{{ $key }} is of an older chart; the values below ipam have taken the place of feature.
{{- end }}
{{- end }}
{{- end }}

{{- define "spiderpool.enableIPv4" -}}
{{- $feature := .Values.feature | default dict -}}
{{- if hasKey $feature "enableIPv4" -}}{{ $feature.enableIPv4 }}{{- else -}}{{ .Values.ipam.enableIPv4 }}{{- end -}}
{{- end }}

{{- define "spiderpool.enableIPv6" -}}
{{- $feature := .Values.feature | default dict -}}
{{- if hasKey $feature "enableIPv6" -}}{{ $feature.enableIPv6 }}{{- else -}}{{ .Values.ipam.enableIPv6 }}{{- end -}}
{{- end }}
