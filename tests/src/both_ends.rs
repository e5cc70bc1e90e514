//! A TCP connection whose both ends a test holds: they are used when the test says so.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::namespaces::Namespaces;
use crate::poll;

/// How long a connection, or a byte on it, may take: a lost segment is repeated several times meanwhile.
const LIMIT: Duration = Duration::from_secs(20);

/// An open connection.
#[derive(Debug)]
pub struct BothEnds {
    /// The end that has opened it.
    pub client: TcpStream,
    /// The other one.
    pub server: TcpStream,
}

impl BothEnds {
    /// Opens one from `from`, by a socket with this address and port, to `to`, which leads to the port `listening` of `at`.
    pub fn open(
        (from, own): (&Namespaces, SocketAddr),
        (at, listening): (&Namespaces, u16),
        to: SocketAddr,
    ) -> Result<Self> {
        let (ready, listens) = channel();
        let accepted = at.spawn(move || {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, listening))?;
            ready.send(())?;
            // With a deadline: a thread that waits for ever would hold the namespace of its pod.
            listener.set_nonblocking(true)?;
            let (stream, _) = poll::until("the connection", LIMIT, || Ok(listener.accept()?))?;
            stream.set_nonblocking(false)?;
            Ok(stream)
        });
        let client = if listens.recv().is_ok() { Some(from.run(move || connected(own, to))) } else { None };
        let server = accepted.join().map_err(|_| anyhow!("the server panicked"))?;
        let Some(client) = client else { bail!("no server in {}: {:?}", at.name, server.err()) };
        let (client, server) = (client?, server?);
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(poll::scaled(LIMIT)))?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { client, server })
    }

    /// A number there and another back.
    pub fn exchange(&self, number: u8) -> Result<()> {
        send(&self.client, &self.server, number)?;
        send(&self.server, &self.client, number)
    }

    /// The same, but the server is the first to send.
    pub fn exchange_from_server(&self, number: u8) -> Result<()> {
        send(&self.server, &self.client, number)?;
        send(&self.client, &self.server, number)
    }

    /// Address and port by which the server sees the client.
    pub fn seen(&self) -> Result<SocketAddr> {
        let seen = self.server.peer_addr()?;
        Ok(SocketAddr::new(IpAddr::to_canonical(&seen.ip()), seen.port()))
    }
}

fn connected(own: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(own))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("{own} to {to}"))?;
    Ok(TcpStream::from(fd))
}

fn send(mut from: &TcpStream, mut to: &TcpStream, number: u8) -> Result<()> {
    from.write_all(&[number]).context("cut")?;
    let mut bytes = [0];
    to.read_exact(&mut bytes).context("stalled")?;
    ensure!(bytes == [number], "another number came");
    Ok(())
}
