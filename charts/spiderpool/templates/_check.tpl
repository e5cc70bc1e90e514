{{/* Fails, once and with everything that is wrong, if the values cannot be used. */}}
{{- define "spiderpool.check" -}}
{{- include "spiderpool.complete" . -}}
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

{{/*
Values of older charts alone, as `helm upgrade --reuse-values` takes them: what has come since has no default then. Asked for
every object, because whichever is rendered first would fail with a nil pointer. New blocks of values.yaml belong here.
*/}}
{{- define "spiderpool.complete" -}}
{{- $missing := list -}}
{{- range $path := list "multus.multusCNI.name" "multus.multusCNI.image" "multus.multusCNI.resources" "multus.multusCNI.log" "plugins.image" "plugins.resources" "spiderpoolAgent.initResources" "spiderpoolController.tls.auto" "spiderpoolController.tls.certmanager" "spiderpoolInit.resources" "openshift" -}}
{{- $at := $.Values -}}
{{- range splitList "." $path -}}
{{- if kindIs "map" $at -}}{{- $at = index $at . -}}{{- else -}}{{- $at = "" -}}{{- end -}}
{{- end -}}
{{- if not $at -}}{{- $missing = append $missing $path -}}{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "\n\nThese values are missing:\n\n  * %s\n\nThey have come since the release was installed, and helm upgrade --reuse-values leaves out the defaults of the new chart. Use --reset-then-reuse-values in its place: it keeps what you have set. If you have set one of them to null, take that out.\n" (join "\n  * " $missing)) -}}
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
{{- if and $.Values.ipam.spiderSubnet.enable .installIPv4IPPool .installIPv6IPPool .ipv4SubnetName (eq .ipv4SubnetName .ipv6SubnetName) }}
- "clusterDefaultPool.ipv4SubnetName and ipv6SubnetName are both {{ .ipv4SubnetName }}: two SpiderSubnets cannot have one name."
{{- end }}
{{- end }}
{{- with .Values.coordinator }}
{{- if and .enabled (eq .dataplane "ebpf") (eq (int .podRPFilter) 1) }}
- "coordinator.podRPFilter=1 drops in pods what coordinator.dataplane=ebpf lets in by another NIC than that of the route back. Set coordinator.podRPFilter to 0, or coordinator.dataplane to policy."
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
{{- $names := list .Values.spiderpoolAgent.name .Values.spiderpoolController.name .Values.spiderpoolInit.name .Values.multus.multusCNI.name "spiderpool-clean-node" "spiderpool-apply-crds" }}
{{- if ne (len (uniq $names)) (len $names) }}
- "spiderpoolAgent.name, spiderpoolController.name, spiderpoolInit.name and multus.multusCNI.name must differ from each other, from spiderpool-clean-node and from spiderpool-apply-crds: they are {{ join ", " (slice $names 0 4) }}."
{{- end }}
{{- if and .Values.spiderpoolController.podResourceInject.enabled (not .Values.multus.enableMultusConfig) }}
- "spiderpoolController.podResourceInject.enabled=true needs multus.enableMultusConfig=true: what pods get are networks of SpiderMultusConfigs."
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
{{- $multus := .Values.multus.multusCNI }}
{{- if and $multus.install $multus.uninstall (not .Values.spiderpoolController.cleanup.enable) }}
- "multus.multusCNI.uninstall=true needs spiderpoolController.cleanup.enable=true: without it nobody would take Multus from the nodes. Set multus.multusCNI.uninstall=false if it shall stay there."
{{- end }}
{{- include "spiderpool.inCluster" . }}
{{- include "spiderpool.ports" . }}
{{- include "spiderpool.taken" . }}
{{- end }}

{{/* What the cluster itself does not allow; nothing where Helm has no cluster, as in `helm template`. */}}
{{- define "spiderpool.inCluster" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace -}}
{{- $enforced := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" ($namespace | default dict) -}}
{{- if has $enforced (list "baseline" "restricted") }}
- "namespace {{ .Release.Namespace }} enforces the Pod Security Standard {{ $enforced }}, and agents run in the nodes' network and PID namespaces. Allow that: kubectl label --overwrite namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged"
{{- end }}
{{- $role := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" .Values.spiderpoolAgent.name -}}
{{- $owner := dig "metadata" "annotations" dict ($role | default dict) -}}
{{- $release := get $owner "meta.helm.sh/release-name" -}}
{{- $of := get $owner "meta.helm.sh/release-namespace" -}}
{{- if and $release (or (ne $release .Release.Name) (ne $of .Release.Namespace)) }}
{{- if lookup "v1" "Namespace" "" $of }}
- "Spiderpool is in this cluster already, as release {{ $release }} in namespace {{ $of }}, and there can be one: a node has one agent. Upgrade or uninstall that one: helm --namespace {{ $of }} list"
{{- else }}
- "release {{ $release }} of Spiderpool was not uninstalled before its namespace {{ $of }} was deleted. Remove what it has left, then try again: {{ include "spiderpool.leftovers" (dict "root" $ "release" $release) }}"
{{- end }}
{{- else if not $release }}
{{- /* Of a release that was uninstalled while a node could not be cleaned. */}}
{{- $kept := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" .Values.multus.multusCNI.name | default (lookup "v1" "ServiceAccount" .Release.Namespace .Values.multus.multusCNI.name) -}}
{{- $owner = dig "metadata" "annotations" dict ($kept | default dict) -}}
{{- $release = get $owner "meta.helm.sh/release-name" -}}
{{- $of = get $owner "meta.helm.sh/release-namespace" -}}
{{- if and $release (or (ne $release .Release.Name) (ne $of .Release.Namespace)) }}
- "release {{ $release }} of Spiderpool in namespace {{ $of }} has left Multus on nodes that could not be cleaned, and its service account and rights for them. Install under that name and namespace again, or remove 00-multus.conf from those nodes and what it has left: {{ include "spiderpool.leftovers" (dict "root" $ "release" $release) }}; kubectl delete serviceaccounts --namespace {{ $of }} -l app.kubernetes.io/instance={{ $release }}"
{{- end }}
{{- end }}
{{- end }}

{{/* {root, release}: the commands that remove what a release has outside of its namespace. */}}
{{- define "spiderpool.leftovers" -}}
{{- $kinds := list "clusterroles" "clusterrolebindings" "validatingadmissionpolicies" "validatingadmissionpolicybindings" "mutatingwebhookconfigurations" "validatingwebhookconfigurations" -}}
{{- if .root.Values.openshift.enabled -}}{{- $kinds = append $kinds "securitycontextconstraints" -}}{{- end -}}
{{- $selector := printf "-l app.kubernetes.io/instance=%s" .release -}}
kubectl delete {{ join "," $kinds }} {{ $selector }}; kubectl delete roles,rolebindings --all-namespaces {{ $selector }}
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
