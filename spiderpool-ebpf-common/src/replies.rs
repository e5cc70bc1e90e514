//! Replies of flows that are recorded in `arrivals`.

use crate::addr::Addr;
use crate::flow_state;
use crate::headers::{FIN, Headers, L4Kind, RST};
use crate::maps::{
    ArrivalEntry, DEFAULT_NONE, Direction, FlowKey, NicEntry, ROLE_CLUSTER, ROLE_NONE, ROLE_UNDERLAY,
};
use crate::pod;
use crate::protocol::TCP;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::State;
use crate::verdict::Outcome;

/// For so long after a packet of the other side, in seconds, its sender is the next hop. Who is silent for longer may be behind
/// a gateway that another one has taken over from.
const HEARD_FOR: u32 = 2;

/// Sends a packet back where its flow came in; undecided if it is no reply.
#[inline(never)]
pub(crate) fn reply<S: State>(id: u16, nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    const NONE: Outcome = Outcome::undecided(Reason::NotOurs);
    if matches!(h.l4.kind, L4Kind::EchoRequest) {
        return NONE;
    }
    let key = FlowKey::of(nic.pod, h, Direction::Egress);
    match s.arrival(&key, |e| update(e, h, s)) {
        Some(Some(path)) => by_path(id, nic, h.src, &path, rewrite, s),
        Some(None) => {
            if h.is_syn() {
                s.arrival_remove(&key);
            }
            NONE
        }
        None => NONE,
    }
}

/// Sends an ICMP error back where the packet came from that it quotes; undecided if that is of no recorded flow.
#[inline(never)]
pub(crate) fn reply_about<S: State>(
    id: u16,
    nic: &NicEntry,
    quoted: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let key = FlowKey::of(nic.pod, quoted, Direction::Ingress);
    let now = s.now();
    let path = s.arrival(&key, |e| {
        let is_live = !flow_state::is_expired(key.protocol, e.state, e.last_seen, now)
            && (key.protocol == TCP || e.state & flow_state::BEGUN_BY_POD == 0);
        is_live.then_some(ReplyPath { local: e.local, heard: e.heard, nic: e.nic, mac: e.mac })
    });
    match path {
        Some(Some(path)) => by_path(id, nic, quoted.dst, &path, rewrite, s),
        Some(None) | None => Outcome::undecided(Reason::NotOurs),
    }
}

/// Whether the node has handed over the last call of a UDP server on the wildcard address.
#[inline(always)]
pub(crate) fn is_called_by_node<S: State>(nic: &NicEntry, h: &Headers, s: &S) -> bool {
    let key = FlowKey::of(nic.pod, h, Direction::Egress).any_local();
    s.arrival(&key, |e| e.nic == nic.node_link || e.nic == nic.exit_nic) == Some(true)
}

/// A UDP server on the wildcard address answers with the address that the route gives it: with the one that was called it
/// goes back where the call came from.
#[inline(never)]
pub(crate) fn reply_any_local<S: State>(
    id: u16,
    nic: &NicEntry,
    h: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let key = FlowKey::of(nic.pod, h, Direction::Egress).any_local();
    let Some(Some(path)) = s.arrival(&key, |e| update(e, h, s)) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    let Some(target) = target(nic, path.nic, path.local, s) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    // Mostly the route has given it the right one: then nothing is to be changed, which costs the most. (Where it is another NIC's,
    // its fragments would leave by that, if they did not follow it.)
    let has_other = path.local != h.src || path.nic == id && !nic.owns(h.src);
    if has_other {
        rewrite.source(path.local, h.l4.src_port);
    }
    if path.nic == id {
        return Outcome::pass(if has_other { Reason::ReplySource } else { Reason::ReplyHere });
    }
    let reason = if has_other { Reason::ReplySource } else { Reason::ReplyRedirected };
    let silent = ((s.now() / flow_state::SECOND) as u32).wrapping_sub(path.heard);
    // To what is steered the kernel's route is by another NIC: there is nobody but the last sender.
    if silent > HEARD_FOR
        && target.role == ROLE_UNDERLAY
        && target.default_route(h.dst) != DEFAULT_NONE
        && !pod::is_steered(nic, h.dst, s)
    {
        return Outcome::redirect_neigh(target.ifindex, reason).with_mtu(target.mtu);
    }
    redirect(target, path.mac, reason, rewrite)
}

/// Where a flow's replies go.
struct ReplyPath {
    local: Addr,
    heard: u32,
    nic: u16,
    mac: [u8; 6],
}

/// `None`: the entry is of an older flow, or of one that the pod has begun.
#[inline(always)]
fn update<S: State>(e: &mut ArrivalEntry, h: &Headers, s: &S) -> Option<ReplyPath> {
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
    } else if state & flow_state::BEGUN_BY_POD != 0 {
        return None;
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
    Some(ReplyPath { local: e.local, heard: e.heard, nic: e.nic, mac: e.mac })
}

#[inline(always)]
fn by_path<S: State>(
    id: u16,
    nic: &NicEntry,
    src: Addr,
    path: &ReplyPath,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if path.nic == id {
        // The kernel may have sent it to a gateway that knows no way.
        if nic.role == ROLE_UNDERLAY {
            rewrite.macs(nic, path.mac);
        }
        return Outcome::pass(Reason::ReplyHere);
    }
    match target(nic, path.nic, src, s) {
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
    if target.role != ROLE_UNDERLAY {
        return pod::to_peer(target, rewrite, reason);
    }
    rewrite.macs(target, mac);
    Outcome::redirect(target.ifindex, reason).with_mtu(target.mtu)
}
