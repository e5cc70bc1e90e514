//! Translation of flows that the pod started with an underlay address: they leave by the cluster NIC with its
//! address, and their answers are translated back there. Only what was seen to start is translated.

use crate::addr::Addr;
use crate::flow_state;
use crate::headers::{FIN, Headers, L4Kind, RST};
use crate::maps::{Direction, FlowKey, FlowKeys, NatEntry, NicEntry, PodFlag, Tuple};
use crate::protocol::TCP;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::{LogEvent, Put, PutError, State};
use crate::verdict::Outcome;

/// Whether a packet that the pod has sent, as an ICMP error quotes it, is of a translated flow.
#[inline(always)]
pub(crate) fn is_translated<S: State>(nic: &NicEntry, quoted: &Headers, s: &S) -> bool {
    let key = FlowKey::of(nic.pod, quoted, Direction::Egress);
    let now = s.now();
    s.nat(&key, |e| flow_state::is_expired(key.protocol, e.state, e.last_seen, now)) == Some(false)
}

/// First port for flows whose own is taken: above `ip_local_port_range`, so that no socket gets it by itself.
pub const PORT_FIRST: u16 = 61_000;
/// Number of such ports.
pub const PORT_COUNT: u32 = 65_536 - PORT_FIRST as u32;
/// How many ports are tried for one flow, its own included.
const ATTEMPTS: u32 = 5;

/// Random numbers of the model and of test runs.
#[inline(always)]
pub const fn pseudo_random(seed: u32, attempt: u32) -> u32 {
    (seed ^ attempt.wrapping_mul(0x9e37_79b9)).wrapping_mul(1_664_525).wrapping_add(1_013_904_223) >> 8
}

/// The source port of a translated flow, or why the packet is to be not sent by the cluster NIC.
///
/// (Not a `Result`: calls that are not inlined return no enum with data, see [`Outcome::undecided`].)
#[derive(Clone, Copy)]
pub(crate) struct Translation {
    pub(crate) port: u16,
    pub(crate) found: bool,
    pub(crate) reason: Reason,
}

/// Finds or makes the translation of a packet that leaves by the exit NIC.
#[inline(never)]
pub(crate) fn find_or_insert<S: State>(
    exit: &NicEntry,
    h: &Headers,
    keys: &mut FlowKeys,
    s: &S,
) -> Translation {
    let found = find(exit, h, s);
    if found.found || !h.opens_flow() {
        return found;
    }
    keys.set_translated(exit.pod, h, exit.addr(h.src));
    insert(keys, s)
}

/// Finds the translation of a packet.
#[inline(never)]
pub(crate) fn find<S: State>(exit: &NicEntry, h: &Headers, s: &S) -> Translation {
    const UNKNOWN: Translation = Translation { port: 0, found: false, reason: Reason::NatUnknown };
    // Who has begun a ping gets the replies. A request with the same identifier is somebody else's flow.
    if matches!(h.l4.kind, L4Kind::EchoReply) {
        return UNKNOWN;
    }
    let key = FlowKey::of(exit.pod, h, Direction::Egress);
    let to = exit.addr(h.src);
    match s.nat(&key, |e| update_on_egress(e, to, h, s)).flatten() {
        Some(port) => Translation { port, found: true, reason: Reason::Translated },
        None => UNKNOWN,
    }
}

/// The port of a live translation; `None` if it has expired, or is of a cluster address that is no more.
#[inline(always)]
fn update_on_egress<S: State>(e: &mut NatEntry, to: Addr, h: &Headers, s: &S) -> Option<u16> {
    let now = s.now();
    if flow_state::is_expired(h.l4.protocol, e.state, e.last_seen, now) || e.addr != to {
        return None;
    }
    let mut state = e.state;
    if h.is_syn() {
        state = 0;
    } else if matches!(h.l4.kind, L4Kind::Tcp) {
        if h.l4.flags & RST != 0 {
            state |= flow_state::RESET;
        } else {
            state &= !(flow_state::RESET | flow_state::DOUBTFUL_RESET);
        }
        if h.l4.flags & FIN != 0 {
            state |= flow_state::FIN_SENT;
        }
    }
    refresh(e, state, now);
    Some(e.port)
}

