//! What leaves the pod: replies go where their flow came in, cluster destinations by the cluster NIC with its
//! address, the rest by the NIC whose address it carries. Nothing with an underlay NIC's source leaves by the
//! cluster NIC.

use crate::addr::Addr;
use crate::arrivals;
use crate::headers::{self, Headers, Kind};
use crate::maps::{ExitMode, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE, ROLE_UNDERLAY};
use crate::mss;
use crate::nat;
use crate::neighbour;
use crate::packet::{ARP, IPV4, IPV6, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite;
use crate::state::State;
use crate::verdict::{Outcome, Verdict};

/// The program on the egress of each NIC. `id` is the NIC's id (0: none); `h` is memory to work in.
#[inline(always)]
pub fn egress<P: Packet, S: State>(p: &mut P, id: u16, h: &mut Headers, s: &S) -> Verdict {
    let Some(nic) = s.nic(id) else { return Verdict::Pass };
    if nic.role == ROLE_NONE || id == 0 {
        return Verdict::Pass;
    }
    let bytes = p.len();
    let outcome = decide(p, id, nic, h, s);
    if outcome.mtu() != 0 {
        mss::fit(p, id, h, outcome.mtu(), s);
    }
    s.count(id, outcome.reason, bytes);
    outcome.verdict()
}

#[inline(always)]
fn decide<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &mut Headers, s: &S) -> Outcome {
    if nic.role == ROLE_NODE_LINK {
        return Outcome::pass(Reason::NodeLink);
    }
    match p.protocol() {
        IPV4 | IPV6 => {}
        ARP if nic.role == ROLE_UNDERLAY => return neighbour::answer_arp(p, id, nic, s),
        _ => return Outcome::pass(Reason::NotIp),
    }
    if !headers::parse(p, h) {
        return Outcome::pass(Reason::Malformed);
    }
    let h = &*h;
    if matches!(h.kind, Kind::Solicitation) && nic.role == ROLE_UNDERLAY {
        return neighbour::answer_ndp(p, id, nic, h, s);
    }
    if matches!(h.kind, Kind::Solicitation | Kind::Discovery) || h.dst.is_link_scope() {
        return Outcome::pass(Reason::LinkScope);
    }
    if !h.is_flow() {
        return keep_off(p, nic, h, s, no_flow(h.kind));
    }
    if let Some(outcome) = arrivals::reply(p, id, nic, h, s).decided() {
        return outcome;
    }
    if pod::is_steered(nic, h.dst, s)
        && let Some(exit) = pod::exit(nic, s)
    {
        match nic.exit_mode() {
            ExitMode::AsIs => return keep_off(p, nic, h, s, Reason::Steered),
            ExitMode::Translated if !exit.addr(h.dst).is_unspecified() => {
                return steer(p, id, nic, exit, h, s);
            }
            // No address of this family to leave with.
            ExitMode::Translated => {}
        }
    }
    if nic.owns(h.src) {
        return Outcome::pass(Reason::NotOurs);
    }
    keep_off(p, nic, h, s, Reason::BySource)
}

const fn no_flow(kind: Kind) -> Reason {
    match kind {
        Kind::Fragment => Reason::Fragment,
        Kind::IcmpError => Reason::IcmpError,
        Kind::Malformed => Reason::Malformed,
        _ => Reason::OtherProtocol,
    }
}

/// A destination that the exit NIC reaches, with its address.
#[inline(always)]
fn steer<P: Packet, S: State>(
    p: &mut P,
    id: u16,
    nic: &NicEntry,
    exit: &NicEntry,
    h: &Headers,
    s: &S,
) -> Outcome {
    let owner = if exit.owns(h.src) {
        nic.exit_nic
    } else if nic.role == ROLE_UNDERLAY && nic.owns(h.src) {
        id
    } else {
        pod::owner(nic, &h.src, s)
    };
    if owner == 0 {
        return Outcome::pass(Reason::ForeignSource);
    }
    if owner == nic.exit_nic {
        if nic.role == ROLE_CLUSTER {
            let reason = if h.is_syn() { nat::make_room(nic, h, s) } else { Reason::ClusterDirect };
            return Outcome::pass(reason);
        }
        return to_exit(p, nic, exit, Reason::Steered);
    }
    let flow = nat::find(id, exit, h, s);
    if !flow.found {
        return keep_off(p, nic, h, s, flow.reason);
    }
    if !rewrite::set_source(p, h, &exit.addr(h.src), flow.port) {
        return keep_off(p, nic, h, s, Reason::Failed);
    }
    to_exit(p, nic, exit, flow.reason)
}

#[inline(always)]
fn to_exit<P: Packet>(p: &mut P, nic: &NicEntry, exit: &NicEntry, reason: Reason) -> Outcome {
    if nic.role == ROLE_CLUSTER {
        return Outcome::pass(reason).onto(exit.mtu);
    }
    by_mac(p, exit, reason)
}

/// Sends a packet by the NIC whose address it carries; but what carries an underlay address and is for the
/// cluster goes by the node link. Foreign sources pass.
#[inline(never)]
fn keep_off<P: Packet, S: State>(p: &mut P, nic: &NicEntry, h: &Headers, s: &S, reason: Reason) -> Outcome {
    let owned = nic.owns(h.src);
    if owned && nic.role == ROLE_CLUSTER {
        return Outcome::pass(reason);
    }
    let exit = if owned { None } else { pod::exit(nic, s) };
    if let Some(exit) = exit
        && exit.owns(h.src)
    {
        return by_mac(p, exit, reason);
    }
    let owner = if owned { 0 } else { pod::owner(nic, &h.src, s) };
    let holder = if owned { Some(nic) } else { s.nic(owner).filter(|_| owner != 0) };
    let Some(holder) = holder else { return Outcome::pass(foreign(reason)) };
    let here = holder.ifindex == nic.ifindex;
    if holder.role == ROLE_CLUSTER {
        return if here { Outcome::pass(own(reason)) } else { by_mac(p, holder, reason) };
    }
    if is_for_cluster(nic, h.dst, s)
        && let Some(link) = pod::node_link(nic, s)
    {
        return by_mac(p, link, reason);
    }
    if here {
        Outcome::pass(own(reason))
    } else {
        Outcome::redirect_neigh(holder.ifindex, reason).onto(holder.mtu)
    }
}

#[inline(always)]
fn is_for_cluster<S: State>(nic: &NicEntry, dst: Addr, s: &S) -> bool {
    pod::is_steered(nic, dst, s)
}

/// A further address of the NIC itself.
const fn own(reason: Reason) -> Reason {
    if matches!(reason, Reason::BySource) { Reason::NotOurs } else { reason }
}

const fn foreign(reason: Reason) -> Reason {
    if matches!(reason, Reason::BySource | Reason::Steered) { Reason::ForeignSource } else { reason }
}

/// By the cluster NIC or the node link, whose host end's MAC is known.
#[inline(always)]
fn by_mac<P: Packet>(p: &mut P, to: &NicEntry, reason: Reason) -> Outcome {
    if rewrite::set_macs(p, to, to.peer_mac) {
        Outcome::redirect(to.ifindex, reason).onto(to.mtu)
    } else {
        Outcome::pass(Reason::Failed)
    }
}
