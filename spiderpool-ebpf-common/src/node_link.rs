//! The host end of the node link: a one-way door, on the node's side, because a process in the pod may have `NET_ADMIN`
//! there and remove whatever is on the pod's.
//!
//! What goes to the pod passes, and if it opens a flow it is recorded. From the pod only packets of recorded flows pass,
//! with the fragments and ICMP errors that belong to them; never a TCP SYN. Nothing that the pod itself starts goes by
//! here: its cluster traffic leaves by the cluster NIC, where the default network's policies apply.
//!
//! In underlay mode veth0 is also the pod's way to the cluster. From the pod passes what has an address of the pod's, and to
//! the pod passes everything; recorded are flows of callers whose answers would otherwise leave by an underlay NIC.

use crate::errors::quotes_packet_of_receiver;
use crate::flow_state;
use crate::headers::{self, FIN, Fragment, Headers, L4Kind, RST};
use crate::maps::{CidrKind, Direction, ExitMode, FlowKey, LinkFlow, NicEntry, ROLE_NODE_LINK};
use crate::packet::{IPV4, IPV6, Packet};
use crate::pod;
use crate::protocol::UDP;
use crate::reason::Reason;
use crate::scratch::Scratch;
use crate::state::{LogEvent, PutError, State};
use crate::verdict::{Outcome, Verdict};

/// Chunk type of SCTP's INIT (RFC 9260, 3.2), which is the only chunk of its packet.
const INIT: u8 = 1;
/// Length of SCTP's common header.
const SCTP_HEADER: u32 = 12;

/// The program on the egress of the host end: what goes to the pod. `id` is the id of the pod's end.
#[inline(always)]
pub fn host_egress<P: Packet, S: State>(p: &P, id: u16, scratch: &mut Scratch, s: &S) -> Verdict {
    let Some(nic) = s.nic(id) else { return Verdict::Pass };
    if nic.role != ROLE_NODE_LINK {
        return Verdict::Pass;
    }
    let Scratch { headers, outcome, .. } = scratch;
    let outcome = Scratch::reload(outcome, to_pod(p, nic, headers, s));
    s.count(id, outcome.reason, p.len());
    outcome.verdict()
}

/// The program on the ingress of the host end: what comes from the pod. An id that has no entry (yet, or any more) gets
/// nothing through.
#[inline(always)]
pub fn host_ingress<P: Packet, S: State>(p: &P, id: u16, scratch: &mut Scratch, s: &S) -> Verdict {
    let Some(nic) = s.nic(id) else { return Verdict::Drop };
    if nic.role != ROLE_NODE_LINK {
        return Verdict::Drop;
    }
    let Scratch { headers, quoted, outcome, .. } = scratch;
    let outcome = Scratch::reload(outcome, from_pod(p, nic, headers, quoted, s));
    s.count(id, outcome.reason, p.len());
    outcome.verdict()
}

#[inline(always)]
fn to_pod<P: Packet, S: State>(p: &P, nic: &NicEntry, h: &mut Headers, s: &S) -> Outcome {
    const PASS: Outcome = Outcome::pass(Reason::LinkToPod);
    if !matches!(p.protocol(), IPV4 | IPV6) || !headers::parse(p, h) {
        return PASS;
    }
    let h = &*h;
    if h.dst.is_link_scope() || h.is_discovery() {
        return PASS;
    }
    let opens = h.opens_flow() || is_sctp_init(p, h);
    // The kernel's own RSTs and last ACKs have no socket either, and come by no device.
    let opens_nothing = !opens && matches!(h.l4.kind, L4Kind::Tcp | L4Kind::EchoReply | L4Kind::IcmpError);
    let opens_nothing = opens_nothing && !matches!(h.fragment, Fragment::Later);
    if nic.refuses_pods != 0 && !opens_nothing && s.is_from_pods() {
        return Outcome::drop(Reason::LinkNeighbor);
    }
    if matches!(h.fragment, Fragment::Later) {
        return PASS;
    }
    if !opens && !matches!(h.l4.kind, L4Kind::Tcp | L4Kind::Sctp) {
        return PASS;
    }
    let key = FlowKey::of(nic.pod, h, Direction::Ingress);
    if matches!(nic.exit_mode(), ExitMode::AsIs) && is_answer(nic, &key, s) {
        return PASS;
    }
    match s.link_flow(&key, |flow| update_to_pod(flow, h, s)) {
        Some(Update::Lives) => Outcome::pass(Reason::LinkFlow),
        Some(Update::Ended) => {
            s.link_flow_remove(&key);
            Outcome::pass(Reason::LinkFlow)
        }
        Some(Update::Expired) | None if opens => open(nic, &key, s),
        Some(Update::Expired) | None => PASS,
    }
}

