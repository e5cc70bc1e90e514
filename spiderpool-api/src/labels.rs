//! Label keys. Those of an application's pool are read and made in `spiderpool_core::subnet::labels`.

pub use spiderpool_core::subnet::labels::{OWNER_APPLICATION_NAME, OWNER_SUBNET, SUBNET_CIDR};

/// On pools: the subnet, with `.`, `:` and `/` replaced.
pub const IPPOOL_CIDR: &str = "ipam.spidernet.io/ippool-cidr";
/// On a SpiderIPAddress: its pool, or the hash of a name that does not fit a label.
pub const ADDRESS_POOL: &str = "ipam.spidernet.io/ippool";
/// On a SpiderIPAddress: the pod's UID.
pub const ADDRESS_POD_UID: &str = "ipam.spidernet.io/pod-uid";
/// On a SpiderIPAddress: somebody else was seen using it.
pub const ADDRESS_QUARANTINED: &str = "ipam.spidernet.io/quarantined";
/// On a pod, by KubeVirt: the UID of the VirtualMachineInstanceMigration by which its virtual machine moves, or has moved, to it.
pub const MIGRATION_UID: &str = "kubevirt.io/migrationJobUID";
/// On a SpiderIPAddress and on an agent's Lease: the node, or the hash of a name that does not fit a label.
pub const NODE: &str = "ipam.spidernet.io/node";
