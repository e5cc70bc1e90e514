//! When the state of a flow ends: the same rules in the programs and in the agent's sweep.
//!
//! Limits are those that kube-proxy and the kernel's connection tracking use. A RST only shortens an entry's
//! life, so that a forged one cannot cut a flow: the next real packet lengthens it again.

/// IP protocol numbers that have flows.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMP6: u8 = 58;
}

/// Both sides were heard (TCP: the handshake is over; UDP: an answer came).
pub const ASSURED: u8 = 1;
/// The pod sent a FIN.
pub const FIN_OUT: u8 = 2;
/// The other side sent a FIN.
pub const FIN_BACK: u8 = 4;
/// The last packet that told anything was a RST.
pub const RESET: u8 = 8;
/// The pod sent a RST: for it the connection is no more. (One that comes in may be forged.)
pub const RESET_OUT: u8 = 16;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// `last_seen` is not rewritten more often than this.
pub const REFRESH: u64 = SECOND;

/// Seconds that a flow lives without a packet.
#[inline(always)]
pub const fn limit(proto: u8, state: u8) -> u64 {
    if proto == protocol::TCP {
        if state & RESET != 0 {
            10
        } else if state & ASSURED == 0 || (state & FIN_OUT != 0 && state & FIN_BACK != 0) {
            60
        } else if state & (FIN_OUT | FIN_BACK) != 0 {
            3600
        } else {
            86_400
        }
    } else if proto == protocol::UDP {
        if state & ASSURED == 0 { 60 } else { 180 }
    } else {
        30
    }
}

/// Whether a flow that was seen at `last_seen` is over at `now` (both ns).
#[inline(always)]
pub const fn is_over(proto: u8, state: u8, last_seen: u64, now: u64) -> bool {
    now.saturating_sub(last_seen) > limit(proto, state) * SECOND
}

/// Whether a TCP flow is closing: a new SYN with the same ports starts another flow.
#[inline(always)]
pub const fn is_closing(state: u8) -> bool {
    state & RESET != 0 || (state & FIN_OUT != 0 && state & FIN_BACK != 0)
}

/// Whether a TCP connection is open as far as the pod is concerned: no SYN of the other side is to be believed.
#[inline(always)]
pub const fn is_open(state: u8) -> bool {
    state & ASSURED != 0 && state & RESET_OUT == 0 && !(state & FIN_OUT != 0 && state & FIN_BACK != 0)
}

#[cfg(test)]
mod tests {
    use super::{ASSURED, FIN_BACK, FIN_OUT, RESET, SECOND, is_over, limit, protocol};

    #[test]
    fn limits() {
        let table = [
            (protocol::TCP, 0, 60),
            (protocol::TCP, ASSURED, 86_400),
            (protocol::TCP, ASSURED | FIN_OUT, 3600),
            (protocol::TCP, ASSURED | FIN_BACK, 3600),
            (protocol::TCP, ASSURED | FIN_OUT | FIN_BACK, 60),
            (protocol::TCP, ASSURED | RESET, 10),
            (protocol::UDP, 0, 60),
            (protocol::UDP, ASSURED, 180),
            (protocol::ICMP, ASSURED, 30),
            (protocol::ICMP6, 0, 30),
        ];
        for (proto, state, want) in table {
            assert_eq!(limit(proto, state), want, "protocol {proto}, state {state:#b}");
            let now = 1_000_000 * SECOND;
            assert!(!is_over(proto, state, now - want * SECOND, now));
            assert!(is_over(proto, state, now - want * SECOND - 1, now));
        }
    }

    #[test]
    fn a_clock_that_is_behind_ends_nothing() {
        assert!(!is_over(protocol::ICMP, 0, 10, 5));
    }
}
