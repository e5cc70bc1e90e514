//! The pod's end of the node link: which of the flows that come by it the pod answers there.
//!
//! The host end has recorded them in `link_flows` before, and lets nothing else back. What is decided here is only whether
//! a flow is somebody else's: anybody in the underlay can send through the node in the name of whom the pod talks to.

use crate::arrivals;
use crate::flow_state;
use crate::headers::{Headers, L4Kind};
use crate::maps::{CidrKind, Direction, FlowKey, FlowKeys, LinkFlow, NicEntry, PodFlag};
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

/// Sends a reply of a flow that has come by the node link back there; undecided if it is none.
#[inline(never)]
pub(crate) fn reply<S: State>(nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    match pod::node_link(nic, s) {
        Some(link) if is_reply(nic, h, s) => pod::to_peer(link, rewrite, Reason::ReplyRedirected),
        _ => Outcome::undecided(Reason::NotOurs),
    }
}

/// Whether a packet is a reply of a flow that has come by the node link.
#[inline(never)]
pub(crate) fn is_reply<S: State>(nic: &NicEntry, h: &Headers, s: &S) -> bool {
    if matches!(h.l4.kind, L4Kind::EchoRequest) {
        return false;
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
    is_reply == Some(true)
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
