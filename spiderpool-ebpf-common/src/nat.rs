//! Translation of flows that the pod started with an underlay address: they leave by the cluster NIC with its
//! address, and their answers are translated back there. Only what was seen to start is translated.

use crate::addr::Addr;
use crate::arrivals::tcp_coming;
use crate::headers::{FIN, Headers, Kind, RST};
use crate::life;
use crate::life::protocol::TCP;
use crate::maps::{BACK, NatEntry, NatKey, NicEntry, OUT};
use crate::packet::Packet;
use crate::reason::Reason;
use crate::rewrite;
use crate::state::{Event, NotPut, Put, State};
use crate::verdict::Outcome;

/// First port for flows whose own is taken: above `ip_local_port_range`, so that no socket gets it by itself.
pub const PORT_FIRST: u16 = 61_000;
/// Number of such ports.
pub const PORT_COUNT: u32 = 65_536 - PORT_FIRST as u32;
/// How many ports are tried for one flow, its own included.
const ATTEMPTS: u32 = 5;

/// The dice of the model and of test runs.
#[inline(always)]
pub const fn dice(seed: u32, attempt: u32) -> u32 {
    (seed ^ attempt.wrapping_mul(0x9e37_79b9)).wrapping_mul(1_664_525).wrapping_add(1_013_904_223) >> 8
}

/// The flow of a packet that leaves, as the pod's socket has it.
#[inline(always)]
fn out_key(pod: u16, h: &Headers) -> NatKey {
    NatKey {
        pod,
        protocol: h.protocol,
        direction: OUT,
        local_port: h.src_port | h.echo_id,
        remote_port: h.dst_port,
        local: h.src,
        remote: h.dst,
    }
}

/// The flow's other entry, by what this one says.
#[inline(always)]
const fn partner(key: &NatKey, local: Addr, port: u16) -> NatKey {
    let direction = if key.direction == OUT { BACK } else { OUT };
    NatKey {
        pod: key.pod,
        protocol: key.protocol,
        direction,
        local_port: port,
        remote_port: key.remote_port,
        local,
        remote: key.remote,
    }
}

/// The source port of a translated flow, or why the packet is to be kept off the cluster NIC.
///
/// (Not a `Result`: calls that are not inlined return no enum with data, see [`Outcome::undecided`].)
#[derive(Clone, Copy)]
pub(crate) struct Translation {
    pub(crate) port: u16,
    pub(crate) found: bool,
    pub(crate) reason: Reason,
}

/// Finds or starts the translation of a packet that leaves by the cluster NIC.
#[inline(never)]
pub(crate) fn find<S: State>(id: u16, exit: &NicEntry, h: &Headers, s: &S) -> Translation {
    let key = out_key(exit.pod, h);
    let to = exit.addr(h.src);
    let live = s.nat(&key, |e| touch_leaving(e, to, h, s)).flatten();
    match live {
        Some(port) => Translation { port, found: true, reason: Reason::Translated },
        None if h.can_start() => start(&key, &to, id, s),
        None => Translation { port: 0, found: false, reason: Reason::NatUnknown },
    }
}

/// The port of a live translation; `None` if it is over, or of a cluster address that is no more.
#[inline(always)]
fn touch_leaving<S: State>(e: &mut NatEntry, to: Addr, h: &Headers, s: &S) -> Option<u16> {
    let now = s.now();
    if life::is_over(h.protocol, e.state, e.last_seen, now) || e.addr != to {
        return None;
    }
    let mut state = e.state;
    if h.is_syn() {
        state = 0;
    } else if matches!(h.kind, Kind::Tcp) {
        if h.flags & RST != 0 {
            state |= life::RESET;
        } else {
            state &= !life::RESET;
        }
        if h.flags & FIN != 0 {
            state |= life::FIN_OUT;
        }
    }
    renew(e, state, now);
    Some(e.port)
}

#[inline(always)]
fn renew(e: &mut NatEntry, state: u8, now: u64) {
    if state != e.state {
        e.state = state;
        e.last_seen = now;
    } else if now.saturating_sub(e.last_seen) >= life::REFRESH {
        e.last_seen = now;
    }
}

/// Makes both entries of a new translation, with a port that nobody has.
#[inline(never)]
fn start<S: State>(out: &NatKey, to: &Addr, id: u16, s: &S) -> Translation {
    let mut back = partner(out, *to, out.local_port);
    let mut reason = Reason::NatNew;
    for attempt in 1..=ATTEMPTS {
        let taken = s.socket_has(&back);
        match if taken { Try::Taken } else { try_port(out, &back, s) } {
            Try::Done => return Translation { port: back.local_port, found: true, reason },
            Try::Taken => {}
            Try::Full => {
                s.report(id, Event::NatFull);
                return Translation { port: 0, found: false, reason: Reason::NatFull };
            }
        }
        back.local_port = PORT_FIRST + (s.random(attempt) % PORT_COUNT) as u16;
        reason = Reason::NatPort;
    }
    s.report(id, Event::NatNoPort);
    Translation { port: 0, found: false, reason: Reason::NatNoPort }
}

