{{/* In the nodes' network there is room for one replica per node: of others an installation would wait for ever. */}}
{{- define "spiderpool.replicas" -}}
{{- $controller := .Values.spiderpoolController -}}
{{- $nodes := list -}}
{{- if and $controller.hostnetwork (gt ($controller.replicas | int) 1) -}}
{{- $nodes = (lookup "v1" "Node" "" "").items | default list -}}
{{- end -}}
{{- if $nodes -}}{{ min $controller.replicas (len $nodes) }}{{- else -}}{{ $controller.replicas }}{{- end -}}
{{- end }}