#[inline(always)]
fn refresh(e: &mut NatEntry, state: u8, now: u64) {
    if state != e.state {
        e.state = state;
        e.last_seen = now;
    } else if now.saturating_sub(e.last_seen) >= flow_state::REFRESH {
        e.last_seen = now;
    }
}

/// Makes both entries of a new translation, with a port that nobody has.
#[inline(never)]
fn insert<S: State>(FlowKeys { original, translated, .. }: &mut FlowKeys, s: &S) -> Translation {
    if s.usage(original.pod).nat + 2 > s.share().nat {
        s.report(LogEvent::NatFull);
        return Translation { port: 0, found: false, reason: Reason::NatFull };
    }
    s.set_flag(original.pod, PodFlag::Translated);
    let mut reason = Reason::NatNew;
    for attempt in 1..=ATTEMPTS {
        let in_use = s.socket_has(translated);
        match if in_use { Inserted::PortInUse } else { insert_pair(original, translated, s) } {
            Inserted::Yes => return Translation { port: translated.local_port, found: true, reason },
            Inserted::PortInUse => {}
            Inserted::Full => {
                s.report(LogEvent::NatFull);
                return Translation { port: 0, found: false, reason: Reason::NatFull };
            }
        }
        translated.local_port = PORT_FIRST + (s.random(attempt) % PORT_COUNT) as u16;
        reason = Reason::NatPort;
    }
    s.report(LogEvent::NatNoPort);
    Translation { port: 0, found: false, reason: Reason::NatNoPort }
}

#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inserted {
    Yes,
    PortInUse,
    Full,
}

#[inline(never)]
fn insert_pair<S: State>(original: &FlowKey, translated: &FlowKey, s: &S) -> Inserted {
    let put = match port_owner(translated, original, s) {
        PortOwner::Nobody => Put::NoExist,
        PortOwner::Expired | PortOwner::ThisFlow => Put::Any,
        PortOwner::OtherFlow => return Inserted::PortInUse,
    };
    let mut entry = NatEntry {
        last_seen: s.now(),
        addr: original.local,
        port: original.local_port,
        state: 0,
        _pad: [0; 5],
    };
    match s.nat_put(translated, &entry, put) {
        Ok(()) => {}
        Err(PutError::Exists) => return Inserted::PortInUse,
        Err(PutError::Full) => return Inserted::Full,
    }
    entry.addr = translated.local;
    entry.port = translated.local_port;
    if s.nat_put(original, &entry, Put::Any).is_err() {
        s.nat_remove(translated);
        return Inserted::Full;
    }
    Inserted::Yes
}

/// Who has the port of a translated tuple.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum PortOwner {
    /// There is no entry.
    Nobody,
    /// A flow that has expired, or that has another port by now.
    Expired,
    /// The flow in question.
    ThisFlow,
    /// Another live flow, or one that is just being made.
    OtherFlow,
}

/// `original` is the flow in question.
#[inline(never)]
fn port_owner<S: State>(translated: &FlowKey, original: &FlowKey, s: &S) -> PortOwner {
    let mut made = 0;
    let Some(owner) = s.nat(translated, |entry| {
        made = entry.last_seen;
        translated.counterpart(entry.addr, entry.port)
    }) else {
        return PortOwner::Nobody;
    };
    if owner.local_port == original.local_port && owner.local == original.local {
        return PortOwner::ThisFlow;
    }
    let live = s.nat(&owner, |entry| {
        entry.leads_to(translated)
            && !flow_state::is_expired(translated.protocol, entry.state, entry.last_seen, s.now())
    });
    // A young one may belong to another CPU, which is about to write its other half.
    if live == Some(true) || s.now().saturating_sub(made) < flow_state::SECOND {
        PortOwner::OtherFlow
    } else {
        PortOwner::Expired
    }
}

/// Translates an answer back; undecided if it is none.
#[inline(never)]
pub(crate) fn translate_back<S: State>(nic: &NicEntry, h: &Headers, rewrite: &mut Rewrite, s: &S) -> Outcome {
    if matches!(h.l4.kind, L4Kind::EchoRequest) {
        return Outcome::undecided(Reason::NotOurs);
    }
    let translated = FlowKey::of(nic.pod, h, Direction::Ingress).as_tuple(Tuple::Translated);
    let Some((local, port)) = s.nat(&translated, |entry| (entry.addr, entry.port)) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    let original = translated.counterpart(local, port);
    let resets = h.l4.flags & RST != 0 && s.takes_reset(&original, h.l4.sequence);
    if s.nat(&original, |entry| update_on_ingress(entry, &translated, h, resets, s)) != Some(true) {
        return Outcome::undecided(Reason::NotOurs);
    }
    rewrite.destination(local, port);
    Outcome::pass(Reason::TranslatedBack)
}

