//! State of a flow and when it expires: the same rules in the programs and in the agent's clean-up of expired flows.
//!
//! Timeouts are those that kube-proxy and the kernel's connection tracking use, shorter where both sides have ended a
//! connection. A RST only shortens an entry's timeout, by how much depends on whether the pod's socket takes it, so that
//! a forged one cannot cut a flow: the next real packet lengthens it again.

use crate::headers::{ACK, FIN};
use crate::protocol;

/// Packets went both ways (TCP: the handshake is over; UDP: an answer came).
pub const ESTABLISHED: u8 = 1;
/// The pod sent a FIN.
pub const FIN_SENT: u8 = 2;
/// The other side sent a FIN.
pub const FIN_RECEIVED: u8 = 4;
/// A RST was sent, or came in and the pod's socket takes it, and nothing after it.
pub const RESET: u8 = 8;
/// The pod sent a RST: for it the connection is no more. (One that comes in may be forged.)
pub const RST_SENT: u8 = 16;

/// UDP, echo and SCTP by the node link: the caller has gone on after [`STREAM_AFTER`].
pub const STREAM: u8 = 32;
/// By the node link: the pod answers there. It has not begun the flow itself.
pub const ANSWERED: u8 = 64;
/// A RST came in that the pod's socket does not take, as far as can be told, and nothing after it.
pub const DOUBTFUL_RESET: u8 = 128;
/// UDP of `arrivals`: the pod has begun the flow, on fixed ports of both sides. It keeps its way.
pub const BEGUN_BY_POD: u8 = 64;
/// Seconds after which a flow that goes on is no question with its answer; as the kernel's connection tracking has it.
pub const STREAM_AFTER: u32 = 2;

/// Seconds after which a UDP flow that was answered expires.
pub const UDP_TIMEOUT: u32 = 180;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// How long after the first one the other fragments of a packet may come, in ns.
pub const FRAGMENTS_FOR: u64 = 30 * SECOND;
/// `last_seen` is not rewritten more often than this.
pub const REFRESH: u64 = SECOND;

/// Seconds without a packet after which a flow expires.
#[inline(always)]
pub const fn timeout(proto: u8, state: u8) -> u64 {
    if proto == protocol::TCP {
        // Long enough for what is repeated.
        if state & RESET != 0 || is_closed(state) {
            10
        } else if state & ESTABLISHED == 0 {
            60
        } else if state & (FIN_SENT | FIN_RECEIVED | DOUBTFUL_RESET) != 0 {
            3600
        } else {
            86_400
        }
    } else if proto == protocol::UDP {
        if state & ESTABLISHED == 0 { 60 } else { UDP_TIMEOUT as u64 }
    } else {
        30
    }
}

/// Seconds without a packet after which a flow by the node link expires. Short where one packet makes a flow: the entries are
/// the pod's share.
#[inline(always)]
pub const fn link_timeout(proto: u8, state: u8) -> u64 {
    match proto {
        protocol::TCP => timeout(proto, state),
        // The default heartbeat interval is 30 s (RFC 9260, 16).
        protocol::SCTP if state & (ESTABLISHED | STREAM) != 0 => 300,
        _ if state & STREAM != 0 => 180,
        _ => 30,
    }
}

/// Whether a flow that was seen at `last_seen` has expired at `now` (both ns).
#[inline(always)]
pub const fn is_expired(proto: u8, state: u8, last_seen: u64, now: u64) -> bool {
    now.saturating_sub(last_seen) > timeout(proto, state) * SECOND
}

/// Both sides sent a FIN.
#[inline(always)]
pub(crate) const fn is_closed(state: u8) -> bool {
    state & FIN_SENT != 0 && state & FIN_RECEIVED != 0
}

/// Whether a TCP flow is closing: a new SYN with the same ports starts another flow.
#[inline(always)]
pub const fn is_closing(state: u8) -> bool {
    state & RESET != 0 || is_closed(state)
}

/// Whether a TCP connection is open as far as the pod is concerned: no SYN of the other side may change it.
#[inline(always)]
pub const fn is_open(state: u8) -> bool {
    state & ESTABLISHED != 0 && state & RST_SENT == 0 && !is_closed(state)
}

/// State of a TCP flow after a RST from the other side.
#[inline(always)]
pub(crate) const fn after_reset(state: u8, is_taken: bool) -> u8 {
    if is_taken { state | RESET } else { state | DOUBTFUL_RESET }
}

/// State of a TCP flow after a segment from the other side that is no RST.
#[inline(always)]
pub(crate) const fn after_ingress(state: u8, flags: u8) -> u8 {
    let state = state & !(RESET | DOUBTFUL_RESET);
    let state = if flags & ACK != 0 { state | ESTABLISHED } else { state };
    if flags & FIN != 0 { state | FIN_RECEIVED } else { state }
}

#[cfg(test)]
mod tests {
    use super::{
        DOUBTFUL_RESET, ESTABLISHED, FIN_RECEIVED, FIN_SENT, RESET, SECOND, is_expired, protocol, timeout,
    };

    #[test]
    fn timeouts() {
        let table = [
            (protocol::TCP, 0, 60),
            (protocol::TCP, ESTABLISHED, 86_400),
            (protocol::TCP, ESTABLISHED | FIN_SENT, 3600),
            (protocol::TCP, ESTABLISHED | FIN_RECEIVED, 3600),
            (protocol::TCP, ESTABLISHED | FIN_SENT | FIN_RECEIVED, 10),
            (protocol::TCP, ESTABLISHED | RESET, 10),
            (protocol::TCP, ESTABLISHED | DOUBTFUL_RESET, 3600),
            (protocol::UDP, 0, 60),
            (protocol::UDP, ESTABLISHED, 180),
            (protocol::ICMP, ESTABLISHED, 30),
            (protocol::ICMP6, 0, 30),
        ];
        for (proto, state, want) in table {
            assert_eq!(timeout(proto, state), want, "protocol {proto}, state {state:#b}");
            let now = 1_000_000 * SECOND;
            assert!(!is_expired(proto, state, now - want * SECOND, now));
            assert!(is_expired(proto, state, now - want * SECOND - 1, now));
        }
    }

    #[test]
    fn a_clock_that_is_behind_expires_nothing() {
        assert!(!is_expired(protocol::ICMP, 0, 10, 5));
    }
}
