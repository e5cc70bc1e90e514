//! What can be wrong with a configuration or a pod.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::Unsupported;
use crate::names::{IfName, NameError, PoolName};

/// What is wrong with a strict `podRPFilter` beside programs, and what to set.
pub(super) const STRICT_WITH_PROGRAMS: &str = "is strict: the kernel would drop what dataplane ebpf lets in by another NIC \
    than that of the route back; use 0, or dataplane policy";

/// A value of the configuration is not usable. Field names are those of the CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Not a mode.
    #[error("mode {0:?} is unknown: use auto, underlay, overlay or disabled")]
    Mode(String),
    /// Not a dataplane.
    #[error("dataplane {0:?} is unknown: use ebpf or policy")]
    Dataplane(String),
    /// Not a value of routeHints.
    #[error("ebpf.routeHints {0:?} is unknown: use auto or never")]
    RouteHints(String),
    /// Not a value of nodeLink.
    #[error("ebpf.nodeLink {0:?} is unknown: use all or node")]
    NodeLink(String),
    /// Not a CIDR.
    #[error("{field} {text:?} is not a CIDR, like 10.96.0.0/12 or fd00::/108")]
    Cidr {
        /// The field.
        field: &'static str,
        /// Its value.
        text: String,
    },
    /// A member of a configuration of type veth.
    #[error(
        "network of type veth: {field} is not supported by Spiderpool's coordinator, which serves this type: \
         {remedy}"
    )]
    Veth {
        /// The member.
        field: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Not a device name.
    #[error("{field} {text:?} is not an interface name")]
    Nic {
        /// The field.
        field: &'static str,
        /// Its value.
        text: String,
    },
    /// A route of policyRoutes is wrong.
    #[error("policyRoutes entry dst {dst:?} gw {gw:?}: {reason}")]
    PolicyRoute {
        /// Its destination.
        dst: String,
        /// Its next hop.
        gw: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The MAC prefix is malformed or of a multicast address.
    #[error("podMACPrefix {0:?} must be two hex bytes of a unicast address joined by ':', like 0a:1b")]
    MacPrefix(String),
    /// rp_filter knows three values.
    #[error("podRPFilter {0} must be 0, 1, 2, or negative to leave it alone")]
    RpFilter(i64),
    /// The kernel would drop what the programs let in by another NIC than that of the route back.
    #[error("podRPFilter 1 {}", STRICT_WITH_PROGRAMS)]
    StrictRpFilter,
    /// Not an MTU.
    #[error("vethMTU {0} must be from 68 to 65535")]
    Mtu(i64),
    /// Not a table, or one of the kernel's own.
    #[error("hostRuleTable {0} must be from 1 to 252, or from 256 on")]
    HostRuleTable(i64),
    /// Not an IPv4 address.
    #[error("vethLinkAddress {0:?} is not an IPv4 address, like 169.254.100.1")]
    VethLinkAddress(String),
    /// Not a queue length.
    #[error("txQueueLen {0} must not be negative")]
    TxQueueLen(i64),
}

/// The pod is not in a state that can be set up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Overlay mode is for further NICs only.
    #[error(
        "mode overlay was asked for the pod's first NIC {0}: run coordinator for the Multus attachments only, or \
         use mode underlay"
    )]
    OverlayOnFirstNic(IfName),
    /// veth0 shows that the first NIC is an underlay NIC.
    #[error(
        "mode overlay was asked for {0}, but the pod has veth0: its first NIC was set up in mode underlay"
    )]
    OverlayAfterUnderlay(IfName),
    /// The first NIC did not run coordinator.
    #[error(
        "mode underlay was asked for {0}, but veth0 is missing: the pod's first NIC did not run coordinator"
    )]
    UnderlayWithoutVeth(IfName),
    /// There is no such NIC.
    #[error("the pod has no interface {0}")]
    NoNic(IfName),
    /// There is no cluster NIC.
    #[error(
        "the pod has no interface {0}, which mode overlay needs for Services and the node (podDefaultCniNic)"
    )]
    NoClusterNic(IfName),
    /// Nothing to do with a NIC without addresses.
    #[error("no usable IP addresses on {0}: check that the NIC's IPAM gave it one")]
    NoAddress(IfName),
    /// What the pod sends for its own address would be the node's, and the other way round.
    #[error(
        "{nic} of the pod has the address {address}, which is one of the node's own: give the pod another one"
    )]
    NodeAddress {
        /// The NIC.
        nic: IfName,
        /// The address.
        address: IpAddr,
    },
    /// The NIC that shall have the default route is neither there nor expected.
    #[error(
        "podDefaultRouteNIC: {0} don't exist in pod, and no network of its annotation \
         k8s.v1.cni.cncf.io/networks makes it: correct podDefaultRouteNIC or the annotation \
         ipam.spidernet.io/default-route-nic"
    )]
    DefaultRouteNic(IfName),
    /// The pod needs a feature that is not there yet.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The node link cannot be named.
    #[error(transparent)]
    NodeLinkName(#[from] NameError),
    /// The child of an ipvlan shares its master's MAC.
    #[error(
        "podMACPrefix cannot be applied to {0}: an ipvlan has the MAC of its master; leave podMACPrefix empty"
    )]
    IpvlanMac(IfName),
    /// An underlay NIC has an address of the overlay.
    #[error(
        "{owner} overlaps the pod CIDR {cidr}: {nic} got {address}, and a Pod whose underlay NIC has an address of the \
         overlay cannot reach the overlay's Pods: use a pool outside of the pod CIDRs (overlayPodCIDR) for this NIC",
        owner = pool.as_ref().map_or_else(|| format!("the IPAM of {nic}"), |pool| format!("IPPool {pool}"))
    )]
    InPodCidr {
        /// The NIC.
        nic: IfName,
        /// Its address.
        address: IpAddr,
        /// The pod CIDR.
        cidr: IpNet,
        /// The address' pool, if it is one of ours.
        pool: Option<PoolName>,
    },
}