/// Translates an ICMP error that the pod sends about a packet of a translated flow; `false` if that is of none.
#[inline(never)]
pub(crate) fn translate_error<S: State>(
    exit: &NicEntry,
    quoted: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> bool {
    let key = FlowKey::of(exit.pod, quoted, Direction::Ingress);
    let (to, now) = (exit.addr(quoted.dst), s.now());
    let port = s.nat(&key, |e| {
        let is_live = !flow_state::is_expired(key.protocol, e.state, e.last_seen, now) && e.addr == to;
        is_live.then_some(e.port)
    });
    let Some(Some(port)) = port else { return false };
    rewrite.source(to, port);
    rewrite.quoted();
    true
}

/// Translates an ICMP error back that is about a packet of a translated flow; undecided if that is of none. It keeps no flow alive.
#[inline(never)]
pub(crate) fn translate_error_back<S: State>(
    nic: &NicEntry,
    quoted: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let translated = FlowKey::of(nic.pod, quoted, Direction::Egress).as_tuple(Tuple::Translated);
    let Some((local, port)) = s.nat(&translated, |entry| (entry.addr, entry.port)) else {
        return Outcome::undecided(Reason::IcmpError);
    };
    let now = s.now();
    let is_live = s.nat(&translated.counterpart(local, port), |e| {
        e.leads_to(&translated) && !flow_state::is_expired(translated.protocol, e.state, e.last_seen, now)
    });
    if is_live != Some(true) {
        return Outcome::undecided(Reason::IcmpError);
    }
    rewrite.destination(local, port);
    rewrite.quoted();
    Outcome::pass(Reason::ErrorTranslated)
}

/// Whether the flow lives and is the one of the translated tuple.
#[inline(always)]
fn update_on_ingress<S: State>(
    e: &mut NatEntry,
    translated: &FlowKey,
    h: &Headers,
    resets: bool,
    s: &S,
) -> bool {
    let (now, protocol) = (s.now(), translated.protocol);
    if !e.leads_to(translated) || flow_state::is_expired(protocol, e.state, e.last_seen, now) {
        return false;
    }
    // A SYN calls the cluster NIC's address, unless the pod's own SYN is all there has been: then both sides open the connection
    // at once (RFC 9293, 3.5).
    if h.is_syn() && e.state != 0 {
        return false;
    }
    let state = if h.l4.flags & RST != 0 {
        flow_state::after_reset(e.state, resets)
    } else if protocol == TCP {
        flow_state::after_ingress(e.state, h.l4.flags)
    } else {
        e.state | flow_state::ESTABLISHED
    };
    refresh(e, state, now);
    true
}

/// What becomes of a packet that the pod sends with the exit NIC's own address.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direct {
    /// It leaves as it is.
    AsItIs,
    /// A translated flow has its tuple, whose answers cannot be told from its own: it gets another port.
    Conflict,
}

/// The pod starts a flow with the exit NIC's own address. Does a translation use its tuple? One that is closing is removed, so
/// that the new flow's answers are not translated.
#[inline(never)]
pub(crate) fn check_conflict<S: State>(nic: &NicEntry, h: &Headers, s: &S) -> Direct {
    let translated = FlowKey::of(nic.pod, h, Direction::Egress).as_tuple(Tuple::Translated);
    let Some((local, port)) = s.nat(&translated, |entry| (entry.addr, entry.port)) else {
        return Direct::AsItIs;
    };
    let original = translated.counterpart(local, port);
    let now = s.now();
    let found = s.nat(&original, |entry| {
        let live = entry.leads_to(&translated)
            && !flow_state::is_expired(translated.protocol, entry.state, entry.last_seen, now);
        (live, entry.state)
    });
    match found {
        Some((true, state)) if translated.protocol != TCP || !flow_state::is_closing(state) => {
            return Direct::Conflict;
        }
        Some((true, _)) => {
            s.nat_remove(&original);
            s.nat_remove(&translated);
        }
        _ => s.nat_remove(&translated),
    }
    Direct::AsItIs
}
