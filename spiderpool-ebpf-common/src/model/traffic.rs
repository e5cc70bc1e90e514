//! Random traffic of the test pod: a number becomes a packet, so that any generator of numbers will do.

use super::frames::{self, Ends};
use super::pod::{ETH0, Endpoint, Family, NET1, NET2, NICS, SP0, at};
use super::{Frame, Tables};
use crate::flow_state::SECOND;
use crate::headers::{ACK, FIN, RST, SYN};
use crate::scratch::Scratch;
use crate::verdict::Verdict;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// On the egress of the pod's NICs.
    Egress,
    /// On their ingress.
    Ingress,
    /// On the egress of the host end of the node link: to the pod.
    HostEgress,
    /// On its ingress: from the pod.
    HostIngress,
}

impl Program {
    /// Runs it on a frame of a NIC.
    pub fn run(self, frame: &mut Frame, nic: u16, tables: &Tables) -> Verdict {
        let scratch = &mut Scratch::default();
        match self {
            Self::Egress => crate::egress(frame, nic, scratch, tables),
            Self::Ingress => crate::ingress(frame, nic, scratch, tables),
            Self::HostEgress => crate::host_egress(frame, nic, scratch, tables),
            Self::HostIngress => crate::host_ingress(frame, nic, scratch, tables),
        }
    }
}

/// One packet that leaves or comes in.
#[derive(Clone, Debug)]
pub struct TrafficStep {
    /// It leaves the pod.
    pub outbound: bool,
    /// By this NIC.
    pub nic: u16,
    /// It is at the host end of the node link.
    pub at_host_end: bool,
    /// The node forwards it.
    pub forwarded: bool,
    /// It would reach its source by another device.
    pub spoofed: bool,
    /// The packet.
    pub frame: Frame,
    /// Its socket has no local address.
    pub wildcard: bool,
    /// Seconds before it.
    pub pause: u64,
}

const SOURCES: [Endpoint; 8] = [
    Endpoint::Nic(ETH0),
    Endpoint::Nic(NET1),
    Endpoint::Nic(NET2),
    Endpoint::Nic(SP0),
    Endpoint::Second(ETH0),
    Endpoint::Second(NET1),
    Endpoint::Second(NET2),
    Endpoint::Foreign,
];
const REMOTES: [Endpoint; 5] =
    [Endpoint::Service, Endpoint::OverlayPod, Endpoint::Node, Endpoint::Neighbor, Endpoint::Outside];
const FLAGS: [u8; 6] = [SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK];
const PAUSES: [u64; 12] = [0, 0, 0, 0, 0, 0, 1, 5, 61, 200, 4000, 100_000];

/// Takes choices off a number.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: u64) -> u64 {
        let choice = self.0 % n;
        self.0 /= n;
        choice
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn ends(choices: &mut Choices) -> Ends {
    let family = choices.of(&[Family::V4, Family::V6]);
    Ends {
        src: at(choices.of(&SOURCES), family),
        sport: choices.of(&[40_000, 40_001]),
        dst: at(choices.of(&REMOTES), family),
        dport: choices.of(&[53, 80]),
    }
}

impl TrafficStep {
    /// The steps that numbers stand for. Most packets are of one pair of addresses, the theme's, which a pod's
    /// sockets use from its own address or from eth0's: so flows meet.
    pub fn sequence(theme: u64, numbers: &[u64]) -> Vec<Self> {
        numbers.iter().map(|&number| Self::from_number(theme, number)).collect()
    }

    /// The step that a number stands for.
    pub fn from_number(theme: u64, number: u64) -> Self {
        let mut choices = Choices(number);
        let outbound = choices.below(2) == 0;
        let nic = choices.of(&NICS);
        let at_host_end = nic == SP0 && choices.below(4) != 0;
        let ends = match choices.below(8) {
            0 => ends(&mut choices),
            1 | 2 => {
                let theme = ends(&mut Choices(theme));
                let family = if theme.dst.is_ipv4() { Family::V4 } else { Family::V6 };
                Ends { src: at(Endpoint::Nic(ETH0), family), ..theme }
            }
            _ => ends(&mut Choices(theme)),
        };
        let ends = if outbound { ends } else { ends.back() };
        let frame = frame(&mut choices, ends);
        Self {
            outbound,
            nic,
            at_host_end,
            frame,
            wildcard: choices.below(2) == 1,
            pause: choices.of(&PAUSES),
            forwarded: choices.below(2) == 1,
            spoofed: choices.below(4) == 0,
        }
    }

    /// Brings time and facts of the step into the tables.
    pub const fn begin(&self, tables: &mut Tables) {
        tables.now += self.pause * SECOND;
        tables.seed = tables.seed.wrapping_add(1);
        tables.wildcard = self.wildcard;
        (tables.forwarded, tables.spoofed) = (self.forwarded, self.spoofed);
    }

    /// The program that sees it.
    pub const fn program(&self) -> Program {
        match (self.at_host_end, self.outbound) {
            (false, true) => Program::Egress,
            (false, false) => Program::Ingress,
            (true, true) => Program::HostIngress,
            (true, false) => Program::HostEgress,
        }
    }
}

fn frame(choices: &mut Choices, e: Ends) -> Frame {
    let id = e.sport.max(e.dport);
    let mut frame = match choices.below(16) {
        0..=3 => frames::tcp(e, choices.of(&FLAGS), b"payload"),
        4..=5 => frames::udp(e, b"payload"),
        6 => frames::echo(e, true, id, b"x"),
        7 => frames::echo(e, false, id, b"x"),
        8 if choices.below(2) == 0 => frames::icmp_error(e),
        8 => frames::icmp_error_about(e, &frames::udp(e.back(), b"payload")),
        9 => frames::fragment(frames::udp(e, &[7; 40]), choices.below(2) == 0),
        10 => frames::sctp(e, choices.below(2) == 0),
        11 => frames::udp(e, &[0; 1460]),
        12 => without_checksum(frames::udp(e, b"payload")),
        13 if e.src.is_ipv6() => frames::with_extension(frames::udp(e, b"payload")),
        14 => cut_short(frames::tcp(e, choices.of(&FLAGS), b""), choices.of(&[34, 37, 48, 54, 57, 62])),
        _ => neighbor(e),
    };
    frame.bytes[11] = choices.below(3) as u8;
    frame.for_other_host = choices.below(8) == 0;
    frame.not_linear = choices.below(2) == 0;
    frame.decided = choices.below(16) == 0;
    frame
}

/// UDP over IPv4 may go without; the field is the last but the payload.
fn without_checksum(mut frame: Frame) -> Frame {
    let at = frame.bytes.len() - b"payload".len() - 2;
    frame.bytes[at..at + 2].copy_from_slice(&[0, 0]);
    frame
}

fn cut_short(mut frame: Frame, len: usize) -> Frame {
    frame.bytes.truncate(len);
    frame
}

fn neighbor(e: Ends) -> Frame {
    match (e.src, e.dst) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => frames::arp(src.octets(), dst.octets()),
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            frames::solicitation(src.octets(), dst.octets())
        }
        _ => unreachable!("both ends are of one family"),
    }
}
