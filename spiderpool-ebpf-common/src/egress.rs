//! What leaves the pod: replies go where their flow came in, cluster destinations by the exit NIC, in overlay mode
//! with its address, the rest by the NIC whose address it carries. In overlay mode nothing with an underlay NIC's
//! source leaves by the cluster NIC.

use crate::addr::Addr;
use crate::arrivals;
use crate::headers::{self, Headers, L4Kind};
use crate::maps::{ExitMode, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE, ROLE_UNDERLAY};
use crate::mtu;
use crate::nat;
use crate::neighbor;
use crate::packet::{ARP, IPV4, IPV6, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::scratch::Scratch;
use crate::state::{LogEvent, State};
use crate::verdict::{Outcome, Verdict};

/// The program on the egress of each NIC. `id` is the NIC's id (0: none).
///
/// Decides, then looks at the size, then changes the packet: until the last step it is as it was.
#[inline(always)]
pub fn egress<P: Packet, S: State>(p: &mut P, id: u16, scratch: &mut Scratch, s: &S) -> Verdict {
    let Some(nic) = s.nic(id) else { return Verdict::Pass };
    if nic.role == ROLE_NONE || id == 0 {
        return Verdict::Pass;
    }
    let bytes = p.len();
    let Scratch { headers, rewrite, outcome: stored, .. } = scratch;
    rewrite.clear();
    let mut outcome = Scratch::reload(stored, decide(p, id, nic, headers, rewrite, s));
    if outcome.mtu() != 0 {
        if mtu::exceeds(p, outcome.mtu()) {
            s.count(id, Reason::MtuExceeded, bytes);
        }
        if headers.has_mss() {
            mtu::clamp_mss(p, headers, outcome.mtu(), rewrite);
        }
    }
    if !rewrite.apply(p, headers) {
        outcome = refused(nic, headers, s);
    } else if rewrite.lowers_mss() {
        s.count(id, Reason::MssClamped, bytes);
    }
    s.count(id, outcome.reason, bytes);
    outcome.verdict()
}

#[inline(always)]
fn decide<P: Packet, S: State>(
    p: &P,
    id: u16,
    nic: &NicEntry,
    h: &mut Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if nic.role == ROLE_NODE_LINK {
        return Outcome::pass(Reason::NodeLink);
    }
    match p.protocol() {
        IPV4 | IPV6 => {}
        ARP if nic.role == ROLE_UNDERLAY => {
            return reported(neighbor::answer_arp(p, nic, rewrite, s), id, s);
        }
        _ => return Outcome::pass(Reason::NotIp),
    }
    if !headers::parse(p, h) {
        return Outcome::pass(Reason::Malformed);
    }
    let h = &*h;
    if matches!(h.l4.kind, L4Kind::Solicitation) && nic.role == ROLE_UNDERLAY {
        return reported(neighbor::answer_ndp(p, nic, h, rewrite, s), id, s);
    }
    if h.is_discovery() || h.dst.is_link_scope() {
        return Outcome::pass(Reason::LinkScope);
    }
    let outcome = if h.is_tracked() {
        by_flow(id, nic, h, rewrite, s)
    } else {
        Outcome::undecided(Reason::of_untracked(h))
    };
    match outcome.decided() {
        Some(outcome) => outcome,
        None => by_source(nic, h, rewrite, s, outcome.reason),
    }
}

/// A reply, or a cluster destination; undecided if the source decides.
#[inline(always)]
fn by_flow<S: State>(id: u16, nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    if let Some(outcome) = arrivals::reply(id, nic, h, rewrite, s).decided() {
        return outcome;
    }
    if pod::is_steered(nic, h.dst, s)
        && let Some(exit) = pod::exit(nic, s)
    {
        match nic.exit_mode() {
            ExitMode::AsIs => return Outcome::undecided(Reason::Steered),
            ExitMode::Translated if !exit.addr(h.dst).is_unspecified() => {
                return steer(id, nic, exit, h, rewrite, s);
            }
            // No address of this family to leave with.
            ExitMode::Translated => {}
        }
    }
    if nic.owns(h.src) {
        return Outcome::pass(Reason::NotOurs);
    }
    Outcome::undecided(Reason::BySource)
}

#[inline(always)]
fn reported<S: State>(outcome: Outcome, id: u16, s: &S) -> Outcome {
    if !matches!(outcome.verdict(), Verdict::Pass) {
        s.report(id, LogEvent::NeighborAnswered);
    }
    outcome
}

/// A destination that the exit NIC reaches, with its address; undecided if there is no translation.
#[inline(always)]
fn steer<S: State>(
    id: u16,
    nic: &NicEntry,
    exit: &NicEntry,
    h: &Headers,
    rewrite: &mut Rewrite,
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
            let reason = if h.is_syn() { nat::check_conflict(nic, h, s) } else { Reason::ClusterDirect };
            return Outcome::pass(reason);
        }
        return by_exit(nic, exit, rewrite, Reason::Steered);
    }
    let flow = nat::find_or_insert(id, exit, h, s);
    if !flow.found {
        return Outcome::undecided(flow.reason);
    }
    rewrite.source(exit.addr(h.src), flow.port);
    by_exit(nic, exit, rewrite, flow.reason)
}

