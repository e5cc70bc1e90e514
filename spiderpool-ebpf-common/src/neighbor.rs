//! Answers ARP requests and neighbor solicitations for addresses of this node, which a macvlan child can never
//! reach: without an answer the IP packet would not be sent, and no program would see it.

use crate::addr::Addr;
use crate::headers::Headers;
use crate::maps::{CidrKind, NicEntry};
use crate::packet::{ETH, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::rewrite::answer::NDP;
use crate::state::State;
use crate::verdict::Outcome;

#[inline(always)]
fn is_node<S: State>(nic: &NicEntry, addr: Addr, s: &S) -> bool {
    pod::cidr(nic, addr, s).kind == CidrKind::Node as u8
}

/// An ARP request for a node address becomes its answer.
#[inline(never)]
pub(crate) fn answer_arp<P: Packet, S: State>(
    p: &P,
    nic: &NicEntry,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let Some(b) = p.load::<28>(ETH) else { return Outcome::pass(Reason::NotIp) };
    let ethernet_request = [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]] == [0, 1, 8, 0, 6, 4, 0, 1];
    let (sender, target) = ([b[14], b[15], b[16], b[17]], [b[24], b[25], b[26], b[27]]);
    // Probes (no sender) and announcements (sender = target) ask nothing.
    if !ethernet_request || sender == [0; 4] || sender == target || !is_node(nic, Addr::v4(target), s) {
        return Outcome::pass(Reason::NotIp);
    }
    rewrite.arp_reply(nic);
    Outcome::redirect_ingress(nic.ifindex, Reason::ArpAnswered)
}

/// The target of a solicitation that can be answered; not of duplicate address detection, which asks nothing.
#[inline(always)]
fn target<P: Packet>(p: &P, h: &Headers) -> Option<Addr> {
    // Type, code, checksum, reserved, target, and one option: source link-layer address.
    let b = p.load::<32>(NDP)?;
    let ip = p.load::<8>(ETH)?;
    let plain = h.l4.offset == NDP && [ip[4], ip[5]] == [0, 32] && ip[7] == 255 && [b[24], b[25]] == [1, 1];
    let mut target = [0; 16];
    target.copy_from_slice(&b[8..24]);
    let target = Addr::v6(target);
    // An IPv4-mapped one would be looked up as IPv4.
    (plain && !h.src.is_unspecified() && !target.is_v4()).then_some(target)
}

/// A neighbor solicitation for a node address becomes its advertisement.
#[inline(never)]
pub(crate) fn answer_ndp<P: Packet, S: State>(
    p: &P,
    nic: &NicEntry,
    h: &Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let Some(target) = target(p, h) else { return Outcome::pass(Reason::LinkScope) };
    if !is_node(nic, target, s) {
        return Outcome::pass(Reason::LinkScope);
    }
    rewrite.ndp_reply(nic);
    Outcome::redirect_ingress(nic.ifindex, Reason::NdpAnswered)
}
