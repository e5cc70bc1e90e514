//! One pod with its node and the far ends of its NICs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    connect, sendmsg, setsockopt, socket, sockopt,
};
use spiderpool_ebpf_common::model::Frame;
use spiderpool_ebpf_common::model::pod::{self, ETH0, Endpoint, Family, NET1, SP0, at};

use super::topology::{GATEWAY, UPLINK, far_address};
use super::wire::{self, Header, Mac, Port, Seen};

/// For what takes microseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// By which way somebody sends to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Eth0,
    /// From this MAC.
    Net1(Mac),
    /// The node's own sockets, by the node link.
    Node,
    /// What the node forwards, by the node link.
    Forwarded,
}

impl Via {
    /// The NIC of the pod.
    pub(crate) const fn nic(self) -> &'static str {
        match self {
            Self::Eth0 => "eth0",
            Self::Net1(_) => "net1",
            Self::Node | Self::Forwarded => "sp0",
        }
    }
}

/// A packet that has left the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Left {
    pub(crate) nic: &'static str,
    pub(crate) next_hop: Mac,
    pub(crate) header: Header,
}

/// The same with its TCP sequence number, which no two pods have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Captured {
    pub(crate) left: Left,
    pub(crate) sequence: u32,
}

/// A datagram or echo reply that a socket of the pod got: at which binding, from whom.
pub(crate) type Received = (SocketAddr, SocketAddr);

/// A TCP connection of the pod, whose other end is no socket but this test.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// What the pod sends next.
    pub(crate) next: u32,
}

