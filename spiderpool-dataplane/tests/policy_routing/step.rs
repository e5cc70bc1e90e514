//! What happens, at random: numbers become steps, which meet on few addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use spiderpool_ebpf_common::model::pod::{ETH0, Endpoint, Family, NET1, at};

use super::topology::{FAMILIES, GATEWAY, NEIGHBOR, NODE, OTHER_NODE, hijacked};
use super::world::Via;

/// Ports of servers, by what they are bound to: a NIC's address, or none.
pub(crate) const SERVERS: [(u16, Option<u16>); 5] =
    [(5000, None), (5001, Some(NET1)), (5002, Some(ETH0)), (45_000, None), (45_001, Some(NET1))];
/// Nobody listens.
const CLOSED: u16 = 9;
/// Ports of the pod's clients that are bound to an address; two of them may have the same.
const CLIENTS: [u16; 2] = [33_001, 33_002];
/// Ports of those that are not: whose address they get depends on route hints.
const UNBOUND_CLIENTS: [u16; 2] = [33_011, 33_012];
/// Ports of the other side: a server's, and a client's.
const REMOTE_PORTS: [u16; 2] = [53, 40_000];
/// Identifiers of echo requests.
const IDENTIFIERS: [u16; 2] = [101, 102];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Echo,
}

/// What becomes of an open TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The pod sends a byte.
    Push,
    /// The other side ends it with a RST.
    PeerResets,
    PodResets,
    /// The pod ends it with a FIN, and the other side too.
    PodCloses,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Somebody calls an address of the pod, and a socket or the kernel answers. Of an open TCP connection it is the next turn.
    Call { protocol: Protocol, via: Via, from: SocketAddr, to: SocketAddr, turn: Turn },
    /// A UDP socket of the pod sends, and may be answered.
    Send { from: SocketAddr, to: SocketAddr, answered: bool },
    /// The pod sends an echo request.
    Ping { from: SocketAddr, to: IpAddr },
    /// The pod begins a TCP connection, or it is the next turn of one.
    Connect { from: SocketAddr, to: SocketAddr, turn: Turn },
    /// All flows have expired: the maps' entries are old, or the agent has removed them.
    Expire { removed: bool },
}

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

pub(crate) const fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// What a socket is bound to.
pub(crate) fn binding(nic: Option<u16>, port: u16, family: Family) -> SocketAddr {
    let ip = nic.map_or(wildcard(family), |nic| at(Endpoint::Nic(nic), family));
    SocketAddr::new(ip, port)
}

impl Step {
    /// The step that a number stands for. Most are of one family and with one other side, the theme's.
    pub(crate) fn from_number(theme: u64, number: u64) -> Self {
        let mut theme = Choices(theme);
        let c = &mut Choices(number);
        let own_theme = c.below(4) != 0;
        let other_side =
            |from: &mut Choices, places: &[IpAddr]| SocketAddr::new(from.of(places), from.of(&REMOTE_PORTS));
        let theme_family = theme.of(&FAMILIES);
        let family = if own_theme { theme_family } else { c.of(&FAMILIES) };
        let place = |endpoint| at(endpoint, family);
        let (overlay, outside, neighbor) =
            (place(Endpoint::OverlayPod), place(Endpoint::Outside), place(Endpoint::Neighbor));
        let everybody =
            [overlay, outside, neighbor, hijacked(family), place(Endpoint::Node), place(Endpoint::Service)];
        let themes = other_side(&mut theme, &everybody);
        let turn = c.of(&[Turn::Push, Turn::Push, Turn::PeerResets, Turn::PodResets, Turn::PodCloses]);
        match c.below(16) {
            0 => Self::Expire { removed: c.below(2) == 0 },
            1..=8 => {
                let protocol = c.of(&[Protocol::Tcp, Protocol::Udp, Protocol::Udp, Protocol::Echo]);
                let (via, places): (_, &[IpAddr]) = match c.below(8) {
                    0 | 1 => (Via::Eth0, &[overlay, outside, neighbor, everybody[4]]),
                    2 => (Via::Node, &[everybody[4]]),
                    3 => (Via::Forwarded, &[overlay, outside, neighbor, everybody[3]]),
                    _ => (Via::Net1(GATEWAY), &everybody),
                };
                let from = other_side(c, places);
                let from = if own_theme && places.contains(&themes.ip()) { themes } else { from };
                let via = match via {
                    Via::Net1(_) if from.ip() == neighbor => Via::Net1(NEIGHBOR),
                    Via::Net1(_) if from.ip() == everybody[4] => Via::Net1(NODE),
                    Via::Net1(_) => Via::Net1(c.of(&[GATEWAY, OTHER_NODE])),
                    via => via,
                };
                let called = match via {
                    Via::Eth0 => ETH0,
                    Via::Net1(_) if c.below(16) == 0 => ETH0,
                    _ => NET1,
                };
                let (from, port) = match protocol {
                    Protocol::Echo => (SocketAddr::new(from.ip(), c.of(&IDENTIFIERS)), 0),
                    // A stray SYN for a connection of the pod's own is answered by the connection.
                    Protocol::Tcp => (from, c.of(&[CLOSED, 5000, 5001, 5002, 45_000, 45_001])),
                    Protocol::Udp => (
                        from,
                        c.of(&[CLOSED, 5000, 5000, 5001, 5002, 45_000, 45_001, CLIENTS[0], CLIENTS[1]]),
                    ),
                };
                Self::Call {
                    protocol,
                    via,
                    from,
                    to: SocketAddr::new(place(Endpoint::Nic(called)), port),
                    turn,
                }
            }
            kind => {
                let to = other_side(c, &everybody);
                let to = if own_theme { themes } else { to };
                let source = c.of(&[None, Some(ETH0), Some(NET1), Some(NET1)]);
                let client =
                    binding(source, c.of(if source.is_some() { &CLIENTS } else { &UNBOUND_CLIENTS }), family);
                match kind {
                    9 | 10 => {
                        let (port, nic) = c.of(&SERVERS);
                        Self::Send { from: binding(nic, port, family), to, answered: c.below(2) == 0 }
                    }
                    11 | 12 => Self::Send { from: client, to, answered: c.below(2) == 0 },
                    13 => {
                        // Two pings with one identifier, one of them translated: a limit that is documented.
                        let id = c.of(&IDENTIFIERS) + 10 * source.unwrap_or_default();
                        Self::Ping { from: binding(source, id, family), to: to.ip() }
                    }
                    _ => Self::Connect { from: client, to, turn },
                }
            }
        }
    }
}
