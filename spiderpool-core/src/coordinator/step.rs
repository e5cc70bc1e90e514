//! One change to the pod or the node, and its inverse.

use std::fmt;

use ipnet::IpNet;

use super::interface_step::InterfaceStep;
use crate::ip::Family;
use crate::mac::MacAddr;
use crate::names::IfName;
use crate::net::{Neighbor, ReturnMarks, Route, Rule};

/// Where a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// In the pod's network namespace.
    Pod,
    /// In the node's.
    Node,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Creates the veth pair between pod and node.
    AddNodeLink {
        /// Name of the node's end.
        host: IfName,
        /// Its MAC.
        host_mac: MacAddr,
        /// Name of the pod's end.
        pod: IfName,
        /// Its MAC.
        pod_mac: MacAddr,
        /// Of both ends.
        mtu: u32,
    },
    /// Deletes the pair.
    DeleteNodeLink {
        /// Name of the node's end.
        host: IfName,
    },
    /// Sets a link up.
    SetUp {
        /// Where.
        namespace: Namespace,
        /// The link.
        dev: IfName,
    },
    /// Sets a link down.
    SetDown {
        /// Where.
        namespace: Namespace,
        /// The link.
        dev: IfName,
    },
    /// Changes a MAC in the pod.
    SetMac {
        /// The link.
        dev: IfName,
        /// The new MAC.
        mac: MacAddr,
        /// What it is now.
        before: Option<MacAddr>,
    },
    /// Changes a transmit queue in the pod.
    SetTxQueueLen {
        /// The link.
        dev: IfName,
        /// The new length.
        length: u32,
        /// What it is now.
        before: u32,
    },
    /// Writes a kernel parameter.
    SetSysctl {
        /// Where.
        namespace: Namespace,
        /// Path below /proc/sys.
        key: String,
        /// The value.
        value: String,
    },
    /// Adds an address in the pod.
    AddAddress {
        /// The link.
        dev: IfName,
        /// The address.
        net: IpNet,
    },
    /// Deletes an address in the pod.
    DeleteAddress {
        /// The link.
        dev: IfName,
        /// The address.
        net: IpNet,
    },
    /// Makes a neighbor permanent.
    SetNeighbor {
        /// Where.
        namespace: Namespace,
        /// The neighbor.
        neighbor: Neighbor,
    },
    /// Deletes a neighbor.
    DeleteNeighbor {
        /// Where.
        namespace: Namespace,
        /// The neighbor.
        neighbor: Neighbor,
    },
    /// Adds a route.
    AddRoute {
        /// Where.
        namespace: Namespace,
        /// The route.
        route: Route,
    },
    /// Adds a route in place of one with the same destination and metric.
    ReplaceRoute {
        /// Where.
        namespace: Namespace,
        /// The route.
        route: Route,
    },
    /// Puts a deleted route back, beside others with the same destination and metric.
    RestoreRoute {
        /// Where.
        namespace: Namespace,
        /// The route.
        route: Route,
    },
    /// Deletes a route.
    DeleteRoute {
        /// Where.
        namespace: Namespace,
        /// The route.
        route: Route,
    },
    /// Adds a rule, or keeps it.
    AddRule {
        /// Where.
        namespace: Namespace,
        /// The rule.
        rule: Rule,
    },
    /// Deletes a rule. One of the node is of all its pods: it stays while its table has a route.
    DeleteRule {
        /// Where.
        namespace: Namespace,
        /// The rule.
        rule: Rule,
    },
    /// Marks connections in the pod, in place of what its nftables table held before.
    SetReturnMarks(ReturnMarks),
    /// Removes the marks that were set for this NIC.
    DeleteReturnMarks(IfName),
    /// Changes the node's own interfaces.
    Interface(InterfaceStep),
}

impl Step {
    /// Writes a kernel parameter of one network interface, or of `all` of them.
    pub(super) fn interface_sysctl(
        namespace: Namespace,
        family: Family,
        dev: &str,
        name: &str,
        value: u8,
    ) -> Self {
        let key = format!("net/ipv{}/conf/{dev}/{name}", family.version());
        Self::SetSysctl { namespace, key, value: value.to_string() }
    }

