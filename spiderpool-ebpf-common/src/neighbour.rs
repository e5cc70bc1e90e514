//! Answers ARP requests and neighbour solicitations for addresses of this node, which a macvlan child can never
//! reach: without an answer the IP packet would not be sent, and no program would see it.

use crate::addr::Addr;
use crate::headers::Headers;
use crate::life::protocol::ICMP6;
use crate::maps::{CidrKind, NicEntry};
use crate::packet::{ETH, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::state::{Event, State};
use crate::verdict::Outcome;

/// The MAC that node addresses have on an underlay NIC. Locally administered; no frame leaves with it, because
/// what is sent to it is steered.
pub const NODE_MAC: [u8; 6] = [0x02, 0x53, 0x50, 0x00, 0x00, 0x01];

/// Offset of the ICMPv6 header in a solicitation (which has no extension headers).
const NDP: u32 = ETH + 40;

#[inline(always)]
fn is_node<S: State>(nic: &NicEntry, addr: Addr, s: &S) -> bool {
    pod::cidr(nic, addr, s).kind == CidrKind::Node as u8
}

/// Turns an ARP request for a node address into its answer.
#[inline(never)]
pub fn answer_arp<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, s: &S) -> Outcome {
    let Some(b) = p.load::<28>(ETH) else { return Outcome::pass(Reason::NotIp) };
    let ethernet_request = [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]] == [0, 1, 8, 0, 6, 4, 0, 1];
    let (sender, target) = ([b[14], b[15], b[16], b[17]], [b[24], b[25], b[26], b[27]]);
    // Probes (no sender) and announcements (sender = target) ask nothing.
    if !ethernet_request || sender == [0; 4] || sender == target || !is_node(nic, Addr::v4(target), s) {
        return Outcome::pass(Reason::NotIp);
    }
    let mut answer = [0; 28];
    answer[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    answer[8..14].copy_from_slice(&NODE_MAC);
    answer[14..18].copy_from_slice(&target);
    answer[18..24].copy_from_slice(&[b[8], b[9], b[10], b[11], b[12], b[13]]);
    answer[24..28].copy_from_slice(&sender);
    if !p.store(ETH, &answer) || !to_self(p, nic) {
        return Outcome::pass(Reason::Failed);
    }
    s.report(id, Event::NeighbourAnswered);
    Outcome::redirect_ingress(nic.ifindex, Reason::ArpAnswered)
}

/// Turns a neighbour solicitation for a node address into its advertisement.
#[inline(never)]
pub fn answer_ndp<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    // Type, code, checksum, reserved, target, and one option: source link-layer address.
    let Some(b) = p.load::<32>(NDP) else { return Outcome::pass(Reason::LinkScope) };
    let Some(ip) = p.load::<8>(ETH) else { return Outcome::pass(Reason::LinkScope) };
    let plain = h.l4 == NDP && [ip[4], ip[5]] == [0, 32] && ip[7] == 255 && [b[24], b[25]] == [1, 1];
    let mut target = [0; 16];
    target.copy_from_slice(&b[8..24]);
    // Without source it is duplicate address detection, which asks nothing.
    if !plain || h.src.is_unspecified() || !is_node(nic, Addr::v6(target), s) {
        return Outcome::pass(Reason::LinkScope);
    }
    if !advertise(p, h.src.bytes, target) || !to_self(p, nic) {
        return Outcome::pass(Reason::Failed);
    }
    s.report(id, Event::NeighbourAnswered);
    Outcome::redirect_ingress(nic.ifindex, Reason::NdpAnswered)
}

#[inline(always)]
fn advertise<P: Packet>(p: &mut P, to: [u8; 16], target: [u8; 16]) -> bool {
    let mut b = [0; 32];
    // Neighbour advertisement, solicited and overriding, with the target's link-layer address.
    b[0] = 136;
    b[4] = 0x60;
    b[8..24].copy_from_slice(&target);
    b[24] = 2;
    b[25] = 1;
    b[26..32].copy_from_slice(&NODE_MAC);
    let sum = words(&target) + words(&to) + words(&b) + 32 + u32::from(ICMP6);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    b[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    p.store(ETH + 8, &target) && p.store(ETH + 24, &to) && p.store(NDP, &b)
}

/// Sum of the 16-bit words.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at + 1 < N {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}

#[inline(always)]
fn to_self<P: Packet>(p: &mut P, nic: &NicEntry) -> bool {
    let (d, s) = (nic.mac, NODE_MAC);
    p.store(0, &[d[0], d[1], d[2], d[3], d[4], d[5], s[0], s[1], s[2], s[3], s[4], s[5]])
}
