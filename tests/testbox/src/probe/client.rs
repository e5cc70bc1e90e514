//! The sending side: one request, one answer, one deadline.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, recv,
    send as send_bytes, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Answer, LIMIT, PORT, Protocol};

/// One request to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// How.
    pub protocol: Protocol,
    /// Where to.
    pub to: IpAddr,
    /// The address that the socket is bound to, if any.
    pub bound: Option<IpAddr>,
}

/// Sends a probe to where servers listen, and waits for its answer.
pub fn send(probe: Probe) -> Result<Answer> {
    send_to_port(probe, PORT)
}

/// As [`send`], to another port, which ping has none of.
pub fn send_to_port(probe: Probe, port: u16) -> Result<Answer> {
    match probe.protocol {
        Protocol::Tcp => tcp(probe, port),
        Protocol::Udp => udp(probe, port),
        Protocol::Ping => ping(probe),
    }
}

/// How many ports are tried.
const ATTEMPTS: usize = 16;

/// A port of the usual range for clients that no other probe of this process has. The kernel gives sockets with different
/// destinations the same; of a Service and its endpoint, the endpoint then sees one flow in place of two.
fn own_port() -> u16 {
    const RANGE: std::ops::Range<u16> = 32768..60999;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Not where the last process began: its connections may linger.
    let first = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.subsec_micros() as u16)
    };
    let number = NEXT.get_or_init(|| AtomicU16::new(first())).fetch_add(1, Ordering::Relaxed);
    RANGE.start + number % (RANGE.end - RANGE.start)
}

/// A connected socket with the deadline set; `connect` waits no longer than that.
fn connected(probe: Probe, kind: SockType, protocol: Option<SockProtocol>, port: u16) -> Result<OwnedFd> {
    let family = if probe.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    let limit = TimeVal::new(0, LIMIT.subsec_micros().into());
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    let address = |ip, port| SockaddrStorage::from(SocketAddr::new(ip, port));
    let any: IpAddr =
        if probe.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (own, ports) = (probe.bound.unwrap_or(any), kind == SockType::Stream || protocol.is_none());
    if ports {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    // Connections of others in this namespace have some.
    let mut bound = Err(Errno::EADDRINUSE);
    for _ in 0..ATTEMPTS {
        bound = bind(fd.as_raw_fd(), &address(own, if ports { own_port() } else { 0 }));
        if bound != Err(Errno::EADDRINUSE) {
            break;
        }
    }
    bound.with_context(|| format!("bind to {own}"))?;
    connect(fd.as_raw_fd(), &address(probe.to, port)).map_err(|error| match error {
        // What Linux says when SO_SNDTIMEO ends a blocking connect.
        Errno::EINPROGRESS => anyhow!("no answer to the connection request"),
        error => anyhow!("connect: {error}"),
    })?;
    Ok(fd)
}

fn tcp(probe: Probe, port: u16) -> Result<Answer> {
    let mut stream = TcpStream::from(connected(probe, SockType::Stream, None, port)?);
    stream.write_all(b"who?")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("connected, no answer")?;
    parse(&text, stream.local_addr()?.port())
}

/// Connected, so that an answer from another address than the one asked does not count.
fn udp(probe: Probe, port: u16) -> Result<Answer> {
    let socket = UdpSocket::from(connected(probe, SockType::Datagram, None, port)?);
    socket.send(b"who?")?;
    let mut text = [0; 128];
    let length = socket.recv(&mut text).context("no answer")?;
    parse(&String::from_utf8_lossy(&text[..length]), socket.local_addr()?.port())
}

fn parse(text: &str, own_port: u16) -> Result<Answer> {
    let mut words = text.splitn(3, ' ');
    let mut word = || words.next().with_context(|| format!("answer {text:?}"));
    let (seen, seen_port, server) = (word()?.parse()?, word()?.parse()?, word()?.to_owned());
    Ok(Answer { seen: Some(seen), seen_port, own_port, server })
}

/// By a ping socket: the kernel chooses the identifier and computes the checksum.
fn ping(probe: Probe) -> Result<Answer> {
    static NUMBER: AtomicU16 = AtomicU16::new(1);
    let (protocol, request, reply) =
        if probe.to.is_ipv4() { (SockProtocol::Icmp, 8, 0) } else { (SockProtocol::IcmpV6, 128, 129) };
    let fd = connected(probe, SockType::Datagram, Some(protocol), 0)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut packet = [0; 64];
    packet[0] = request;
    packet[7] = 1;
    packet[8..10].copy_from_slice(&number.to_be_bytes());
    send_bytes(fd.as_raw_fd(), &packet, MsgFlags::empty())?;
    let length = recv(fd.as_raw_fd(), &mut packet, MsgFlags::empty()).context("no echo reply")?;
    ensure!(length >= 8 && packet[0] == reply, "not an echo reply: type {}", packet[0]);
    Ok(Answer { seen: None, seen_port: number, own_port: number, server: String::new() })
}
