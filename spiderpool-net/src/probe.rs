//! Asks a link by ARP and NDP, beside the kernel's own: of an address that the kernel does not have yet, and without leaving
//! anything in its neighbor table.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use spiderpool_core::detection::{Cast, Heard, Packet, Probing, Query, Timing, Turn};
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use thiserror::Error;

/// The longest packet that is looked at: neighbor discovery with its options, on any link.
const LONGEST: usize = 1500;

/// A link could not be asked.
#[derive(Debug, Error)]
#[error("ask link {index} who has {}: {source}", list(targets))]
pub struct ProbeError {
    /// The link.
    pub index: u32,
    /// The addresses.
    pub targets: Vec<IpAddr>,
    /// Why.
    pub source: io::Error,
}

fn list(targets: &[IpAddr]) -> String {
    targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Asks a link of the calling thread's namespace, in the name of its MAC. It must be up. Blocks until everything is
/// answered, or nobody has answered for so long.
pub fn ask(
    index: u32,
    mac: MacAddr,
    queries: Vec<Query>,
    timing: Timing,
) -> Result<Vec<(Query, Option<MacAddr>)>, ProbeError> {
    let targets = queries.iter().map(Query::target).collect();
    run(index, mac, queries, timing).map_err(|source| ProbeError { index, targets, source })
}

fn run(
    index: u32,
    mac: MacAddr,
    queries: Vec<Query>,
    timing: Timing,
) -> io::Result<Vec<(Query, Option<MacAddr>)>> {
    let families: Vec<_> = Family::ALL
        .into_iter()
        .filter(|family| queries.iter().any(|query| Family::of(query.target()) == *family))
        .collect();
    let sockets = families.into_iter().map(|family| PacketSocket::open(index, family));
    let sockets: Vec<_> = sockets.collect::<Result<_, _>>()?;
    let mut probing = Probing::new(mac, queries, timing);
    loop {
        match probing.turn(Instant::now()) {
            Turn::Over => return Ok(probing.into_answers()),
            Turn::Send(packets) => {
                for packet in &packets {
                    for socket in sockets.iter().filter(|socket| socket.family == packet.family) {
                        socket.send(packet)?;
                    }
                }
            }
            Turn::Listen(limit) => listen(&sockets, limit, &mut probing)?,
        }
    }
}

/// Until something has come in, or the time is over.
fn listen(sockets: &[PacketSocket], limit: Duration, probing: &mut Probing) -> io::Result<()> {
    let mut polled: Vec<_> =
        sockets.iter().map(|socket| PollFd::new(socket.fd.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded up: with 0 this would not sleep.
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
    match poll(&mut polled, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    for socket in sockets {
        socket.receive(probing)?;
    }
    Ok(())
}

/// Sends and receives one protocol on one link. The kernel writes and reads the Ethernet headers.
struct PacketSocket {
    fd: OwnedFd,
    index: u32,
    family: Family,
}

impl PacketSocket {
    fn open(index: u32, family: Family) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol it receives nothing, from no link, until it is bound.
        let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, None::<SockProtocol>)?;
        let socket = Self { fd, index, family };
        if family == Family::V6 {
            socket.receive_neighbor_discovery_alone()?;
            socket.receive_all_groups()?;
        }
        let address = socket.address(MacAddr([0; 6]));
        // SAFETY: the address is a sockaddr_ll that outlives the call, and its length is given.
        let bound = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
    }

    fn protocol(&self) -> u16 {
        match self.family {
            Family::V4 => libc::ETH_P_ARP as u16,
            Family::V6 => libc::ETH_P_IPV6 as u16,
        }
    }

    fn address(&self, mac: MacAddr) -> libc::sockaddr_ll {
        // SAFETY: sockaddr_ll is a plain C struct for which all zeroes is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.protocol().to_be();
        address.sll_ifindex = self.index as i32;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&mac.0);
        address
    }

    /// ICMPv6 of the types 135 and 136, by a filter in the kernel: a NIC that is up may have a lot of other traffic, which
    /// would fill the buffer.
    fn receive_neighbor_discovery_alone(&self) -> io::Result<()> {
        const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
        const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        const NEXT_HEADER: u32 = 6;
        const TYPE: u32 = 40;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut program = [
            step(LOAD_BYTE, 0, 0, NEXT_HEADER),
            step(IF_EQUAL, 0, 4, libc::IPPROTO_ICMPV6 as u32),
            step(LOAD_BYTE, 0, 0, TYPE),
            step(IF_EQUAL, 1, 0, 135),
            step(IF_EQUAL, 0, 1, 136),
            step(RETURN, 0, 0, u32::MAX),
            step(RETURN, 0, 0, 0),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    /// What is for groups that the kernel has not joined on this NIC, too: that of an address which it does not have.
    fn receive_all_groups(&self) -> io::Result<()> {
        let membership = libc::packet_mreq {
            mr_ifindex: self.index as i32,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        // SAFETY: the value is the option's struct, outlives the call, as what it points to does, and its length is given.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn send(&self, packet: &Packet) -> io::Result<()> {
        let to = self.address(packet.to);
        // SAFETY: the packet and the address outlive the call, and their lengths are given.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.bytes.as_ptr().cast(),
                packet.bytes.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Everything that has come in.
    fn receive(&self, probing: &mut Probing) -> io::Result<()> {
        let mut bytes = [0u8; LONGEST];
        loop {
            let mut from = self.address(MacAddr([0; 6]));
            let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: buffer and address outlive the call, and their lengths are given.
            let received = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    bytes.as_mut_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            let Ok(received) = usize::try_from(received) else {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                }
            };
            let cast = match from.sll_pkttype {
                libc::PACKET_HOST => Cast::Unicast,
                libc::PACKET_BROADCAST | libc::PACKET_MULTICAST => Cast::Many,
                // For another machine, or in a VLAN that this link is not in: the kernel has taken the tag off
                // (`check_vlan_id` of `__netif_receive_skb_core()` in net/core/dev.c). VLAN 0 is no VLAN.
                _ => continue,
            };
            let mac = from.sll_addr.first_chunk().copied().map(MacAddr);
            if let Some(mac) = mac {
                let family = self.family;
                probing.hear(&Heard { family, from: mac, cast, bytes: &bytes[..received] });
            }
        }
    }
}
