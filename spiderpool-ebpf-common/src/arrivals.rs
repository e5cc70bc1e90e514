//! The map `arrivals`: what came in by which NIC, and replies that go back there.

use crate::addr::Addr;
use crate::headers::{ACK, FIN, Headers, Kind, RST};
use crate::life;
use crate::maps::{
    ANY_LOCAL, ArrivalEntry, ArrivalKey, CidrKind, EXACT, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE,
    ROLE_UNDERLAY,
};
use crate::packet::Packet;
use crate::pod;
use crate::reason::Reason;
use crate::rewrite;
use crate::state::State;
use crate::verdict::Outcome;

/// Key of the flow of a packet that leaves.
#[inline(always)]
fn leaving(pod: u16, h: &Headers) -> ArrivalKey {
    ArrivalKey {
        pod,
        protocol: h.protocol,
        wildcard: EXACT,
        local_port: h.src_port | h.echo_id,
        remote_port: h.dst_port,
        local: h.src,
        remote: h.dst,
    }
}

/// Key of the flow of a packet that comes in.
#[inline(always)]
fn coming(pod: u16, h: &Headers) -> ArrivalKey {
    ArrivalKey {
        pod,
        protocol: h.protocol,
        wildcard: EXACT,
        local_port: h.dst_port | h.echo_id,
        remote_port: h.src_port,
        local: h.dst,
        remote: h.src,
    }
}

/// Sends a packet back where its flow came in; undecided if it is no reply.
#[inline(never)]
pub(crate) fn reply<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    if matches!(h.kind, Kind::EchoRequest) {
        return Outcome::undecided(Reason::NotOurs);
    }
    let key = leaving(nic.pod, h);
    match s.arrival(&key, |e| touch_leaving(e, h, s)) {
        Some(Some(to)) => send(p, id, nic, h, &to, s),
        Some(None) => {
            if h.is_syn() {
                s.arrival_remove(&key);
            }
            Outcome::undecided(Reason::NotOurs)
        }
        None if matches!(h.kind, Kind::Udp) && s.wildcard_socket() => reply_any_local(p, id, nic, h, s),
        None => Outcome::undecided(Reason::NotOurs),
    }
}

/// Where a reply goes.
struct To {
    local: Addr,
    nic: u16,
    mac: [u8; 6],
}

/// `None`: the entry is of an older flow.
#[inline(always)]
fn touch_leaving<S: State>(e: &mut ArrivalEntry, h: &Headers, s: &S) -> Option<To> {
    let now = s.now();
    if h.is_syn() || life::is_over(h.protocol, e.state, e.last_seen, now) {
        return None;
    }
    let mut state = e.state;
    if matches!(h.kind, Kind::Tcp) {
        if h.flags & FIN != 0 {
            state |= life::FIN_OUT;
        }
        if h.flags & RST != 0 {
            state |= life::RESET | life::RESET_OUT;
        }
    } else {
        state |= life::ASSURED;
    }
    if state != e.state {
        e.state = state;
    }
    // The other side may be a receiver that never answers. A RST is no sign of life.
    if state & life::RESET == 0 && now.saturating_sub(e.last_seen) >= life::REFRESH {
        e.last_seen = now;
    }
    Some(To { local: e.local, nic: e.nic, mac: e.mac })
}

/// A UDP server on the wildcard address answers with the address that the route gives it.
#[inline(never)]
fn reply_any_local<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    let key = ArrivalKey { wildcard: ANY_LOCAL, local: Addr::ANY, ..leaving(nic.pod, h) };
    let Some(Some(to)) = s.arrival(&key, |e| touch_leaving(e, h, s)) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    let Some(target) = target(nic, to.nic, to.local, s) else { return Outcome::undecided(Reason::NotOurs) };
    if !rewrite::set_source(p, h, &to.local, h.src_port) {
        return Outcome::pass(Reason::Failed);
    }
    if to.nic == id {
        return Outcome::pass(Reason::ReplySource);
    }
    forward(p, target, to.mac, Reason::ReplySource)
}

#[inline(always)]
fn send<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &Headers, to: &To, s: &S) -> Outcome {
    if to.nic == id {
        return Outcome::pass(Reason::ReplyHere);
    }
    match target(nic, to.nic, h.src, s) {
        Some(target) => forward(p, target, to.mac, Reason::ReplyRedirected),
        None => Outcome::undecided(Reason::NotOurs),
    }
}

/// The NIC that a reply leaves by, if it is still this pod's and may carry that source.
#[inline(always)]
fn target<'s, S: State>(nic: &NicEntry, id: u16, src: Addr, s: &'s S) -> Option<&'s NicEntry> {
    let target = s.nic(id)?;
    let ours = target.role != ROLE_NONE && target.pod == nic.pod;
    (ours && (target.role != ROLE_CLUSTER || target.owns(src))).then_some(target)
}

/// On an underlay NIC the flow's last sender gets the reply, elsewhere the one host end there is.
#[inline(always)]
fn forward<P: Packet>(p: &mut P, target: &NicEntry, mac: [u8; 6], reason: Reason) -> Outcome {
    let to = if target.role == ROLE_UNDERLAY { mac } else { target.peer_mac };
    if rewrite::set_macs(p, target, to) {
        Outcome::redirect(target.ifindex, reason).onto(target.mtu)
    } else {
        Outcome::pass(Reason::Failed)
    }
}

