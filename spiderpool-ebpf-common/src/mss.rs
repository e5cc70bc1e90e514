//! Lowers the segment size that a TCP SYN announces to what the cluster NIC's MTU carries: the route that the
//! pod chose belongs to a NIC with a larger one.
//!
//! Looks at the first option only, which is where Linux and all systems of note put it: walking the options
//! costs the verifier more than all the rest of the program.

use crate::headers::Headers;
use crate::packet::{ETH, Packet, Sum};

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
