//! Which NIC a packet left or came in by: a packet socket over all NICs of a namespace, in place of a guess from counters.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::net::if_::if_indextoname;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::unistd::pipe2;

use crate::namespaces::Namespaces;
use crate::probe::Protocol;

/// `PACKET_HOST` of linux/if_packet.h.
const HOST: u8 = 0;
/// `PACKET_OUTGOING` there.
const OUTGOING: u8 = 4;
/// Protocol numbers of IP.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// For what comes while the capture waits for a processor: what does not fit is lost.
const BUFFER: usize = 16 << 20;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    stop: OwnedFd,
    thread: JoinHandle<Result<BTreeSet<Packet>>>,
}

/// Which way a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// To this namespace's addresses.
    In,
    /// From here, whoever sent it.
    Out,
}

/// A packet that left the namespace or came in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Which way.
    pub direction: Direction,
    /// By this NIC.
    pub nic: String,
    /// What it is; none for what probes do not send.
    pub protocol: Option<Protocol>,
    /// With this source address.
    pub source: IpAddr,
    /// To this address.
    pub destination: IpAddr,
    /// The ports, source first; for ping twice the number at the head of its data.
    pub ports: (u16, u16),
}

impl Capture {
    /// Sees every IP packet that leaves `namespaces` or comes in from now on.
    pub fn start(namespaces: &Namespaces) -> Result<Self> {
        // Not for children: the end must be closed when this process closes it.
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC)?;
        let (ready, opened) = channel();
        let thread = namespaces.spawn(move || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            // A datagram packet socket: packets begin with the IP header on every kind of link.
            let packets = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
            setsockopt(&packets, sockopt::RcvBufForce, &BUFFER)?;
            ready.send(())?;
            let mut seen = BTreeSet::new();
            loop {
                let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
                let mut watched = [watch(packets.as_fd()), watch(stopped.as_fd())];
                poll(&mut watched, PollTimeout::NONE)?;
                drain(&packets, &mut seen)?;
                if watched[1].any().unwrap_or(true) {
                    return Ok(seen);
                }
            }
        });
        opened.recv().context("the capture did not start")?;
        Ok(Self { stop, thread })
    }

    /// Ends the capture; the distinct packets.
    pub fn finish(self) -> Result<BTreeSet<Packet>> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the capture panicked"))?
    }
}

fn drain(packets: &OwnedFd, seen: &mut BTreeSet<Packet>) -> Result<()> {
    let mut packet = [0; 96];
    loop {
        let (length, from) = match recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut packet) {
            Ok((length, Some(from))) => (length, from),
            Ok((_, None)) => continue,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let direction = match from.pkttype() {
            OUTGOING => Direction::Out,
            HOST => Direction::In,
            _ => continue,
        };
        if let Some(header) = parse(&packet[..length.min(packet.len())]) {
            let index = u32::try_from(from.ifindex())?;
            let nic = if_indextoname(index).context("a NIC without name")?.to_string_lossy().into_owned();
            seen.insert(Packet { direction, nic, ..header });
        }
    }
}

/// What the headers say; NIC and direction they do not know.
fn parse(packet: &[u8]) -> Option<Packet> {
    let v4 = |at: usize| packet.get(at..at + 4)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes));
    let v6 = |at: usize| packet.get(at..at + 16)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes));
    let (source, destination, protocol, length) = match packet.first()? >> 4 {
        4 => (v4(12)?, v4(16)?, *packet.get(9)?, usize::from(packet[0] & 0xf) * 4),
        6 => (v6(8)?, v6(24)?, *packet.get(6)?, 40),
        _ => return None,
    };
    let word =
        |at: usize| packet.get(length + at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes));
    let is_echo = |kinds: [u8; 2]| packet.get(length).is_some_and(|kind| kinds.contains(kind));
    let (protocol, ports) = match protocol {
        TCP => (Some(Protocol::Tcp), (word(0)?, word(2)?)),
        UDP => (Some(Protocol::Udp), (word(0)?, word(2)?)),
        ICMP if is_echo([8, 0]) => (Some(Protocol::Ping), (word(8)?, word(8)?)),
        ICMPV6 if is_echo([128, 129]) => (Some(Protocol::Ping), (word(8)?, word(8)?)),
        _ => (None, (0, 0)),
    };
    Some(Packet { direction: Direction::In, nic: String::new(), protocol, source, destination, ports })
}
