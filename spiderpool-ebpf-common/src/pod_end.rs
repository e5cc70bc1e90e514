//! The pod's end of the node link: which of the flows that come by it the pod answers there.
//!
//! The host end has recorded them in `link_flows` before, and lets nothing else back. What is decided here is only whether
//! a flow is somebody else's: anybody in the underlay can send through the node in the name of whom the pod talks to.

use crate::arrivals;
use crate::flow_state;
use crate::headers::{Headers, L4Kind};
use crate::maps::{CidrKind, Direction, ExitMode, FlowKey, FlowKeys, LinkFlow, NicEntry, PodFlag};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::State;
use crate::verdict::Outcome;

/// A packet comes in by the node link. Only what opens a flow is looked at: the host end keeps the times.
#[inline(never)]
pub(crate) fn accept<S: State>(id: u16, nic: &NicEntry, h: &Headers, keys: &mut FlowKeys, s: &S) -> Reason {
    if !h.opens_flow() {
        return Reason::NotOurs;
    }
    keys.set(nic.pod, h, Direction::Ingress);
    let keys = &*keys;
    if matches!(nic.exit_mode(), ExitMode::AsIs) {
        let kind = pod::steered_kind(nic, &h.src, s);
        if kind != 0 {
            return accept_steered(id, nic, kind, h, keys, s);
        }
    }
    let Some(is_known) = s.link_flow(&keys.original, |flow| flow.state & flow_state::ANSWERED != 0) else {
        return Reason::NotOurs;
    };
    if !is_known {
        let kind = pod::steered_kind(nic, &h.src, s);
        // The host end lets nobody else borrow the node's own addresses.
        let from_node = kind == CidrKind::Node as u8 || kind == CidrKind::NodeGateway as u8;
        if arrivals::is_begun_by_pod(nic, keys, from_node, s) {
            return Reason::OwnFlow;
        }
        if kind == 0 {
            s.set_flag(nic.pod, PodFlag::LinkFlows);
        }
        s.link_flow(&keys.original, |flow| flow.state |= flow_state::ANSWERED);
    }
    if matches!(h.l4.kind, L4Kind::Udp) {
        return arrivals::record_any_local(id, nic, h, keys, s);
    }
    if is_known { Reason::ArrivalSeen } else { Reason::ArrivalNew }
}

/// In underlay mode answers to there leave by veth0 whatever is recorded. A UDP server on the wildcard address may answer with
/// another address of the pod than it was called by. (Inlined: a function of its own has five parameters at most.)
#[inline(always)]
fn accept_steered<S: State>(
    id: u16,
    nic: &NicEntry,
    kind: u8,
    h: &Headers,
    keys: &FlowKeys,
    s: &S,
) -> Reason {
    if !matches!(h.l4.kind, L4Kind::Udp) || kind == CidrKind::Service as u8 {
        return Reason::NotOurs;
    }
    let from_node = kind == CidrKind::Node as u8 || kind == CidrKind::NodeGateway as u8;
    if !pod::has(nic, &h.dst, s) || arrivals::is_begun_by_pod(nic, keys, from_node, s) {
        return Reason::OwnFlow;
    }
    arrivals::record_any_local(id, nic, h, keys, s)
}

/// Sends a reply of a flow that has come by the node link back there; undecided if it is none.
#[inline(never)]
pub(crate) fn reply<S: State>(nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    let Some(link) = pod::node_link(nic, s) else { return Outcome::undecided(Reason::NotOurs) };
    if matches!(h.l4.kind, L4Kind::EchoRequest) {
        return Outcome::undecided(Reason::NotOurs);
    }
    let key = FlowKey::of(nic.pod, h, Direction::Egress);
    let is_syn = h.is_syn();
    let is_reply = s.link_flow(&key, |flow| {
        if is_syn {
            // The pod begins a flow of its own with the same ports.
            flow.state &= !flow_state::ANSWERED;
        }
        is_answered(flow, key.protocol, s)
    });
    if is_reply == Some(true) {
        pod::to_peer(link, rewrite, Reason::ReplyRedirected)
    } else {
        Outcome::undecided(Reason::NotOurs)
    }
}

/// The same for SCTP, whose sockets the programs cannot look up: by the recorded flow alone.
#[inline(never)]
pub(crate) fn reply_untracked<S: State>(
    nic: &NicEntry,
    h: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if !matches!(h.l4.kind, L4Kind::Sctp) {
        return Outcome::undecided(Reason::NotOurs);
    }
    to_link(nic, &FlowKey::of(nic.pod, h, Direction::Egress), rewrite, s)
}

/// The same for an ICMP error: it goes where the packet that it quotes came from.
#[inline(never)]
pub(crate) fn reply_about<S: State>(
    nic: &NicEntry,
    quoted: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    to_link(nic, &FlowKey::of(nic.pod, quoted, Direction::Ingress), rewrite, s)
}

#[inline(always)]
fn to_link<S: State>(nic: &NicEntry, key: &FlowKey, rewrite: &mut Rewrite, s: &S) -> Outcome {
    let Some(link) = pod::node_link(nic, s) else { return Outcome::undecided(Reason::NotOurs) };
    if s.link_flow(key, |flow| is_answered(flow, key.protocol, s)) != Some(true) {
        return Outcome::undecided(Reason::NotOurs);
    }
    pod::to_peer(link, rewrite, Reason::ReplyRedirected)
}

#[inline(always)]
fn is_answered<S: State>(flow: &LinkFlow, protocol: u8, s: &S) -> bool {
    let by_socket = flow.state & flow_state::ANSWERED != 0 || protocol == crate::protocol::SCTP;
    by_socket && !flow.is_expired(protocol, s.now())
}
