//! The map `arrivals`: flows that the other side has started and whose replies would not find back by their addresses alone.
//!
//! These are: by an underlay NIC whatever comes from an address that is steered, or from beyond the link of a NIC without
//! gateway; and UDP for a server on the wildcard address, whose answer may carry another source, where the routing table
//! sends it elsewhere. Nothing else is recorded: a reply that carries the address which was called leaves by the NIC that
//! has it.
//!
//! What comes by an underlay NIC anybody may have sent in anybody's name. It changes nothing about flows that the pod has begun.

use crate::addr::Addr;
use crate::flow_state;
use crate::headers::{Headers, L4Kind, RST};
use crate::maps::{
    ArrivalEntry, CidrAction, CidrKind, DEFAULT_NONE, DEFAULT_USED, Direction, FlowKey, FlowKeys, NicEntry,
    PodFlag, ROLE_CLUSTER, ROLE_UNDERLAY,
};
use crate::pod;
use crate::protocol::{TCP, UDP};
use crate::reason::Reason;
use crate::state::{LogEvent, State};

/// Remembers by which NIC, and from whom, a flow of the other side comes in by the cluster NIC or an underlay NIC.
#[inline(never)]
pub(crate) fn record<S: State>(id: u16, nic: &NicEntry, h: &Headers, keys: &mut FlowKeys, s: &S) -> Reason {
    let is_udp = matches!(h.l4.kind, L4Kind::Udp);
    if matches!(h.l4.kind, L4Kind::EchoReply) || (nic.role == ROLE_CLUSTER && !(is_udp && nic.owns(h.dst))) {
        return Reason::NotOurs;
    }
    let from = pod::cidr(nic, h.src, s);
    let is_steered = from.action == CidrAction::Steer as u8;
    let needs_entry = if is_steered {
        // To there answers leave by the cluster NIC; and no Service calls by another.
        nic.role != ROLE_CLUSTER && from.kind != CidrKind::Service as u8
    } else {
        // Where no other route takes them elsewhere, answers have the address that they should have.
        let by_default = from.kind == 0 && nic.default_route(h.src) == DEFAULT_USED && nic.owns(h.dst);
        // Off the link of a pool without gateway nobody is reached but by the last sender.
        let no_way_back =
            nic.role == ROLE_UNDERLAY && nic.default_route(h.src) == DEFAULT_NONE && from.kind == 0;
        no_way_back || (is_udp && !by_default && !nic.is_ephemeral(h.l4.dst_port))
    };
    if !needs_entry {
        return if is_udp && from.kind != CidrKind::Service as u8 && s.flags(nic.pod).any_local != 0 {
            correct(id, nic, h, keys, s)
        } else {
            Reason::NotOurs
        };
    }
    keys.set(nic.pod, h, Direction::Ingress);
    let keys = &*keys;
    if is_steered || !is_udp {
        if !is_steered {
            s.set_flag(nic.pod, PodFlag::AnyLocal);
        }
        match record_original(id, nic, h, keys, s) {
            Reason::ArrivalNew | Reason::ArrivalSeen if is_udp => {}
            reason => return reason,
        }
    }
    record_any_local(id, nic, h, keys, s)
}

/// A datagram that needs no entry, of a flow that may have one: the same side has called another of the pod's addresses, or
/// somebody in its name. An answer of whom the pod has asked first shows that it is heard.
#[inline(never)]
fn correct<S: State>(id: u16, nic: &NicEntry, h: &Headers, keys: &mut FlowKeys, s: &S) -> Reason {
    keys.set(nic.pod, h, Direction::Ingress);
    match s.arrival(&keys.any_local, |e| update(e, id, nic, h, false, s)) {
        Some(Update::Seen) => Reason::ArrivalSeen,
        Some(Update::Expired | Update::OtherNic | Update::BegunByPod) | None => Reason::NotOurs,
    }
}

