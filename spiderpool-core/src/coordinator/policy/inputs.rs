//! What a plan is made from.

use std::net::IpAddr;

use crate::coordinator::{Config, NamespaceState, PeerMacs};
use crate::names::IfName;

/// What the plan of one NIC depends on.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInputs<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// Name of the CNI network.
    pub network: &'a str,
    /// `CNI_IFNAME`.
    pub nic: &'a IfName,
    /// Merged configuration.
    pub config: &'a Config,
    /// The pod as found, with its rules and tables.
    pub pod: &'a NamespaceState,
    /// The node: the host end with its permanent neighbors, and of the routes in `hostRuleTable` those to addresses of the NIC.
    pub node: &'a NamespaceState,
    /// The host end of the cluster NIC: of eth0, or of veth0 as it is or will be.
    pub host_end: &'a IfName,
    /// To which MACs the pod sends by the cluster NIC: the host end's, or of eth0's next hops if that is a port of a switch.
    pub peers: PeerMacs,
    /// Addresses of the node.
    pub nodes: &'a [IpAddr],
    /// The NICs that the pod will have beside the first; `None` if nobody knows.
    pub expected: Option<&'a [IfName]>,
}