/// Remembers by which NIC, and from whom, a flow of the other side comes in.
#[inline(never)]
pub(crate) fn record<S: State>(id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Reason {
    // An underlay address that is called by the cluster NIC cannot be answered there.
    if matches!(h.kind, Kind::EchoReply) || (nic.role == ROLE_CLUSTER && !nic.owns(h.dst)) {
        return Reason::NotOurs;
    }
    let key = coming(nic.pod, h);
    let seen = s.arrival(&key, |e| touch_coming(e, id, nic, h, s));
    match seen {
        Some(Seen::Fresh) => Reason::ArrivalSeen,
        Some(Seen::Renewed) => {
            if matches!(h.kind, Kind::Udp) {
                put(id, nic, &key, h, s);
            }
            Reason::ArrivalSeen
        }
        None | Some(Seen::Over) if h.can_start() || is_from_node(nic, h) => put(id, nic, &key, h, s),
        Some(Seen::Elsewhere | Seen::Over) | None => Reason::NotOurs,
    }
}

#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing of note.
    Fresh,
    /// Time, NIC or MAC were written.
    Renewed,
    /// The entry is of an older flow.
    Over,
    /// The flow comes in by another NIC.
    Elsewhere,
}

/// A segment of a connection whose entry was lost. By the node link comes only what the other side started, and
/// only the node sends there, so it may make the entry anew; on the cluster NIC replies need none.
#[inline(always)]
fn is_from_node(nic: &NicEntry, h: &Headers) -> bool {
    nic.role == ROLE_NODE_LINK && matches!(h.kind, Kind::Tcp) && h.flags & RST == 0
}

#[inline(always)]
fn touch_coming<S: State>(e: &mut ArrivalEntry, id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Seen {
    let now = s.now();
    let over = life::is_over(h.protocol, e.state, e.last_seen, now);
    // What the node hands over it would not send by the underlay too: somebody else does.
    if !over && nic.role == ROLE_UNDERLAY && (e.nic == nic.node_link || e.nic == nic.exit_nic) {
        return Seen::Elsewhere;
    }
    let mut state = e.state;
    if h.is_syn() {
        // A forged one would divert an open connection for good. What a peer that has
        // restarted is answered goes where it always went; it is heard when the old flow is over.
        if !over && life::is_open(e.state) {
            return Seen::Fresh;
        }
        state = 0;
    } else if matches!(h.kind, Kind::Tcp) {
        // Until the handshake is over, who ends it is right.
        if over {
            return Seen::Over;
        }
        if e.nic != id && e.state & life::ASSURED != 0 {
            return Seen::Elsewhere;
        }
        state = tcp_coming(state, h.flags);
    } else if over {
        state = 0;
    }
    if state != e.state {
        e.state = state;
    }
    if e.nic == id && e.mac == h.mac && now.saturating_sub(e.last_seen) < life::REFRESH {
        return Seen::Fresh;
    }
    e.last_seen = now;
    e.nic = id;
    e.mac = h.mac;
    Seen::Renewed
}

/// State of a TCP flow after a segment from the other side.
#[inline(always)]
pub(crate) const fn tcp_coming(state: u8, flags: u8) -> u8 {
    if flags & RST != 0 {
        return state | life::RESET;
    }
    let state = state & !life::RESET;
    let state = if flags & ACK != 0 { state | life::ASSURED } else { state };
    if flags & FIN != 0 { state | life::FIN_BACK } else { state }
}

/// Writes the entry, for UDP also the one without local address. What is for an address that is not the pod's (a
/// VM's, or somebody else's whom the pod routes for) is none of the programs' business.
///
/// On an underlay NIC anybody can claim any source. No Service calls from there; and of the cluster's other
/// addresses no entry without local address is made, because it would take the pod's own queries for replies.
#[inline(never)]
fn put<S: State>(id: u16, nic: &NicEntry, key: &ArrivalKey, h: &Headers, s: &S) -> Reason {
    if !pod::has(nic, &key.local, s) {
        return Reason::NotOurs;
    }
    let claims = if nic.role == ROLE_UNDERLAY { pod::steered_kind(nic, &h.src, s) } else { 0 };
    if claims == CidrKind::Service as u8 {
        return Reason::NotOurs;
    }
    let state = if matches!(h.kind, Kind::Tcp) && !h.is_syn() { tcp_coming(0, h.flags) } else { 0 };
    let entry =
        ArrivalEntry { last_seen: s.now(), local: key.local, nic: id, mac: h.mac, state, _pad: [0; 7] };
    if !s.arrival_put(key, &entry) {
        return Reason::Failed;
    }
    if matches!(h.kind, Kind::Udp) && claims == 0 {
        s.arrival_put(&ArrivalKey { wildcard: ANY_LOCAL, local: Addr::ANY, ..*key }, &entry);
    }
    Reason::ArrivalNew
}
