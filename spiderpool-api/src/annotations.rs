//! Annotation keys. What their values mean is decided in `spiderpool_core::ipam::annotations`.

/// On pods: pools of every NIC, or of every NIC in order.
pub const IPPOOLS: &str = "ipam.spidernet.io/ippools";
/// On pods: pools of whichever NIC is being added.
pub const IPPOOL: &str = "ipam.spidernet.io/ippool";
/// On pods: subnets of every NIC, from which pools are made.
pub const SUBNETS: &str = "ipam.spidernet.io/subnets";
/// On pods: subnets of one NIC, from which pools are made.
pub const SUBNET: &str = "ipam.spidernet.io/subnet";
/// On pods: further routes.
pub const ROUTES: &str = "ipam.spidernet.io/routes";
/// On pods: the NIC that keeps the default route.
pub const DEFAULT_ROUTE_NIC: &str = "ipam.spidernet.io/default-route-nic";
/// On pods: how many addresses an automatic pool has.
pub const IPPOOL_IP_NUMBER: &str = "ipam.spidernet.io/ippool-ip-number";
/// On pods: whether an automatic pool goes away with its application.
pub const IPPOOL_RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";

/// On namespaces: IPv4 pools of its pods.
pub const NAMESPACE_IPV4_POOLS: &str = "ipam.spidernet.io/default-ipv4-ippool";
/// On namespaces: IPv6 pools of its pods.
pub const NAMESPACE_IPV6_POOLS: &str = "ipam.spidernet.io/default-ipv6-ippool";

/// Multus, on pods: the network of the first NIC.
pub const MULTUS_DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// Multus, on pods: the networks of the other NICs, in order.
pub const MULTUS_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// On a SpiderIPAddress: lets somebody other than Spiderpool delete an address in use.
pub const ALLOW_DELETE: &str = "ipam.spidernet.io/allow-delete";
