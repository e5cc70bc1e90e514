//! Translates the packet that an ICMP error quotes: whom the error goes to shall know it as the one that it has sent.

use super::translate::{End, checksum, replace_words};
use crate::headers::Headers;
use crate::packet::{Packet, Sum};

/// Gives the quoted packet, with these headers, an end that is the error's own other way round: what is the error's source was the
/// quoted packet's destination.
///
/// The quoted transport checksum stays what it was: most errors quote too little of it for anybody to check.
#[inline(always)]
pub(super) fn translate<P: Packet>(p: &mut P, error: &Headers, quoted: &Headers, end: End) -> bool {
    // All of this is data to the error's own checksum.
    let data = Sum { pseudo: false, udp: false };
    let sum = checksum(error);
    let is_source = !end.is_source;
    let (old, old_port, port_at) =
        if is_source { (quoted.src, quoted.l4.src_port, 0) } else { (quoted.dst, quoted.l4.dst_port, 2) };
    let (old_port, port_at) = if quoted.is_echo() { (quoted.l4.echo_id, 4) } else { (old_port, port_at) };
    let ip = error.l4.offset + 8;
    let addressed = if old.is_v4() {
        let (from, to) = (old.words()[3], end.addr.words()[3]);
        // The quoted header's checksum balances the address, so that the error's own stays.
        p.l3_csum_replace(ip + 10, from, to)
            && p.store(ip + if is_source { 12 } else { 16 }, &to.to_ne_bytes())
    } else {
        replace_words(p, sum, old, end.addr, data)
            && p.store(ip + if is_source { 8 } else { 24 }, &end.addr.bytes)
    };
    addressed
        && (old_port == end.port
            || p.l4_csum_replace_u16(sum, old_port.to_be(), end.port.to_be(), data)
                && p.store(quoted.l4.offset + port_at, &end.port.to_be_bytes()))
}