/// By an underlay NIC, from an address that is steered.
#[inline(always)]
fn record_original<S: State>(id: u16, nic: &NicEntry, h: &Headers, keys: &FlowKeys, s: &S) -> Reason {
    // Does the pod's socket take it? Asked before the entry is touched: it may go meanwhile.
    let resets = h.l4.flags & RST != 0 && s.takes_reset(&keys.original, h.l4.sequence);
    match s.arrival(&keys.original, |e| update(e, id, nic, h, resets, s)) {
        Some(Update::Seen) => Reason::ArrivalSeen,
        Some(Update::Expired) | None if h.opens_flow() => insert(id, nic, &keys.original, h, keys, s),
        Some(Update::OtherNic | Update::BegunByPod | Update::Expired) | None => Reason::NotOurs,
    }
}

/// The UDP entry without local address, by whichever NIC.
#[inline(always)]
pub(crate) fn record_any_local<S: State>(
    id: u16,
    nic: &NicEntry,
    h: &Headers,
    keys: &FlowKeys,
    s: &S,
) -> Reason {
    match s.arrival(&keys.any_local, |e| update(e, id, nic, h, false, s)) {
        Some(Update::Seen) => Reason::ArrivalSeen,
        Some(Update::OtherNic) => Reason::NotOurs,
        Some(Update::BegunByPod) => Reason::OwnFlow,
        Some(Update::Expired) | None => {
            s.set_flag(nic.pod, PodFlag::AnyLocal);
            insert(id, nic, &keys.any_local, h, keys, s)
        }
    }
}

/// What a packet that comes in does to its flow's entry.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Update {
    /// It is one of the flow.
    Seen,
    /// The entry is of an older flow.
    Expired,
    /// The flow comes in by another NIC.
    OtherNic,
    /// The pod has begun it.
    BegunByPod,
}

#[inline(always)]
fn update<S: State>(
    e: &mut ArrivalEntry,
    id: u16,
    nic: &NicEntry,
    h: &Headers,
    resets: bool,
    s: &S,
) -> Update {
    let now = s.now();
    if flow_state::is_expired(h.l4.protocol, e.state, e.last_seen, now) {
        return Update::Expired;
    }
    if h.l4.protocol != TCP && e.state & flow_state::BEGUN_BY_POD != 0 {
        // It lives while it is answered where the pod has sent it.
        if e.nic == id && e.local == h.dst && now.saturating_sub(e.last_seen) >= flow_state::REFRESH {
            e.last_seen = now;
            e.state |= flow_state::ESTABLISHED;
        }
        return Update::BegunByPod;
    }
    // What the node hands over it would not send by the underlay too: somebody else does, unless it has been silent for long.
    let by_node = e.nic == nic.node_link || e.nic == nic.exit_nic;
    if nic.role == ROLE_UNDERLAY && by_node && seconds(now).wrapping_sub(e.heard) <= flow_state::UDP_TIMEOUT {
        return Update::OtherNic;
    }
    let mut state = e.state;
    if h.is_syn() {
        // A forged one would divert an open connection for good. What a peer that has restarted is answered goes
        // where it always went; its new flow is recorded when the old one has expired.
        if flow_state::is_open(e.state) {
            return Update::Seen;
        }
        state = 0;
    } else if matches!(h.l4.kind, L4Kind::Tcp) {
        // During the handshake the NIC counts by which it is completed.
        if e.nic != id && e.state & flow_state::ESTABLISHED != 0 {
            return Update::OtherNic;
        }
        state = if h.l4.flags & RST == 0 {
            flow_state::after_ingress(state, h.l4.flags)
        } else {
            flow_state::after_reset(state, resets)
        };
    }
    if state != e.state {
        e.state = state;
    }
    if e.nic != id
        || e.mac != h.mac
        || e.local != h.dst
        || now.saturating_sub(e.last_seen) >= flow_state::REFRESH
    {
        e.last_seen = now;
        e.nic = id;
        e.mac = h.mac;
        e.local = h.dst;
    }
    let heard = seconds(now);
    if e.heard != heard {
        e.heard = heard;
    }
    Update::Seen
}

