//! What leaves the pod: replies go where their flow came in, cluster destinations by the exit NIC, in overlay mode
//! with its address, the rest by the NIC whose address it carries. In overlay mode nothing with an underlay NIC's
//! source leaves by the cluster NIC.

use crate::headers::{self, Fragment, Headers, L4Kind};
use crate::maps::{
    Direction, ExitMode, FlowKeys, FragmentKey, NicEntry, PodFlag, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE,
    ROLE_UNDERLAY,
};
use crate::mtu;
use crate::nat;
use crate::neighbor;
use crate::packet::{ARP, IPV4, IPV6, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::scratch::{Facts, Scratch};
use crate::state::{LogEvent, State};
use crate::verdict::{Outcome, Verdict};
use crate::{arrivals, errors, fragments, pod_end, replies};

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
    if nic.decides() && p.take_decided() {
        let reason = if nic.role == ROLE_CLUSTER { Reason::ClusterDirect } else { Reason::NodeLink };
        s.count(id, reason, bytes);
        return Verdict::Pass;
    }
    let Scratch { headers, quoted, rewrite, message, keys, outcome: stored, facts } = scratch;
    rewrite.clear();
    headers.fragment = Fragment::No;
    let mut outcome = decide(p, id, nic, (headers, quoted, keys, stored, facts), rewrite, s);
    outcome = Scratch::reload(stored, outcome);
    if outcome.mtu() != 0 {
        if mtu::exceeds(p, headers, outcome.mtu()) {
            outcome = mtu::reject(nic, headers, outcome.mtu(), rewrite, s);
        } else if headers.has_mss() {
            mtu::clamp_mss(p, headers, outcome.mtu(), rewrite);
        }
    }
    outcome = Scratch::reload(stored, outcome);
    if rewrite.apply(p, headers, quoted, message) {
        if rewrite.lowers_mss() {
            s.count(id, Reason::MssClamped, bytes);
        }
        if rewrite.is_for_cluster_nic() {
            p.set_decided();
        }
    } else {
        rewrite.clear();
        outcome = refused(nic, headers, s);
    }
    if matches!(headers.fragment, Fragment::First) {
        fragments::lead(&FragmentKey::of(id, headers, Direction::Egress), rewrite, outcome, s);
    }
    s.count(id, outcome.reason, bytes);
    outcome.verdict()
}

#[inline(always)]
fn decide<P: Packet, S: State>(
    p: &P,
    id: u16,
    nic: &NicEntry,
    (h, quoted, keys, stored, facts): (&mut Headers, &mut Headers, &mut FlowKeys, &mut Outcome, &mut Facts),
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if nic.role == ROLE_NODE_LINK && !nic.decides() {
        return Outcome::pass(Reason::NodeLink);
    }
    match p.protocol() {
        IPV4 | IPV6 => {}
        ARP if nic.role == ROLE_UNDERLAY => {
            return reported(neighbor::answer_arp(p, nic, rewrite, s), s);
        }
        _ => return Outcome::pass(Reason::NotIp),
    }
    if !headers::parse(p, h) {
        return Outcome::pass(Reason::Malformed);
    }
    let h = &*h;
    if matches!(h.l4.kind, L4Kind::Solicitation) && nic.role == ROLE_UNDERLAY {
        return reported(neighbor::answer_ndp(p, nic, h, rewrite, s), s);
    }
    if h.is_discovery() || h.dst.is_link_scope() {
        return Outcome::pass(Reason::LinkScope);
    }
    if let Some(outcome) = fragments::follow(id, h, Direction::Egress, rewrite, s).decided() {
        return outcome;
    }
    if nic.role == ROLE_NODE_LINK {
        let outcome =
            if h.is_tracked() { by_veth0(id, nic, h, rewrite, s) } else { Outcome::pass(Reason::NodeLink) };
        return Scratch::reload(stored, outcome);
    }
    let exit = pod::exit(nic, s);
    facts.set(exit.is_some_and(|exit| exit.owns(h.src)), pod::is_steered(nic, h.dst, s));
    let facts = &*facts;
    let outcome = if h.is_tracked() {
        by_flow(id, (nic, exit), facts, h, keys, rewrite, s)
    } else if errors::is_error(h) {
        errors::leaves(p, (id, nic, exit), facts, h, quoted, rewrite, s)
    } else if !facts.is_direct() && (facts.is_steered() || s.flags(nic.pod).link_flows != 0) {
        pod_end::reply_untracked(nic, h, rewrite, s).or_undecided(Reason::of_untracked(h))
    } else {
        Outcome::undecided(Reason::of_untracked(h))
    };
    // Not the constants that the branches end with: see `by_source`.
    let outcome = Scratch::reload(stored, outcome);
    match outcome.decided() {
        Some(outcome) => outcome,
        None => by_source(nic, h, rewrite, s, outcome.reason),
    }
}

