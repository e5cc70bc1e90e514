//! Lowers the segment size that a TCP SYN or SYN-ACK announces to what the MTU of the NIC carries that the flow
//! uses: the route that the pod chose may belong to a NIC with a larger one. On egress that bounds what the
//! other side sends, on ingress what the pod sends.
//!
//! Looks at the first option only, which is where Linux and all systems of note put it: walking the options
//! costs the verifier more than all the rest of the program.

use crate::headers::Headers;
use crate::packet::{ETH, Packet, Sum};
use crate::reason::Reason;
use crate::state::State;

/// A packet is moved to another NIC: counts it if it is too long for that, and clamps what it announces.
#[inline(never)]
pub(crate) fn fit<P: Packet, S: State>(p: &mut P, id: u16, h: &Headers, mtu: u32, s: &S) {
    let bytes = p.len();
    if bytes > mtu + ETH && !p.is_aggregate() {
        s.count(id, Reason::MtuExceeded, bytes);
    }
    if h.is_handshake() && clamp(p, h, mtu) {
        s.count(id, Reason::MssClamped, bytes);
    }
}

/// Whether the option was there and was lowered.
#[inline(never)]
pub(crate) fn clamp<P: Packet>(p: &mut P, h: &Headers, mtu: u32) -> bool {
    let headers = (h.l4 - ETH) + 20;
    if mtu <= headers {
        return false;
    }
    let limit = (mtu - headers) as u16;
    // Data offset, then the option: kind 2, length 4, value.
    let Some([length]) = p.load::<1>(h.l4 + 12) else { return false };
    let Some([kind, size, high, low]) = p.load::<4>(h.l4 + 20) else { return false };
    let mss = u16::from_be_bytes([high, low]);
    if length >> 4 < 6 || kind != 2 || size != 4 || mss <= limit {
        return false;
    }
    p.replace_l4_half(h.l4 + 16, mss.to_be(), limit.to_be(), Sum { pseudo: false, udp: false })
        && p.store(h.l4 + 22, &limit.to_be_bytes())
}
