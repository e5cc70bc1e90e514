//! Annotation keys. What those that IPAM reads mean is decided in `spiderpool_core::ipam::annotations`.

pub use spiderpool_core::ipam::annotations::key::{
    DEFAULT_ROUTE_NIC, IPPOOL, IPPOOL_IP_NUMBER, IPPOOL_RECLAIM, IPPOOLS, MULTUS_DEFAULT_NETWORK,
    MULTUS_NETWORKS, NAMESPACE_IPV4_POOLS, NAMESPACE_IPV6_POOLS, ROUTES, SUBNET, SUBNETS,
};

/// On a SpiderIPAddress, `true`: lets somebody other than Spiderpool delete an address in use. The chart's admission policy
/// reads it.
pub const ALLOW_DELETION: &str = "spiderpool.spidernet.io/allow-deletion";

/// On a SpiderEndpoint: a JSON array of entries as in `status.current.ips`, with the addresses of NICs that wait for the pod
/// since an earlier one of its name.
pub const KEPT_ADDRESSES: &str = "spiderpool.spidernet.io/kept-addresses";

/// On a SpiderEndpoint that does not have its pod's name: that. Such a one is named after a virtual machine.
pub const ENDPOINT_POD: &str = "spiderpool.spidernet.io/pod";

/// On a pod, by KubeVirt: the VirtualMachineInstanceMigration by which its virtual machine moves, or has moved, to it.
pub const MIGRATION: &str = "kubevirt.io/migrationJobName";

/// On a pool: what has its allocations. A pool without it whose status has allocations is upstream's.
pub const POOL_ALLOCATIONS: &str = "ipam.spidernet.io/allocations";
/// The value on pools whose allocations are SpiderIPAddresses.
pub const POOL_ALLOCATIONS_ADDRESSES: &str = "SpiderIPAddress";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admission_policy_reads_and_names_the_key() {
        let policies = include_str!("../../charts/spiderpool/templates/admission/policies.yaml");
        let (read, named) = (format!("[?'{ALLOW_DELETION}']"), format!("{ALLOW_DELETION}=true"));
        assert!(policies.contains(&read) && policies.contains(&named));
    }
}