/// In underlay mode, what the routing table sends to node or cluster: a reply of a flow that came in by an underlay NIC goes back
/// there.
#[inline(never)]
fn by_veth0<S: State>(id: u16, nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    // Before anything that somebody in the underlay may have had recorded.
    if pod_end::is_reply(nic, h, s) {
        return Outcome::pass(Reason::NodeLink);
    }
    if let Some(outcome) = replies::reply(id, nic, h, rewrite, s).decided() {
        return outcome;
    }
    if matches!(h.l4.kind, L4Kind::Udp) {
        if s.flags(nic.pod).any_local != 0
            && s.wildcard_socket()
            && let Some(outcome) = replies::reply_any_local(id, nic, h, rewrite, s).decided()
        {
            return outcome;
        }
        note_begun(nic.exit_nic, nic, h, s);
    }
    Outcome::pass(Reason::NodeLink)
}

/// A datagram from a fixed port that answers nothing.
#[inline(always)]
fn note_begun<S: State>(by: u16, nic: &NicEntry, h: &Headers, s: &S) {
    if !nic.is_ephemeral(h.l4.src_port) && h.l4.dst_port < arrivals::FIXED_BELOW {
        arrivals::note_begun(by, nic, h, s);
    }
}

/// A reply, or a cluster destination; undecided if the source decides.
#[inline(always)]
fn by_flow<S: State>(
    id: u16,
    (nic, exit): (&NicEntry, Option<&NicEntry>),
    facts: &Facts,
    h: &Headers,
    keys: &mut FlowKeys,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let is_udp = matches!(h.l4.kind, L4Kind::Udp);
    let flags = s.flags(nic.pod);
    let is_any_local = is_udp && flags.any_local != 0 && s.wildcard_socket();
    // First: the source is the kernel's choice, and the same side may have called more than one of the pod's addresses. Not what
    // has come by the underlay, in whoever's name.
    if is_any_local
        && nic.owns(h.src)
        && replies::is_called_by_node(nic, h, s)
        && let Some(outcome) = replies::reply_any_local(id, nic, h, rewrite, s).decided()
    {
        return outcome;
    }
    if !facts.is_direct()
        && (facts.is_steered() || flags.link_flows != 0)
        && let Some(outcome) = pod_end::reply(nic, h, rewrite, s).decided()
    {
        return outcome;
    }
    if !facts.is_direct()
        && (facts.is_steered() || nic.keeps_translations != 0 || flags.any_local != 0)
        && let Some(outcome) = replies::reply(id, nic, h, rewrite, s).decided()
    {
        return outcome;
    }
    if is_any_local && let Some(outcome) = replies::reply_any_local(id, nic, h, rewrite, s).decided() {
        return outcome;
    }
    if is_udp {
        let by = if facts.is_direct() || facts.is_steered() { nic.exit_nic } else { id };
        note_begun(by, nic, h, s);
    }
    if let Some(exit) = exit
        && (facts.is_steered() || (nic.keeps_translations != 0 && !facts.is_direct()))
    {
        match nic.exit_mode() {
            ExitMode::AsIs if facts.is_steered() => return Outcome::undecided(Reason::Steered),
            ExitMode::Translated if !exit.addr(h.dst).is_unspecified() => {
                let outcome = steer(id, (nic, exit), facts, h, keys, rewrite, s);
                if facts.is_steered() || outcome.decided().is_some() {
                    return outcome;
                }
            }
            // No address of this family to leave with.
            ExitMode::AsIs | ExitMode::Translated => {}
        }
    }
    if nic.owns(h.src) {
        return Outcome::pass(Reason::NotOurs);
    }
    Outcome::undecided(Reason::BySource)
}

