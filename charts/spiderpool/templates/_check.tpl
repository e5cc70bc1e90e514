{{/* Fails, once and with everything that is wrong, if the values cannot be used. */}}
{{- define "spiderpool.check" -}}
{{- $wrong := list -}}
{{- range $row := include "spiderpool.notServed" . | fromYamlArray -}}
{{- $at := $.Values -}}
{{- range splitList "." $row.value -}}
{{- if kindIs "map" $at -}}{{- $at = index $at . -}}{{- end -}}
{{- end -}}
{{- /* As text: numbers of a values file and of the command line are of different types. */ -}}
{{- if not (or (kindIs "invalid" $at) (has (toString $at) (toStrings $row.may))) -}}
{{- $wrong = append $wrong (printf "%s=%v is not served yet. It would %s. Instead: %s." $row.value $at $row.would $row.instead) -}}
{{- end -}}
{{- end -}}
{{- $wrong = concat $wrong (include "spiderpool.feature" . | fromYamlArray) -}}
{{- $wrong = concat $wrong (include "spiderpool.contradictions" . | fromYamlArray) -}}
{{- if $wrong -}}
{{- fail (printf "\n\nThese values cannot be used:\n\n  * %s\n" (join "\n  * " $wrong)) -}}
{{- end -}}
{{- end }}

{{/* Values that are good one by one and make no sense together. */}}
{{- define "spiderpool.contradictions" -}}
{{- if and (eq (include "spiderpool.enableIPv4" .) "false") (eq (include "spiderpool.enableIPv6" .) "false") }}
- "ipam.enableIPv4 and ipam.enableIPv6 are both false: pods would get no address. Set at least one to true."
{{- end }}
{{- range $family := list "4" "6" }}
{{- $pool := dict "install" (index $.Values.clusterDefaultPool (printf "installIPv%sIPPool" $family)) "subnet" (index $.Values.clusterDefaultPool (printf "ipv%sSubnet" $family)) }}
{{- if and $pool.install (not $pool.subnet) }}
- "clusterDefaultPool.installIPv{{ $family }}IPPool needs clusterDefaultPool.ipv{{ $family }}Subnet: the CIDR of the underlay network."
{{- end }}
{{- if and $pool.install (eq (include (printf "spiderpool.enableIPv%s" $family) $) "false") }}
- "clusterDefaultPool.installIPv{{ $family }}IPPool makes a pool of a family that ipam.enableIPv{{ $family }} switches off."
{{- end }}
{{- end }}
{{- with .Values.clusterDefaultPool }}
{{- if and .installIPv4IPPool .installIPv6IPPool (eq .ipv4IPPoolName .ipv6IPPoolName) }}
- "clusterDefaultPool.ipv4IPPoolName and ipv6IPPoolName are both {{ .ipv4IPPoolName }}: two pools cannot have one name."
{{- end }}
{{- end }}
{{- range $path := list "cniBinHostPath" "cniConfHostPath" "ipamUNIXSocketHostPath" }}
{{- if not (hasPrefix "/" (index $.Values.global $path)) }}
- "global.{{ $path }} must be an absolute path on the node, and is {{ index $.Values.global $path }}."
{{- end }}
{{- end }}
{{- if has (dir .Values.global.ipamUNIXSocketHostPath) (list "/" "." "/run" "/var/run" "/var" "/var/log") }}
- "global.ipamUNIXSocketHostPath must be in a folder of its own, like /var/run/spidernet: that folder is mounted into the agent."
{{- end }}
{{- if eq (dir (dir .Values.global.ipamUNIXSocketHostPath)) "/" }}
- "global.ipamUNIXSocketHostPath must be two folders below / or deeper, like /var/run/spidernet/spiderpool.sock: the folder above the socket's is mounted when the node is cleaned."
{{- end }}
{{- $names := list .Values.spiderpoolAgent.name .Values.spiderpoolController.name .Values.spiderpoolInit.name "spiderpool-clean-node" }}
{{- if ne (len (uniq $names)) (len $names) }}
- "spiderpoolAgent.name, spiderpoolController.name and spiderpoolInit.name must differ from each other and from spiderpool-clean-node: they are {{ join ", " (initial $names) }}."
{{- end }}
{{- with .Values.spiderpoolController.tls }}
{{- if and (eq .method "certmanager") (not .certmanager.issuerName) }}
- "spiderpoolController.tls.method=certmanager needs spiderpoolController.tls.certmanager.issuerName: an Issuer in the namespace of the release that is a CA."
{{- end }}
{{- if and (eq .method "provided") (not (and .provided.tlsCert .provided.tlsKey .provided.tlsCa)) }}
- "spiderpoolController.tls.method=provided needs tlsCert, tlsKey and tlsCa in spiderpoolController.tls.provided: certificate, key and the CA that has signed it, each PEM, as it is or as base64."
{{- end }}
{{- if or (lt (int64 .auto.certExpiration) 1) (lt (int64 .auto.caExpiration) 1) }}
- "spiderpoolController.tls.auto.certExpiration and caExpiration are days: at least 1."
{{- end }}
{{- end }}
{{- include "spiderpool.ports" . }}
{{- include "spiderpool.taken" . }}
{{- end }}

{{/* Two servers in the network of one node need two ports. */}}
{{- define "spiderpool.ports" -}}
{{- $ports := dict -}}
{{- $agent := .Values.spiderpoolAgent -}}
{{- $controller := .Values.spiderpoolController -}}
{{- $used := list (list "spiderpoolAgent.httpPort" $agent.httpPort) -}}
{{- if $agent.prometheus.enabled -}}{{- $used = append $used (list "spiderpoolAgent.prometheus.port" $agent.prometheus.port) -}}{{- end -}}
{{- if $controller.hostnetwork -}}
{{- $used = append $used (list "spiderpoolController.httpPort" $controller.httpPort) -}}
{{- $used = append $used (list "spiderpoolController.webhookPort" $controller.webhookPort) -}}
{{- if $controller.prometheus.enabled -}}{{- $used = append $used (list "spiderpoolController.prometheus.port" $controller.prometheus.port) -}}{{- end -}}
{{- end -}}
{{- range $used -}}
{{- $port := last . | int | toString -}}
{{- if hasKey $ports $port }}
- "{{ first . }} and {{ get $ports $port }} are both {{ $port }}, in the network of one node."
{{- end -}}
{{- $_ := set $ports $port (first .) -}}
{{- end -}}
{{- end }}

{{/* Variables that the chart gives itself: given twice, one of them would win by chance. */}}
{{- define "spiderpool.taken" -}}
{{- range $component, $env := dict "spiderpoolAgent" (include "spiderpool.agent.env" . | fromYamlArray) "spiderpoolController" (include "spiderpool.controller.env" . | fromYamlArray) "spiderpoolInit" (include "spiderpool.init.env" . | fromYamlArray) -}}
{{- $own := list -}}
{{- range $env }}{{- $own = append $own .name }}{{- end -}}
{{- range (index $.Values $component).extraEnv -}}
{{- if has .name $own }}
- "{{ $component }}.extraEnv has {{ .name }}, which the chart sets itself: use the value that it comes from."
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
