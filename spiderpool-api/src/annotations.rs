//! Annotation keys. What those that IPAM reads mean is decided in `spiderpool_core::ipam::annotations`.

pub use spiderpool_core::ipam::annotations::key::{
    DEFAULT_ROUTE_NIC, IPPOOL, IPPOOLS, MULTUS_NETWORKS, NAMESPACE_IPV4_POOLS, NAMESPACE_IPV6_POOLS, ROUTES,
    SUBNET, SUBNETS,
};

/// On pods: how many addresses an automatic pool has.
pub const IPPOOL_IP_NUMBER: &str = "ipam.spidernet.io/ippool-ip-number";
/// On pods: whether an automatic pool goes away with its application.
pub const IPPOOL_RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";

/// Multus, on pods: the network of the first NIC.
pub const MULTUS_DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// On a SpiderIPAddress: lets somebody other than Spiderpool delete an address in use.
pub const ALLOW_DELETE: &str = "ipam.spidernet.io/allow-delete";

/// On a pool: what has its allocations. A pool without it whose status has allocations is upstream's.
pub const POOL_ALLOCATIONS: &str = "ipam.spidernet.io/allocations";
/// The value on pools whose allocations are SpiderIPAddresses.
pub const POOL_ALLOCATIONS_ADDRESSES: &str = "SpiderIPAddress";