#[inline(always)]
const fn seconds(now: u64) -> u32 {
    (now / flow_state::SECOND) as u32
}

/// Writes the entry of a new flow. What is for an address that is not the pod's (a VM's, or somebody else's whom the pod
/// routes for) is none of the programs' business. What comes by the node link has been asked about before.
#[inline(always)]
fn insert<S: State>(id: u16, nic: &NicEntry, key: &FlowKey, h: &Headers, keys: &FlowKeys, s: &S) -> Reason {
    if !pod::has(nic, &h.dst, s) {
        return Reason::NotOurs;
    }
    if nic.role == ROLE_UNDERLAY && is_begun_by_pod(nic, keys, false, s) {
        return Reason::OwnFlow;
    }
    put(key, &entry_of(id, h, h.dst, 0, s.now()), s)
}

/// Whether a flow that somebody seems to start is one that the pod has begun itself: a connected socket has it, or it is UDP of a
/// port that the kernel gives to those who ask, or of fixed ports on both sides and the pod has spoken first.
#[inline(never)]
pub(crate) fn is_begun_by_pod<S: State>(nic: &NicEntry, keys: &FlowKeys, is_trusted: bool, s: &S) -> bool {
    let key = &keys.original;
    if s.socket_connected(key) {
        return true;
    }
    if key.protocol != UDP || is_trusted {
        return false;
    }
    let now = s.now();
    let is_noted = |e: &mut ArrivalEntry| {
        e.state & flow_state::BEGUN_BY_POD != 0 && !flow_state::is_expired(UDP, e.state, e.last_seen, now)
    };
    nic.is_ephemeral(key.local_port)
        || s.arrival(&keys.any_local, is_noted) == Some(true)
        || s.nat(key, |e| flow_state::is_expired(UDP, e.state, e.last_seen, now)) == Some(false)
}

/// Ports below this are no client's, on the other side, of which the range is not known: most systems begin here or above.
pub(crate) const FIXED_BELOW: u16 = 32_768;

/// The pod sends a datagram by the NIC `id` that answers nothing. Where both ports are fixed nothing but this tells it from an
/// answer. The notes get a quarter of the pod's share: a server that answers whom it has not recorded makes some too.
#[inline(never)]
pub(crate) fn note_begun<S: State>(id: u16, nic: &NicEntry, h: &Headers, s: &S) {
    let key = FlowKey::of(nic.pod, h, Direction::Egress).any_local();
    let now = s.now();
    let is_live = |e: &mut ArrivalEntry| !flow_state::is_expired(UDP, e.state, e.last_seen, now);
    if s.arrival(&key, is_live) == Some(true) || s.usage(nic.pod).arrivals >= s.share().arrivals / 4 {
        return;
    }
    s.set_flag(nic.pod, PodFlag::AnyLocal);
    put(&key, &entry_of(id, h, h.src, flow_state::BEGUN_BY_POD, now), s);
}

#[inline(always)]
const fn entry_of(id: u16, h: &Headers, local: Addr, state: u8, now: u64) -> ArrivalEntry {
    ArrivalEntry { last_seen: now, local, heard: seconds(now), nic: id, mac: h.mac, state, _pad: [0; 3] }
}

/// Datagrams, which cost nothing to forge, get half of the pod's share.
#[inline(never)]
fn put<S: State>(key: &FlowKey, entry: &ArrivalEntry, s: &S) -> Reason {
    // An expired one of the same tuple costs nothing more.
    if s.arrival(key, |old| *old = *entry).is_some() {
        return Reason::ArrivalNew;
    }
    let share = s.share().arrivals;
    let share = if key.protocol == UDP { share / 2 } else { share };
    if s.usage(key.pod).arrivals < share && s.arrival_put(key, entry).is_ok() {
        return Reason::ArrivalNew;
    }
    s.report(LogEvent::ArrivalsFull);
    Reason::ArrivalsFull
}
