{{/* What the Job makes, as variables; lists are JSON. */}}
{{- define "spiderpool.init.env" -}}
{{- $coordinator := .Values.coordinator -}}
{{- $pool := .Values.clusterDefaultPool -}}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_LOG_LEVEL" .Values.spiderpoolController.debug.logLevel
  "SPIDERPOOL_INIT_DEADLINE" 110
  "SPIDERPOOL_INIT_ENABLE_MULTUS_CONFIG" .Values.multus.enableMultusConfig
) }}
{{- if $coordinator.enabled }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_NAME" $coordinator.name
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_MODE" $coordinator.mode
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_CIDR_TYPE" $coordinator.podCIDRType
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_TUNE_POD_ROUTES" $coordinator.tunePodRoutes
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_HIJACK_CIDR" (toJson $coordinator.hijackCIDR)
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POLICY_ROUTES" (toJson $coordinator.policyRoutes)
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_DEFAULT_ROUTE_NIC" $coordinator.podDefaultRouteNIC
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_MAC_PREFIX" $coordinator.podMACPrefix
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_RP_FILTER" ($coordinator.podRPFilter | int)
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_TX_QUEUE_LEN" ($coordinator.txQueueLen | int)
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_VETH_LINK_ADDRESS" $coordinator.vethLinkAddress
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_VETH_MTU" ($coordinator.vethMTU | int)
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_DATAPLANE" $coordinator.dataplane
  "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_EBPF_ROUTE_HINTS" $coordinator.ebpf.routeHints
) }}
{{- end }}
{{- if $pool.installIPv4IPPool }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_NAME" $pool.ipv4IPPoolName
  "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_SUBNET" $pool.ipv4Subnet
  "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_IPRANGES" (toJson $pool.ipv4IPRanges)
  "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_GATEWAY" $pool.ipv4Gateway
) }}
{{- end }}
{{- if $pool.installIPv6IPPool }}
{{- include "spiderpool.env.values" (dict
  "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_NAME" $pool.ipv6IPPoolName
  "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_SUBNET" $pool.ipv6Subnet
  "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_IPRANGES" (toJson $pool.ipv6IPRanges)
  "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_GATEWAY" $pool.ipv6Gateway
) }}
{{- end }}
{{- end }}