#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Try {
    Done,
    Taken,
    Full,
}

#[inline(never)]
fn try_port<S: State>(out: &NatKey, back: &NatKey, s: &S) -> Try {
    let put = match holder(back, out, s) {
        Holder::Nobody => Put::New,
        Holder::Dead | Holder::Flow => Put::Any,
        Holder::Other => return Try::Taken,
    };
    let mut entry =
        NatEntry { last_seen: s.now(), addr: out.local, port: out.local_port, state: 0, _pad: [0; 5] };
    match s.nat_put(back, &entry, put) {
        Ok(()) => {}
        Err(NotPut::Exists) => return Try::Taken,
        Err(NotPut::Full) => return Try::Full,
    }
    entry.addr = back.local;
    entry.port = back.local_port;
    if s.nat_put(out, &entry, Put::Any).is_err() {
        s.nat_remove(back);
        return Try::Full;
    }
    Try::Done
}

/// Whose translation a `BACK` entry is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// There is no entry.
    Nobody,
    /// Its flow is over, or names another one.
    Dead,
    /// The flow in question.
    Flow,
    /// Another live flow, or one that is just being made.
    Other,
}

/// `mine` is the `OUT` key of the flow in question.
#[inline(never)]
fn holder<S: State>(back: &NatKey, mine: &NatKey, s: &S) -> Holder {
    let mut made = 0;
    let Some(out) = s.nat(back, |b| {
        made = b.last_seen;
        partner(back, b.addr, b.port)
    }) else {
        return Holder::Nobody;
    };
    if out.local_port == mine.local_port && out.local == mine.local {
        return Holder::Flow;
    }
    let live = s.nat(&out, |o| {
        o.port == back.local_port
            && o.addr == back.local
            && !life::is_over(back.protocol, o.state, o.last_seen, s.now())
    });
    // A young one may belong to another CPU, which is about to write its other half.
    if live == Some(true) || s.now().saturating_sub(made) < life::SECOND {
        Holder::Other
    } else {
        Holder::Dead
    }
}

/// Translates an answer back; undecided if it is none.
#[inline(never)]
pub(crate) fn translate_back<P: Packet, S: State>(p: &mut P, nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    if matches!(h.kind, Kind::EchoRequest) || h.is_syn() {
        return Outcome::undecided(Reason::NotOurs);
    }
    let back = NatKey {
        pod: nic.pod,
        protocol: h.protocol,
        direction: BACK,
        local_port: h.dst_port | h.echo_id,
        remote_port: h.src_port,
        local: h.dst,
        remote: h.src,
    };
    let Some((local, port)) = s.nat(&back, |b| (b.addr, b.port)) else {
        return Outcome::undecided(Reason::NotOurs);
    };
    let out = partner(&back, local, port);
    if s.nat(&out, |o| touch_coming(o, &back, h, s)) != Some(true) {
        return Outcome::undecided(Reason::NotOurs);
    }
    if rewrite::set_destination(p, h, &local, port) {
        Outcome::pass(Reason::TranslatedBack)
    } else {
        Outcome::pass(Reason::Failed)
    }
}

#[inline(always)]
fn touch_coming<S: State>(o: &mut NatEntry, back: &NatKey, h: &Headers, s: &S) -> bool {
    let now = s.now();
    if o.port != back.local_port
        || o.addr != back.local
        || life::is_over(back.protocol, o.state, o.last_seen, now)
    {
        return false;
    }
    let state = if back.protocol == TCP { tcp_coming(o.state, h.flags) } else { o.state | life::ASSURED };
    renew(o, state, now);
    true
}

/// The pod starts a TCP flow with the cluster NIC's own address. Is its tuple in use by a translation? One
/// that is closing makes room, so that the new flow's answers are not translated; a live one is told.
#[inline(never)]
pub(crate) fn make_room<S: State>(nic: &NicEntry, h: &Headers, s: &S) -> Reason {
    let mut key = out_key(nic.pod, h);
    key.direction = BACK;
    let Some((local, port)) = s.nat(&key, |b| (b.addr, b.port)) else { return Reason::ClusterDirect };
    let out = partner(&key, local, port);
    let now = s.now();
    let found = s.nat(&out, |o| {
        let live = o.port == key.local_port && !life::is_over(TCP, o.state, o.last_seen, now);
        (live, o.state)
    });
    // A translated SYN comes by here too, a moment after it set the state to 0.
    match found {
        Some((true, 0)) => Reason::ClusterDirect,
        Some((true, state)) if !life::is_closing(state) => Reason::NatConflict,
        Some((true, _)) => {
            s.nat_remove(&out);
            s.nat_remove(&key);
            Reason::ClusterDirect
        }
        _ => {
            s.nat_remove(&key);
            Reason::ClusterDirect
        }
    }
}