#[inline(always)]
fn by_exit(nic: &NicEntry, exit: &NicEntry, rewrite: &mut Rewrite, reason: Reason) -> Outcome {
    if nic.role == ROLE_CLUSTER {
        return Outcome::pass(reason).with_mtu(exit.mtu);
    }
    to_peer(exit, rewrite, reason)
}

/// Sends a packet by the NIC whose address it carries; but what carries an underlay address and is for the
/// cluster goes by the node link. Foreign sources pass.
#[inline(never)]
fn by_source<S: State>(nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S, reason: Reason) -> Outcome {
    let owned = nic.owns(h.src);
    if owned && nic.role == ROLE_CLUSTER {
        return Outcome::pass(reason);
    }
    let exit = if owned { None } else { pod::exit(nic, s) };
    if let Some(exit) = exit
        && exit.owns(h.src)
    {
        return to_peer(exit, rewrite, reason);
    }
    let owner = if owned { Some(nic) } else { further_owner(nic, h, s) };
    let Some(owner) = owner else { return Outcome::pass(reason_for_foreign(reason)) };
    let is_here = owner.ifindex == nic.ifindex;
    if owner.role == ROLE_CLUSTER {
        return if is_here {
            Outcome::pass(reason_for_further(reason))
        } else {
            to_peer(owner, rewrite, reason)
        };
    }
    if is_for_cluster(nic, h.dst, s)
        && let Some(link) = pod::node_link(nic, s)
    {
        return to_peer(link, rewrite, reason);
    }
    if is_here {
        Outcome::pass(reason_for_further(reason))
    } else {
        Outcome::redirect_neigh(owner.ifindex, reason).with_mtu(owner.mtu)
    }
}

/// Another NIC of the pod that has the source, or this one if it has it beside its first address.
#[inline(always)]
fn further_owner<'s, S: State>(nic: &NicEntry, h: &Headers, s: &'s S) -> Option<&'s NicEntry> {
    let id = pod::owner(nic, &h.src, s);
    s.nic(id).filter(|_| id != 0)
}

#[inline(always)]
fn is_for_cluster<S: State>(nic: &NicEntry, dst: Addr, s: &S) -> bool {
    pod::is_steered(nic, dst, s)
}

/// A further address of the NIC itself.
const fn reason_for_further(reason: Reason) -> Reason {
    if matches!(reason, Reason::BySource) { Reason::NotOurs } else { reason }
}

const fn reason_for_foreign(reason: Reason) -> Reason {
    if matches!(reason, Reason::BySource | Reason::Steered) { Reason::ForeignSource } else { reason }
}

/// By the exit NIC or the node link, whose host end's MAC is known.
#[inline(always)]
fn to_peer(nic: &NicEntry, rewrite: &mut Rewrite, reason: Reason) -> Outcome {
    rewrite.macs(nic, nic.peer_mac);
    Outcome::redirect(nic.ifindex, reason).with_mtu(nic.mtu)
}

/// The kernel let nothing be changed: the packet passes as it is. What may not leave by the cluster NIC is handed to
/// the NIC that has its source, for which nothing has to be changed.
#[inline(never)]
fn refused<S: State>(nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    if nic.role == ROLE_CLUSTER
        && !nic.owns(h.src)
        && let Some(owner) = further_owner(nic, h, s)
        && owner.role == ROLE_UNDERLAY
    {
        return Outcome::redirect_neigh(owner.ifindex, Reason::Failed);
    }
    Outcome::pass(Reason::Failed)
}
