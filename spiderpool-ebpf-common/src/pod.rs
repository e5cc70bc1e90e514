//! Questions about the pod that a NIC belongs to.

use crate::addr::Addr;
use crate::maps::{
    AddressKey, CidrAction, CidrEntry, CidrKey, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_UNDERLAY,
};
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::State;
use crate::verdict::Outcome;

/// The NIC by which the pod's cluster traffic leaves. (In overlay mode that is the one with the role of cluster NIC; in
/// underlay mode no NIC of the pod has that role.)
#[inline(always)]
pub(crate) fn exit<'s, S: State>(nic: &'s NicEntry, s: &'s S) -> Option<&'s NicEntry> {
    if nic.role == ROLE_CLUSTER {
        return Some(nic);
    }
    s.nic(nic.exit_nic)
        .filter(|exit| exit.pod == nic.pod && matches!(exit.role, ROLE_CLUSTER | ROLE_NODE_LINK))
}

/// The pod's node link.
#[inline(always)]
pub(crate) fn node_link<'s, S: State>(nic: &'s NicEntry, s: &'s S) -> Option<&'s NicEntry> {
    if nic.node_link == 0 {
        return None;
    }
    s.nic(nic.node_link).filter(|l| l.role == ROLE_NODE_LINK && l.pod == nic.pod)
}

/// The id of the NIC of the same pod that has an address; 0 if none has. (A node link has none of its own.)
#[inline(never)]
pub(crate) fn owner<S: State>(nic: &NicEntry, addr: &Addr, s: &S) -> u16 {
    let id = s.address(&AddressKey::new(nic.pod, *addr));
    match s.nic(id) {
        Some(other) if other.pod == nic.pod && matches!(other.role, ROLE_CLUSTER | ROLE_UNDERLAY) => id,
        _ => 0,
    }
}

/// By the exit NIC or the node link, whose host end's MAC is known.
#[inline(always)]
pub(crate) fn to_peer(nic: &NicEntry, rewrite: &mut Rewrite, reason: Reason) -> Outcome {
    rewrite.macs(nic, nic.peer_mac);
    if nic.decides() {
        rewrite.for_cluster_nic();
    }
    Outcome::redirect(nic.ifindex, reason).with_mtu(nic.mtu)
}

/// By the exit NIC, which may be the one that the packet leaves by already.
#[inline(always)]
pub(crate) fn by_exit(nic: &NicEntry, exit: &NicEntry, rewrite: &mut Rewrite, reason: Reason) -> Outcome {
    if nic.role == ROLE_CLUSTER {
        return if matches!(reason, Reason::ClusterDirect) {
            Outcome::pass(reason)
        } else {
            Outcome::pass(reason).with_mtu(exit.mtu)
        };
    }
    to_peer(exit, rewrite, reason)
}

/// Whether an address is one of the pod's.
#[inline(always)]
pub(crate) fn has<S: State>(nic: &NicEntry, addr: &Addr, s: &S) -> bool {
    nic.owns(*addr) || owner(nic, addr, s) != 0 || matches!(exit(nic, s), Some(exit) if exit.owns(*addr))
}

/// Whether the pod has a cluster NIC.
#[inline(always)]
pub(crate) fn has_cluster_nic<S: State>(nic: &NicEntry, s: &S) -> bool {
    exit(nic, s).is_some_and(|exit| exit.role == ROLE_CLUSTER)
}

/// Whether an address is the cluster NIC's. (In underlay mode the pod has no cluster NIC.)
#[inline(never)]
pub(crate) fn is_cluster_address<S: State>(nic: &NicEntry, addr: &Addr, s: &S) -> bool {
    let Some(cluster) = exit(nic, s).filter(|exit| exit.role == ROLE_CLUSTER) else { return false };
    cluster.owns(*addr) || owner(nic, addr, s) == nic.exit_nic
}

/// What `cluster_cidrs` says about a destination.
#[inline(always)]
pub(crate) fn cidr<S: State>(nic: &NicEntry, dst: Addr, s: &S) -> CidrEntry {
    s.cidr(&CidrKey::new(nic.profile, dst))
}

/// Whether a destination is to be reached by the cluster NIC.
#[inline(always)]
pub(crate) fn is_steered<S: State>(nic: &NicEntry, dst: Addr, s: &S) -> bool {
    cidr(nic, dst, s).action == CidrAction::Steer as u8
}

/// The kind of a destination that is to be reached by the cluster NIC; 0 for any other.
#[inline(never)]
pub(crate) fn steered_kind<S: State>(nic: &NicEntry, dst: &Addr, s: &S) -> u8 {
    let entry = cidr(nic, *dst, s);
    if entry.action == CidrAction::Steer as u8 { entry.kind } else { 0 }
}
