//! The map `arrivals`: what came in by which NIC, and replies that go back there.

use crate::addr::Addr;
use crate::flow_state;
use crate::headers::{FIN, Headers, L4Kind, RST};
use crate::maps::{
    ArrivalEntry, CidrKind, Direction, FlowKey, LinkFlow, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE,
    ROLE_UNDERLAY,
};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::State;
use crate::verdict::Outcome;

/// Sends a packet back where its flow came in; undecided if it is no reply.
#[inline(never)]
pub(crate) fn reply<S: State>(id: u16, nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    if matches!(h.l4.kind, L4Kind::EchoRequest) {
        return Outcome::undecided(Reason::NotOurs);
    }
    let key = FlowKey::of(nic.pod, h, Direction::Egress);
    match s.arrival(&key, |e| update_on_egress(e, h, s)) {
        Some(Some(path)) => by_path(id, nic, h, &path, rewrite, s),
        Some(None) => {
            if h.is_syn() {
                s.arrival_remove(&key);
            }
            Outcome::undecided(Reason::NotOurs)
        }
        None if matches!(h.l4.kind, L4Kind::Udp) && s.wildcard_socket() => {
            reply_any_local(id, nic, h, rewrite, s)
        }
        None => Outcome::undecided(Reason::NotOurs),
    }
}

/// Where a flow's replies go.
struct ReplyPath {
    local: Addr,
    nic: u16,
    mac: [u8; 6],
}

/// `None`: the entry is of an older flow.
#[inline(always)]
fn update_on_egress<S: State>(e: &mut ArrivalEntry, h: &Headers, s: &S) -> Option<ReplyPath> {
    let now = s.now();
    if h.is_syn() || flow_state::is_expired(h.l4.protocol, e.state, e.last_seen, now) {
        return None;
    }
    let mut state = e.state;
    if matches!(h.l4.kind, L4Kind::Tcp) {
        if h.l4.flags & FIN != 0 {
            state |= flow_state::FIN_SENT;
        }
        if h.l4.flags & RST != 0 {
            state |= flow_state::RESET | flow_state::RST_SENT;
        }
    } else {
        state |= flow_state::ESTABLISHED;
    }
    if state != e.state {
        e.state = state;
    }
    // The other side may be a receiver that never answers. A RST does not keep a flow alive.
    if state & flow_state::RESET == 0 && now.saturating_sub(e.last_seen) >= flow_state::REFRESH {
        e.last_seen = now;
    }
    Some(ReplyPath { local: e.local, nic: e.nic, mac: e.mac })
}

/// A UDP server on the wildcard address answers with the address that the route gives it.
#[inline(never)]
fn reply_any_local<S: State>(id: u16, nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    let key = FlowKey::of(nic.pod, h, Direction::Egress).any_local();
    let Some(Some(path)) = s.arrival(&key, |e| update_on_egress(e, h, s)) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    let Some(target) = target(nic, path.nic, path.local, s) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    rewrite.source(path.local, h.l4.src_port);
    if path.nic == id {
        return Outcome::pass(Reason::ReplySource);
    }
    redirect(target, path.mac, Reason::ReplySource, rewrite)
}

#[inline(always)]
fn by_path<S: State>(
    id: u16,
    nic: &NicEntry,
    h: &Headers,
    path: &ReplyPath,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if path.nic == id {
        return Outcome::pass(Reason::ReplyHere);
    }
    match target(nic, path.nic, h.src, s) {
        Some(target) => redirect(target, path.mac, Reason::ReplyRedirected, rewrite),
        None => Outcome::undecided(Reason::NotOurs),
    }
}

/// The NIC that a reply leaves by, if it is still this pod's and may carry that source.
#[inline(always)]
fn target<'s, S: State>(nic: &NicEntry, id: u16, src: Addr, s: &'s S) -> Option<&'s NicEntry> {
    let target = s.nic(id)?;
    let is_own = target.role != ROLE_NONE && target.pod == nic.pod;
    (is_own && (target.role != ROLE_CLUSTER || target.owns(src))).then_some(target)
}

/// On an underlay NIC the flow's last sender gets the reply, elsewhere the one host end there is.
#[inline(always)]
fn redirect(target: &NicEntry, mac: [u8; 6], reason: Reason, rewrite: &mut Rewrite) -> Outcome {
    let to = if target.role == ROLE_UNDERLAY { mac } else { target.peer_mac };
    rewrite.macs(target, to);
    Outcome::redirect(target.ifindex, reason).with_mtu(target.mtu)
}

