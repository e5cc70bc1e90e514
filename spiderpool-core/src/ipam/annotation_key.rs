//! Keys of the annotations that decide about addresses.

/// Pools of every NIC.
pub const IPPOOLS: &str = "ipam.spidernet.io/ippools";
/// Pools of whichever NIC is being added.
pub const IPPOOL: &str = "ipam.spidernet.io/ippool";
/// Subnets of every NIC, from which pools are made.
pub const SUBNETS: &str = "ipam.spidernet.io/subnets";
/// Subnets of one NIC, from which pools are made.
pub const SUBNET: &str = "ipam.spidernet.io/subnet";
/// How many addresses a pool has that is made from a subnet.
pub const IPPOOL_IP_NUMBER: &str = "ipam.spidernet.io/ippool-ip-number";
/// Whether it goes with its application.
pub const IPPOOL_RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";
/// Further routes.
pub const ROUTES: &str = "ipam.spidernet.io/routes";
/// The NIC that keeps the default route.
pub const DEFAULT_ROUTE_NIC: &str = "ipam.spidernet.io/default-route-nic";
/// On namespaces: IPv4 pools of its pods.
pub const NAMESPACE_IPV4_POOLS: &str = "ipam.spidernet.io/default-ipv4-ippool";
/// On namespaces: IPv6 pools of its pods.
pub const NAMESPACE_IPV6_POOLS: &str = "ipam.spidernet.io/default-ipv6-ippool";
/// Multus: the network of the first NIC.
pub const MULTUS_DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// Multus: the networks of the NICs behind the first, in order.
pub const MULTUS_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
