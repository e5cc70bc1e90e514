//! Does a packet fit the NIC that it is moved to, and do the segments that it asks for? The route that the pod chose may
//! belong to a NIC with a larger MTU. On egress the announced segment size bounds what the other side sends, on
//! ingress what the pod sends.
//!
//! Looks at the first TCP option only, which is where Linux and all systems of note put the segment size: walking the
//! options costs the verifier more than all the rest of the program.

use crate::headers::Headers;
use crate::packet::{ETH, Packet};
use crate::rewrite::Rewrite;

/// Whether a packet is longer than `mtu`. (A GSO packet is cut into segments later.)
#[inline(always)]
pub(crate) fn exceeds<P: Packet>(p: &P, mtu: u32) -> bool {
    p.len() > mtu + ETH && !p.is_gso()
}

/// Lowers the segment size that a SYN or SYN-ACK announces to what `mtu` carries.
#[inline(never)]
pub(crate) fn clamp_mss<P: Packet>(p: &P, h: &Headers, mtu: u32, rewrite: &mut Rewrite) {
    let headers = (h.l4.offset - ETH) + 20;
    if mtu <= headers {
        return;
    }
    let limit = (mtu - headers) as u16;
    // Data offset, then the option: kind 2, length 4, value.
    let Some([length]) = p.load::<1>(h.l4.offset + 12) else { return };
    let Some([kind, size, high, low]) = p.load::<4>(h.l4.offset + 20) else { return };
    let mss = u16::from_be_bytes([high, low]);
    if length >> 4 < 6 || kind != 2 || size != 4 || mss <= limit {
        return;
    }
    rewrite.mss(mss, limit);
}