/// Remembers by which NIC, and from whom, a flow of the other side comes in.
#[inline(never)]
pub(crate) fn record<S: State>(id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Reason {
    // An underlay address that is called by the cluster NIC cannot be answered there.
    if matches!(h.l4.kind, L4Kind::EchoReply) || (nic.role == ROLE_CLUSTER && !nic.owns(h.dst)) {
        return Reason::NotOurs;
    }
    let key = FlowKey::of(nic.pod, h, Direction::Ingress);
    match s.arrival(&key, |e| update_on_ingress(e, id, nic, h, s)) {
        Some(Update::Current) => Reason::ArrivalSeen,
        Some(Update::Refreshed) => {
            if matches!(h.l4.kind, L4Kind::Udp) {
                insert(id, nic, &key, h, s);
            }
            Reason::ArrivalSeen
        }
        None | Some(Update::Expired) if h.opens_flow() || may_restore(nic, &key, h, s) => {
            insert(id, nic, &key, h, s)
        }
        Some(Update::OtherNic | Update::Expired) | None => Reason::NotOurs,
    }
}

/// What a packet that comes in does to its flow's entry.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Update {
    /// Nothing of note.
    Current,
    /// Time, NIC or MAC were written.
    Refreshed,
    /// The entry is of an older flow.
    Expired,
    /// The flow comes in by another NIC.
    OtherNic,
}

/// A segment of a connection whose entry was lost: at the host end of the node link it is recorded that somebody else has begun it,
/// and that the pod has agreed. A SYN alone, which anybody sends through the node, would divert connections that the pod has begun.
#[inline(always)]
fn may_restore<S: State>(nic: &NicEntry, key: &FlowKey, h: &Headers, s: &S) -> bool {
    let is_answered = |flow: &mut LinkFlow| {
        flow.state & flow_state::ANSWERED != 0 && !flow.is_expired(key.protocol, s.now())
    };
    nic.role == ROLE_NODE_LINK
        && matches!(h.l4.kind, L4Kind::Tcp)
        && h.l4.flags & RST == 0
        && s.link_flow(key, is_answered) == Some(true)
}

#[inline(always)]
fn update_on_ingress<S: State>(e: &mut ArrivalEntry, id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Update {
    let now = s.now();
    let expired = flow_state::is_expired(h.l4.protocol, e.state, e.last_seen, now);
    // What the node hands over it would not send by the underlay too: somebody else does.
    if !expired && nic.role == ROLE_UNDERLAY && (e.nic == nic.node_link || e.nic == nic.exit_nic) {
        return Update::OtherNic;
    }
    let mut state = e.state;
    if h.is_syn() {
        // A forged one would divert an open connection for good. What a peer that has restarted is answered goes
        // where it always went; its new flow is recorded when the old one has expired.
        if !expired && flow_state::is_open(e.state) {
            return Update::Current;
        }
        state = 0;
    } else if matches!(h.l4.kind, L4Kind::Tcp) {
        // During the handshake the NIC counts by which it is completed.
        if expired {
            return Update::Expired;
        }
        if e.nic != id && e.state & flow_state::ESTABLISHED != 0 {
            return Update::OtherNic;
        }
        state = flow_state::after_ingress(state, h.l4.flags);
    } else if expired {
        state = 0;
    }
    if state != e.state {
        e.state = state;
    }
    if e.nic == id && e.mac == h.mac && now.saturating_sub(e.last_seen) < flow_state::REFRESH {
        return Update::Current;
    }
    e.last_seen = now;
    e.nic = id;
    e.mac = h.mac;
    Update::Refreshed
}

/// Writes the entry, for UDP also the one without local address. What is for an address that is not the pod's (a
/// VM's, or somebody else's whom the pod routes for) is none of the programs' business.
///
/// On an underlay NIC anybody can claim any source. No Service calls from there; and of the cluster's other
/// addresses no entry without local address is made, because it would take the pod's own queries for replies.
#[inline(never)]
fn insert<S: State>(id: u16, nic: &NicEntry, key: &FlowKey, h: &Headers, s: &S) -> Reason {
    if !pod::has(nic, &key.local, s) {
        return Reason::NotOurs;
    }
    let kind = if nic.role == ROLE_UNDERLAY { pod::steered_kind(nic, &h.src, s) } else { 0 };
    if kind == CidrKind::Service as u8 {
        return Reason::NotOurs;
    }
    // The pod has begun it itself. By the cluster NIC comes only what the default network lets through.
    if nic.role != ROLE_CLUSTER && h.opens_flow() && s.socket_connected(key) {
        return Reason::OwnFlow;
    }
    let later_segment = matches!(h.l4.kind, L4Kind::Tcp) && !h.is_syn();
    let state = if later_segment { flow_state::after_ingress(0, h.l4.flags) } else { 0 };
    let entry =
        ArrivalEntry { last_seen: s.now(), local: key.local, nic: id, mac: h.mac, state, _pad: [0; 7] };
    if !s.arrival_put(key, &entry) {
        return Reason::Failed;
    }
    if matches!(h.l4.kind, L4Kind::Udp) && kind == 0 {
        s.arrival_put(&key.any_local(), &entry);
    }
    Reason::ArrivalNew
}
