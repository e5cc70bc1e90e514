//! Label keys.

/// On pools: the subnet, with `.`, `:` and `/` replaced.
pub const IPPOOL_CIDR: &str = "ipam.spidernet.io/ippool-cidr";
/// On pools: the SpiderSubnet that they belong to.
pub const OWNER_SUBNET: &str = "ipam.spidernet.io/owner-spider-subnet";
/// On pools made for an application: its name. The label alone says that a pool is such a one.
pub const OWNER_APPLICATION_NAME: &str = "ipam.spidernet.io/owner-application-name";

/// On a SpiderIPAddress: its pool, or the hash of a name that does not fit a label.
pub const ADDRESS_POOL: &str = "ipam.spidernet.io/ippool";
/// On a SpiderIPAddress: the pod's UID.
pub const ADDRESS_POD_UID: &str = "ipam.spidernet.io/pod-uid";
/// On a SpiderIPAddress: somebody else was seen using it.
pub const ADDRESS_QUARANTINED: &str = "ipam.spidernet.io/quarantined";
/// On a SpiderIPAddress and on an agent's Lease: the node, or the hash of a name that does not fit a label.
pub const NODE: &str = "ipam.spidernet.io/node";
