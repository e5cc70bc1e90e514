//! What the plan of an ADD depends on.

use std::net::IpAddr;

use super::{Config, NamespaceState};
use crate::mac::MacAddr;
use crate::names::IfName;

/// What the plan of one NIC depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub nic: &'a IfName,
    /// Merged configuration.
    pub config: &'a Config,
    /// The pod as found.
    pub pod: &'a NamespaceState,
    /// The node link's host end as found; empty if it is not there.
    pub host_end: &'a NamespaceState,
    /// MAC of the cluster NIC's host end, or of its next hop where that is another device's.
    pub host_veth_mac: MacAddr,
    /// Addresses of the node.
    pub nodes: &'a [IpAddr],
    /// With which source the node reaches the NIC's addresses, as the kernel says.
    pub sources: &'a [(IpAddr, IpAddr)],
    /// The NICs that the pod will have beside the first; `None` if nobody knows.
    pub expected: Option<&'a [IfName]>,
}
