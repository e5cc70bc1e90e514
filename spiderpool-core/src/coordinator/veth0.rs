//! What both dataplanes do for a pod whose first NIC is on the underlay: `veth0`, its way to its node.
//!
//! A macvlan NIC never reaches its parent, so node and Services are behind a veth pair. It is made with the first NIC and
//! shared by all. On it the pod has no address but `vethLinkAddress`: what it sends there carries eth0's.

use ipnet::IpNet;

use super::node_link::{NodeLink, plan_host_end_up, plan_node_link};
use super::{Config, NamespaceState, PlanError, Step};
use crate::net::Link;

/// `vethMTU` where nobody has set it.
const DEFAULT_MTU: u32 = 1500;

/// Makes the pair, without setting its host end up.
pub fn plan_veth0(
    config: &Config,
    pod: &NamespaceState,
    link: &NodeLink,
    nic: &Link,
    addresses: &[IpNet],
) -> Vec<Step> {
    let mut steps = Vec::new();
    // What comes to the pod by its node is announced with the MTU of its NIC: a smaller veth0 is a black hole for it.
    let mtu = if config.mtu == DEFAULT_MTU { config.mtu.max(nic.mtu) } else { config.mtu };
    plan_node_link(config, pod, link, mtu, addresses, &mut steps);
    steps
}

/// Sets the host end up. `host_end` is what the node has of it.
pub fn plan_veth0_up(host_end: &NamespaceState, link: &NodeLink) -> Option<Step> {
    plan_host_end_up(host_end, link)
}

/// The pair of the pod's sandbox.
pub fn veth0_of(container_id: &str, config: &Config) -> Result<NodeLink, PlanError> {
    Ok(NodeLink::underlay(container_id, config.veth_link_address)?)
}