/// In underlay mode also answers come by here: what a Service sends, and datagrams for a port that is a client's. (Where nothing is
/// recorded of those, nobody in the underlay can have it recorded either: see `arrivals::is_begun_by_pod`.)
#[inline(always)]
fn is_answer<S: State>(nic: &NicEntry, key: &FlowKey, s: &S) -> bool {
    let kind = pod::steered_kind(nic, &key.remote, s);
    kind == CidrKind::Service as u8 || (kind != 0 && key.protocol == UDP && nic.is_ephemeral(key.local_port))
}

/// What a packet does to its flow's entry.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Update {
    /// The flow goes on.
    Lives,
    /// It was its last packet.
    Ended,
    /// The entry is of an older flow.
    Expired,
}

#[inline(always)]
fn update_to_pod<S: State>(flow: &mut LinkFlow, h: &Headers, s: &S) -> Update {
    let now = s.now();
    if flow.is_expired(h.l4.protocol, now) {
        return Update::Expired;
    }
    let mut state = flow.state;
    let mut ended = false;
    if matches!(h.l4.kind, L4Kind::Tcp) {
        if h.is_syn() {
            // The ports are used again. An open connection keeps its time and its way: the SYN may be forged.
            let kept = flow_state::ESTABLISHED | flow_state::ANSWERED;
            state = if flow_state::is_closing(state) { 0 } else { state & kept };
        } else if h.l4.flags & RST == 0 {
            ended = flow_state::is_closed(state) && h.l4.flags & FIN == 0 && !s.is_forwarded();
            state = flow_state::after_ingress(state, h.l4.flags);
        } else if s.is_forwarded() {
            // Nobody knows whether the pod takes it. It may be forged, and must not cut the pod off.
            state |= flow_state::FIN_RECEIVED;
        } else {
            ended = true;
        }
    } else if flow.is_older_than(flow_state::STREAM_AFTER, now) && state & flow_state::ESTABLISHED != 0 {
        state |= flow_state::STREAM;
    }
    refresh(flow, state, now);
    if ended { Update::Ended } else { Update::Lives }
}

#[inline(always)]
fn refresh(flow: &mut LinkFlow, state: u8, now: u64) {
    if state != flow.state {
        flow.state = state;
        flow.last_seen = now;
    } else if now.saturating_sub(flow.last_seen) >= flow_state::REFRESH {
        flow.last_seen = now;
    }
}

/// Records a flow that somebody starts to the pod.
#[inline(never)]
fn open<S: State>(nic: &NicEntry, key: &FlowKey, s: &S) -> Outcome {
    let forwarded = s.is_forwarded();
    let as_is = matches!(nic.exit_mode(), ExitMode::AsIs);
    // A Service calls nobody, and its address is none that a route leads to.
    if forwarded
        && !as_is
        && (pod::steered_kind(nic, &key.remote, s) == CidrKind::Service as u8 || s.is_spoofed(key))
    {
        return Outcome::drop(Reason::LinkSpoofed);
    }
    let now = s.now();
    let new = LinkFlow { last_seen: now, opened: (now / flow_state::SECOND) as u32, state: 0, _pad: [0; 3] };
    // An expired one of the same tuple costs nothing more.
    if s.link_flow(key, |old| *old = new).is_some() {
        return Outcome::pass(Reason::LinkOpened);
    }
    // What others send leaves room for the node's own, among which are the kubelet's probes.
    let share = s.share().link_flows;
    let share = if forwarded { share - share / 4 } else { share };
    let room = s.usage(key.pod).link_flows < share;
    match if room { s.link_flow_put(key, &new) } else { Err(PutError::Full) } {
        Ok(()) | Err(PutError::Exists) => Outcome::pass(Reason::LinkOpened),
        Err(PutError::Full) => {
            s.report(LogEvent::LinkFull);
            if as_is { Outcome::pass(Reason::LinkFull) } else { Outcome::drop(Reason::LinkFull) }
        }
    }
}