    /// The step that rolls this one back; `before` is the earlier value of a kernel parameter, or tells that there were
    /// return marks already. `None`: nothing changed.
    pub fn inverse(&self, before: Option<&str>) -> Option<Self> {
        Some(match self.clone() {
            Self::AddNodeLink { host, .. } => Self::DeleteNodeLink { host },
            Self::SetUp { namespace, dev } => Self::SetDown { namespace, dev },
            Self::SetMac { dev, mac, before } => Self::SetMac { dev, mac: before?, before: Some(mac) },
            Self::SetTxQueueLen { dev, length, before } => {
                Self::SetTxQueueLen { dev, length: before, before: length }
            }
            Self::SetSysctl { namespace, key, value } => {
                let before = before.filter(|before| *before != value)?.to_owned();
                Self::SetSysctl { namespace, key, value: before }
            }
            Self::AddAddress { dev, net } => Self::DeleteAddress { dev, net },
            Self::SetNeighbor { namespace, neighbor } => Self::DeleteNeighbor { namespace, neighbor },
            Self::AddRoute { namespace, route }
            | Self::ReplaceRoute { namespace, route }
            | Self::RestoreRoute { namespace, route } => Self::DeleteRoute { namespace, route },
            Self::DeleteRoute { namespace, route } => Self::RestoreRoute { namespace, route },
            Self::AddRule { namespace, rule } => Self::DeleteRule { namespace, rule },
            Self::DeleteRule { namespace, rule } => Self::AddRule { namespace, rule },
            Self::SetReturnMarks(marks) => {
                return before.is_none().then_some(Self::DeleteReturnMarks(marks.nic));
            }
            Self::Interface(step) => Self::Interface(step.inverse()?),
            Self::DeleteNodeLink { .. }
            | Self::DeleteReturnMarks(_)
            | Self::SetDown { .. }
            | Self::DeleteAddress { .. }
            | Self::DeleteNeighbor { .. } => return None,
        })
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "pod",
            Self::Node => "node",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddNodeLink { host, host_mac, pod, pod_mac, mtu } => {
                write!(
                    f,
                    "node: link add {host} address {host_mac} mtu {mtu} type veth peer {pod} address {pod_mac}"
                )
            }
            Self::DeleteNodeLink { host } => write!(f, "node: link del {host}"),
            Self::SetUp { namespace, dev } => write!(f, "{namespace}: link set {dev} up"),
            Self::SetDown { namespace, dev } => write!(f, "{namespace}: link set {dev} down"),
            Self::SetMac { dev, mac, .. } => write!(f, "pod: link set {dev} address {mac}"),
            Self::SetTxQueueLen { dev, length, .. } => write!(f, "pod: link set {dev} txqueuelen {length}"),
            Self::SetSysctl { namespace, key, value } => write!(f, "{namespace}: sysctl {key} = {value}"),
            Self::AddAddress { dev, net } => write!(f, "pod: addr add {net} dev {dev}"),
            Self::DeleteAddress { dev, net } => write!(f, "pod: addr del {net} dev {dev}"),
            Self::SetNeighbor { namespace, neighbor } => {
                write!(f, "{namespace}: neigh replace {neighbor} nud permanent")
            }
            Self::DeleteNeighbor { namespace, neighbor } => write!(f, "{namespace}: neigh del {neighbor}"),
            Self::AddRoute { namespace, route } => write!(f, "{namespace}: route add {route}"),
            Self::ReplaceRoute { namespace, route } => write!(f, "{namespace}: route replace {route}"),
            Self::RestoreRoute { namespace, route } => write!(f, "{namespace}: route append {route}"),
            Self::DeleteRoute { namespace, route } => write!(f, "{namespace}: route del {route}"),
            Self::AddRule { namespace, rule } => write!(f, "{namespace}: rule add {rule}"),
            Self::DeleteRule { namespace, rule } => write!(f, "{namespace}: rule del {rule}"),
            Self::SetReturnMarks(marks) => write!(f, "pod: nft set {marks}"),
            Self::DeleteReturnMarks(nic) => {
                write!(f, "pod: nft delete table inet {}", ReturnMarks::table(nic))
            }
            Self::Interface(step) => write!(f, "node: {step}"),
        }
    }
}
