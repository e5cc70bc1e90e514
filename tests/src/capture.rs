//! Which NIC a packet left by: a packet socket over all NICs of a namespace, in place of a guess from counters.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};
use nix::unistd::pipe;

use crate::namespaces::Namespaces;

/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u8 = 4;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    stop: OwnedFd,
    thread: JoinHandle<Result<BTreeSet<SentPacket>>>,
}

/// A packet that left the namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SentPacket {
    /// By this NIC.
    pub nic: String,
    /// With this source address.
    pub source: IpAddr,
    /// To this address.
    pub destination: IpAddr,
}

impl Capture {
    /// Sees every IP packet that leaves `namespaces` from now on.
    pub fn start(namespaces: &Namespaces) -> Result<Self> {
        let (stopped, stop) = pipe()?;
        let (ready, opened) = channel();
        let thread = namespaces.spawn(move || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            // A datagram packet socket: packets begin with the IP header on every kind of link.
            let packets = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
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

    /// Ends the capture; the distinct packets that left.
    pub fn finish(self) -> Result<BTreeSet<SentPacket>> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the capture panicked"))?
    }
}

fn drain(packets: &OwnedFd, seen: &mut BTreeSet<SentPacket>) -> Result<()> {
    let mut packet = [0; 64];
    loop {
        let (length, from) = match recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut packet) {
            Ok((length, Some(from))) => (length, from),
            Ok((_, None)) => continue,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if from.pkttype() != OUTGOING {
            continue;
        }
        if let Some((source, destination)) = addresses(&packet[..length.min(64)]) {
            let index = u32::try_from(from.ifindex())?;
            let nic = if_indextoname(index).context("a NIC without name")?.to_string_lossy().into_owned();
            seen.insert(SentPacket { nic, source, destination });
        }
    }
}

/// Source and destination of an IP header.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| packet.get(at..at + 4)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes));
    let v6 = |at: usize| packet.get(at..at + 16)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes));
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}