#[inline(always)]
fn from_pod<P: Packet, S: State>(
    p: &P,
    nic: &NicEntry,
    h: &mut Headers,
    quoted: &mut Headers,
    s: &S,
) -> Outcome {
    const DENIED: Outcome = Outcome::drop(Reason::LinkDenied);
    if !matches!(p.protocol(), IPV4 | IPV6) {
        return Outcome::drop(Reason::LinkIgnored);
    }
    if !headers::parse(p, h) {
        return DENIED;
    }
    let h = &*h;
    if h.dst.is_link_scope() || h.is_discovery() {
        return Outcome::drop(Reason::LinkIgnored);
    }
    if matches!(nic.exit_mode(), ExitMode::AsIs) {
        return from_underlay_pod(nic, h, s);
    }
    // A source route would carry the packet on to anybody; no answer has one.
    if h.has_route {
        return DENIED;
    }
    let key = match (h.fragment, h.l4.kind) {
        (Fragment::Later, _) => {
            let key = FlowKey::of_fragments(nic.pod, h);
            return if s.link_fragment(&key) { Outcome::pass(Reason::LinkReply) } else { DENIED };
        }
        _ if h.is_syn() || is_sctp_init(p, h) => return DENIED,
        (_, L4Kind::Tcp | L4Kind::Udp | L4Kind::Sctp | L4Kind::EchoReply) => {
            FlowKey::of(nic.pod, h, Direction::Egress)
        }
        (Fragment::No, L4Kind::IcmpError) if quotes_packet_of_receiver(p, h, quoted) => {
            FlowKey::of(nic.pod, quoted, Direction::Ingress)
        }
        _ => return DENIED,
    };
    match s.link_flow(&key, |flow| update_from_pod(flow, key.protocol, h, s)) {
        Some(Update::Lives) => {}
        Some(Update::Ended) => s.link_flow_remove(&key),
        Some(Update::Expired) | None => return DENIED,
    }
    if matches!(h.fragment, Fragment::First) {
        s.link_fragment_put(&FlowKey::of_fragments(nic.pod, h));
    }
    Outcome::pass(Reason::LinkReply)
}

/// The pod reaches the cluster by here, and has its own addresses to do so.
#[inline(never)]
fn from_underlay_pod<S: State>(nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    if !pod::has(nic, &h.src, s) {
        return Outcome::drop(Reason::LinkForeign);
    }
    if h.is_tracked() {
        let key = FlowKey::of(nic.pod, h, Direction::Egress);
        if let Some(Update::Ended) = s.link_flow(&key, |flow| update_from_pod(flow, key.protocol, h, s)) {
            s.link_flow_remove(&key);
        }
    }
    Outcome::pass(Reason::LinkFromPod)
}

#[inline(always)]
fn update_from_pod<S: State>(flow: &mut LinkFlow, protocol: u8, h: &Headers, s: &S) -> Update {
    let now = s.now();
    if flow.is_expired(protocol, now) {
        return Update::Expired;
    }
    if !matches!(h.l4.kind, L4Kind::Tcp) {
        // Whoever has been called alone keeps no flow alive: its caller's address may be somebody else's by now.
        if !matches!(h.l4.kind, L4Kind::IcmpError) && flow.state & flow_state::ESTABLISHED == 0 {
            flow.state |= flow_state::ESTABLISHED;
        }
        return Update::Lives;
    }
    let mut state = flow.state;
    if h.l4.flags & FIN != 0 {
        state |= flow_state::FIN_SENT;
    }
    refresh(flow, state, now);
    if h.l4.flags & RST != 0 { Update::Ended } else { Update::Lives }
}

/// Whether an SCTP packet opens an association.
#[inline(always)]
fn is_sctp_init<P: Packet>(p: &P, h: &Headers) -> bool {
    matches!(h.l4.kind, L4Kind::Sctp) && matches!(p.load::<1>(h.l4.offset + SCTP_HEADER), Some([INIT]))
}