#[inline(always)]
fn reported<S: State>(outcome: Outcome, s: &S) -> Outcome {
    if !matches!(outcome.verdict(), Verdict::Pass) {
        s.report(LogEvent::NeighborAnswered);
    }
    outcome
}

/// A destination that the exit NIC reaches, with its address; undecided if there is no translation. One that is steered no more
/// is reached so by the flows that are translated already.
#[inline(always)]
fn steer<S: State>(
    id: u16,
    (nic, exit): (&NicEntry, &NicEntry),
    facts: &Facts,
    h: &Headers,
    keys: &mut FlowKeys,
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
        return if facts.is_steered() {
            Outcome::pass(Reason::ForeignSource)
        } else {
            Outcome::undecided(Reason::ForeignSource)
        };
    }
    let flow = if owner == nic.exit_nic {
        let reason = if nic.role == ROLE_CLUSTER { Reason::ClusterDirect } else { Reason::Steered };
        let Some(flow) = other_port(exit, h, keys, s) else {
            return pod::by_exit(nic, exit, rewrite, reason);
        };
        flow
    } else if facts.is_steered() {
        nat::find_or_insert(exit, h, keys, s)
    } else {
        nat::find(exit, h, s)
    };
    if !flow.found {
        return Outcome::undecided(flow.reason);
    }
    rewrite.source(exit.addr(h.src), flow.port);
    pod::by_exit(nic, exit, rewrite, flow.reason)
}

/// The other port of a flow with the exit NIC's own address whose tuple a translated flow has. `None`: it keeps its own.
#[inline(always)]
fn other_port<S: State>(
    exit: &NicEntry,
    h: &Headers,
    keys: &mut FlowKeys,
    s: &S,
) -> Option<nat::Translation> {
    let flags = s.flags(exit.pod);
    if flags.translated == 0 {
        return None;
    }
    if flags.translated_direct != 0 {
        let known = nat::find(exit, h, s);
        if known.found {
            return Some(known);
        }
    }
    if !h.opens_flow() || matches!(nat::check_conflict(exit, h, s), nat::Direct::AsItIs) {
        return None;
    }
    s.set_flag(exit.pod, PodFlag::TranslatedDirect);
    let new = nat::find_or_insert(exit, h, keys, s);
    new.found.then_some(nat::Translation { reason: Reason::NatConflict, ..new })
}

/// Sends a packet by the NIC whose address it carries. Foreign sources pass.
///
/// `reason` must come from map memory. Where it was one of several constants, the verifiers of Linux 5.10 and 6.1 took what they
/// had seen with one of them for all, and removed the comparisons with the others from the program as never true.
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
        return pod::to_peer(exit, rewrite, reason);
    }
    let owner = if owned { Some(nic) } else { further_owner(nic, h, s) };
    let Some(owner) = owner else { return Outcome::pass(reason_for_foreign(reason)) };
    let is_here = owner.ifindex == nic.ifindex;
    if owner.role == ROLE_CLUSTER {
        return if is_here {
            Outcome::pass(reason_for_further(reason))
        } else {
            pod::to_peer(owner, rewrite, reason)
        };
    }
    if matches!(nic.exit_mode(), ExitMode::AsIs)
        && pod::is_steered(nic, h.dst, s)
        && let Some(link) = pod::node_link(nic, s)
    {
        return pod::to_peer(link, rewrite, reason);
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

/// A further address of the NIC itself.
const fn reason_for_further(reason: Reason) -> Reason {
    if matches!(reason, Reason::BySource) { Reason::NotOurs } else { reason }
}

const fn reason_for_foreign(reason: Reason) -> Reason {
    if matches!(reason, Reason::BySource | Reason::Steered) { Reason::ForeignSource } else { reason }
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
