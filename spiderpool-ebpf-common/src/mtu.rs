//! Does a packet fit the NIC that it is moved to, and do the segments that it asks for? The route that the pod chose may
//! belong to a NIC with a larger MTU. On egress the announced segment size bounds what the other side sends, on
//! ingress what the pod sends.
//!
//! Looks at the first TCP option only, which is where Linux and all systems of note put the segment size: walking the
//! options costs the verifier more than all the rest of the program.

use crate::headers::{Fragment, Headers, L4Kind};
use crate::maps::{NicEntry, ROLE_UNDERLAY};
use crate::packet::{ETH, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::State;
use crate::verdict::Outcome;

/// Whether a packet, or a segment of it, is longer than `mtu`.
#[inline(always)]
pub(crate) fn exceeds<P: Packet>(p: &P, h: &Headers, mtu: u32) -> bool {
    p.len() > mtu + ETH && longest_segment(p, h) > mtu
}

/// Length of the longest packet that this one is cut into, without link header. Of GSO packets that are not known to be made of
/// equal segments (SCTP) that is not looked at.
#[inline(never)]
fn longest_segment<P: Packet>(p: &P, h: &Headers) -> u32 {
    let payload = p.gso_size();
    if payload == 0 {
        return p.len() - ETH;
    }
    let transport = match h.l4.kind {
        // The data offset counts words of 4 bytes.
        L4Kind::Tcp => p.load::<1>(h.l4.offset + 12).map_or(20, |[offset]| u32::from(offset >> 4) * 4),
        L4Kind::Udp => 8,
        _ => return 0,
    };
    h.l4.offset - ETH + transport + payload
}

/// A packet longer than the MTU of the NIC that it would be moved to, which nobody behind that NIC would say a word about. The
/// sender gets the ICMP error that a router sends; of errors and later fragments there is none (RFC 1122, 3.2.2).
#[inline(never)]
pub(crate) fn reject<S: State>(
    nic: &NicEntry,
    h: &Headers,
    mtu: u32,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    rewrite.clear();
    if matches!(h.l4.kind, L4Kind::IcmpError) || matches!(h.fragment, Fragment::Later) {
        return Outcome::drop(Reason::MtuExceeded);
    }
    // By an underlay NIC nothing may come in for the cluster NIC's address.
    let is_cluster_address = nic.role == ROLE_UNDERLAY && pod::is_cluster_address(nic, &h.src, s);
    let to = if is_cluster_address { pod::exit(nic, s) } else { None };
    let to = match to {
        Some(exit) => exit,
        None => nic,
    };
    rewrite.too_big(to, mtu);
    Outcome::redirect_ingress(to.ifindex, Reason::MtuExceeded)
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