pub(crate) struct World {
    name: String,
    home: File,
    pod: File,
    ports: [(&'static str, Port); 3],
    uplink: Port,
    datagrams: BTreeMap<SocketAddr, UdpSocket>,
    pings: BTreeMap<SocketAddr, UdpSocket>,
    listeners: BTreeMap<SocketAddr, TcpListener>,
    round: u32,
    has_forwarded: bool,
    seen: Vec<Captured>,
}

fn namespace(name: &str) -> File {
    File::open(format!("/run/netns/{name}")).unwrap()
}

/// In a network namespace and back.
fn within<T>(home: &File, namespace: &File, f: impl FnOnce() -> T) -> T {
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    let result = f();
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
    result
}

impl World {
    /// The namespaces of this name are there.
    pub(crate) fn open(name: &str) -> Self {
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let far = namespace(&format!("{name}-far"));
        let node = namespace(&format!("{name}-node"));
        let (eth0, net1, uplink) =
            within(&home, &far, || (Port::open("cali0"), Port::open("u1"), Port::open("up1")));
        let sp0 = within(&home, &node, || Port::open("spnode"));
        Self {
            pod: namespace(&format!("{name}-pod")),
            name: name.to_owned(),
            home,
            ports: [("eth0", eth0), ("net1", net1), ("sp0", sp0)],
            uplink,
            datagrams: BTreeMap::new(),
            pings: BTreeMap::new(),
            listeners: BTreeMap::new(),
            round: 0,
            has_forwarded: false,
            seen: Vec::new(),
        }
    }

    pub(crate) fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        within(&self.home, &self.pod, f)
    }

    /// Somebody's packet comes in.
    pub(crate) fn inject(&mut self, via: Via, mut frame: Frame) {
        let (port, to, from) = match via {
            Via::Eth0 => (&self.ports[0].1, pod::mac(ETH0), pod::peer(ETH0)),
            Via::Net1(from) => (&self.ports[1].1, pod::mac(NET1), from),
            Via::Node => (&self.ports[2].1, pod::mac(SP0), pod::peer(SP0)),
            Via::Forwarded => (&self.uplink, UPLINK, GATEWAY),
        };
        self.has_forwarded |= via == Via::Forwarded;
        frame.bytes[..6].copy_from_slice(&to);
        frame.bytes[6..12].copy_from_slice(&from);
        port.send(&frame.bytes);
    }

    /// Until everything that was sent is done, and what it has caused is captured: each NIC answers an ARP request that came
    /// after it, and one more where the node has forwarded, which takes one queue more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..=u8::from(std::mem::take(&mut self.has_forwarded)) {
            self.round += 1;
            let [.., a, b, c] = self.round.to_be_bytes();
            let mac = [2, 0xba, 0, a, b, c];
            for (id, (nic, port)) in [ETH0, NET1, SP0].into_iter().zip(&self.ports) {
                let target = at(Endpoint::Nic(id), Family::V4);
                port.send(&wire::arp_request(mac, far_address(nic), pod::mac(id), target));
            }
            let deadline = Instant::now() + DEADLINE;
            let mut missing = vec!["eth0", "net1", "sp0"];
            while !missing.is_empty() {
                assert!(Instant::now() < deadline, "{}: no ARP reply by {missing:?}", self.name);
                for (nic, port) in &self.ports {
                    while let Some(seen) = port.receive() {
                        match seen {
                            Seen::ArpReply(to) if to == mac => missing.retain(|other| other != nic),
                            Seen::ArpReply(_) => {}
                            Seen::Packet { header, next_hop, sequence } => {
                                let left = Left { nic, next_hop, header };
                                self.seen.push(Captured { left, sequence });
                            }
                        }
                    }
                }
                while self.uplink.receive().is_some() {}
            }
        }
    }

    /// What has left the pod since the last call.
    pub(crate) fn take_seen(&mut self) -> Vec<Captured> {
        std::mem::take(&mut self.seen)
    }

    /// A UDP socket; with the unspecified address on the wildcard address.
    pub(crate) fn open_datagrams(&mut self, local: SocketAddr) {
        if !self.datagrams.contains_key(&local) {
            let fd = self.bound(SockType::Datagram, None, local).unwrap();
            self.datagrams.insert(local, UdpSocket::from(fd));
        }
    }

    pub(crate) fn listen(&mut self, local: SocketAddr) {
        let fd = self.bound(SockType::Stream, None, local).unwrap();
        nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(64).unwrap()).unwrap();
        self.listeners.insert(local, TcpListener::from(fd));
    }

    /// A socket for echo requests; its port is their identifier.
    pub(crate) fn open_ping(&mut self, local: SocketAddr) {
        if !self.pings.contains_key(&local) {
            let protocol = if local.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
            let fd = self.bound(SockType::Datagram, Some(protocol), local).unwrap();
            self.pings.insert(local, UdpSocket::from(fd));
        }
    }

    pub(crate) fn has_datagrams(&self, local: SocketAddr) -> bool {
        self.datagrams.contains_key(&local)
    }

    pub(crate) fn has_listener(&self, local: SocketAddr) -> bool {
        self.listeners.contains_key(&local)
    }

    /// All but these.
    pub(crate) fn close_datagrams(&mut self, keep: impl Fn(&SocketAddr) -> bool) {
        self.datagrams.retain(|local, _| keep(local));
        self.pings.clear();
    }

    fn bound(
        &self,
        kind: SockType,
        protocol: Option<SockProtocol>,
        local: SocketAddr,
    ) -> nix::Result<OwnedFd> {
        let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = self.within(|| socket(family, kind, flags, protocol))?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if !local.is_ipv4() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
        Ok(fd)
    }

    /// Sends by a UDP socket, from this address if one is given.
    pub(crate) fn send(&self, local: SocketAddr, source: Option<IpAddr>, to: SocketAddr) -> io::Result<()> {
        let fd = self.datagrams[&local].as_raw_fd();
        let (data, to) = ([IoSlice::new(b"answer")], SockaddrStorage::from(to));
        let flags = MsgFlags::empty();
        let sent = match source {
            None => sendmsg(fd, &data, &[], flags, Some(&to)),
            Some(IpAddr::V4(ip)) => {
                let spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: spec_dst, ipi_addr: spec_dst };
                sendmsg(fd, &data, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
            }
            Some(IpAddr::V6(ip)) => {
                let info =
                    libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                sendmsg(fd, &data, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
            }
        };
        sent.map(drop).map_err(io::Error::from)
    }

    /// An echo request.
    pub(crate) fn ping(&self, local: SocketAddr, to: IpAddr) -> io::Result<()> {
        let request = [if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4];
        self.pings[&local].send_to(&request, SocketAddr::new(to, 0)).map(drop)
    }

    /// What sockets have got since the last call.
    pub(crate) fn receive(&self) -> Vec<Received> {
        let mut received = Vec::new();
        let mut bytes = [0; 64];
        for (local, socket) in self.datagrams.iter().chain(&self.pings) {
            while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                received.push((*local, from));
            }
        }
        received
    }

    /// The connection that a listening socket has just got.
    pub(crate) fn accept(&self, local: SocketAddr) -> Option<TcpStream> {
        let (stream, _) = self.listeners[&local].accept().ok()?;
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Some(stream)
    }

    /// Begins a TCP connection.
    pub(crate) fn connect(&self, local: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
        let fd = self.bound(SockType::Stream, None, local)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The kernel forgets all flows, which only the pod with policy routing has.
    pub(crate) fn forget_flows(&self) {
        let flush = "flush set inet routing own4; flush set inet routing own6";
        self.within(|| {
            flush_conntrack();
            let output = Command::new("nft").arg(flush).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        });
    }
}

/// So that it ends with a RST.
pub(crate) fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream.as_fd(), sockopt::Linger, &linger).unwrap();
    drop(stream);
}

/// `IPCTNL_MSG_CT_DELETE` without a tuple (linux/netfilter/nfnetlink_conntrack.h).
fn flush_conntrack() {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter).unwrap();
    let mut request = 20u32.to_ne_bytes().to_vec();
    request.extend((1u16 << 8 | 2).to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16 | libc::NLM_F_ACK as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0; 4]);
    nix::unistd::write(&fd, &request).unwrap();
    let mut answer = [0u8; 256];
    let length = nix::unistd::read(&fd, &mut answer).unwrap();
    assert!(length >= 20 && answer[16..20] == [0; 4], "conntrack entries are not deleted: {answer:?}");
}
