//! Much at once: a server that returns what it gets, TCP streams and datagrams of any size, and clients that check it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{GetStruct, SetStruct};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt, socket,
    sockopt,
};

use crate::namespaces::Namespaces;
use crate::poll;

/// The server's port.
pub const PORT: u16 = 8090;
/// Longer than any answer takes, and shorter than it takes TCP to give up.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the answer to a datagram may take: a lost one never comes.
const ANSWERED: Duration = Duration::from_secs(5);
/// How often a server looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// The longest datagram.
const LONGEST: usize = 65_507;

/// `IP_MTU_DISCOVER`.
#[derive(Clone, Copy)]
struct Ipv4Discovery;
/// `IPV6_MTU_DISCOVER`.
#[derive(Clone, Copy)]
struct Ipv6Discovery;
/// `IPV6_MTU`.
#[derive(Clone, Copy)]
struct Ipv6Mtu;
nix::setsockopt_impl!(
    Ipv4Discovery,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int,
    SetStruct<'_, libc::c_int>
);
nix::setsockopt_impl!(
    Ipv6Discovery,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int,
    SetStruct<'_, libc::c_int>
);
nix::getsockopt_impl!(Ipv6Mtu, libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::c_int, GetStruct<libc::c_int>);

/// `IPV6_HOPOPTS` and `IPV6_DSTOPTS`: a header of 8 bytes.
#[derive(Clone, Copy)]
struct HopByHop;
#[derive(Clone, Copy)]
struct DestinationOptions;
nix::setsockopt_impl!(HopByHop, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, [u8; 8], SetStruct<'_, [u8; 8]>);
nix::setsockopt_impl!(
    DestinationOptions,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    [u8; 8],
    SetStruct<'_, [u8; 8]>
);
/// Next header (the kernel's to fill in), length 0, an option that pads with 4 zeros.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct EchoServer {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl EchoServer {
    /// Listens on the wildcard address, by TCP and UDP.
    pub fn start(at: &Namespaces) -> Result<Self> {
        Self::start_at(at, Ipv6Addr::UNSPECIFIED.into())
    }

    /// Listens on one address.
    pub fn start_at(at: &Namespaces, address: IpAddr) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (ready, listening) = channel();
        let (stop, bound) = (Arc::clone(&over), ready.clone());
        let tcp = at.spawn(move || {
            let listener = TcpListener::bind((address, PORT))?;
            listener.set_nonblocking(true)?;
            bound.send(())?;
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    // One client's failure is that client's to report.
                    Ok((stream, _)) => drop(thread::spawn(move || return_stream(stream))),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK / 10),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        });
        let stop = Arc::clone(&over);
        let udp = at.spawn(move || {
            let socket = UdpSocket::bind((address, PORT))?;
            socket.set_read_timeout(Some(LOOK))?;
            ready.send(())?;
            let mut bytes = vec![0; LONGEST];
            while !stop.load(Ordering::Relaxed) {
                // What it cannot send is its client's to miss.
                if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    drop(socket.send_to(&bytes[..length], from));
                }
            }
            Ok(())
        });
        let server = Self { over, threads: vec![tcp, udp] };
        for _ in 0..2 {
            listening.recv().with_context(|| format!("no server in {}", at.name))?;
        }
        Ok(server)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("an echo server failed");
            }
        }
    }
}

fn return_stream(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(poll::scaled(LIMIT)))?;
    stream.set_write_timeout(Some(poll::scaled(LIMIT)))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(stream.write_all(&bytes)?)
}

fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// What cannot be mistaken for something else of the same length.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// Sends `length` bytes on a connection and gets them back.
pub fn stream(from: &Namespaces, bound: Option<IpAddr>, to: IpAddr, length: usize) -> Result<()> {
    from.run(|| {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(bound.unwrap_or(any(to)), 0)))?;
        let limit = nix::sys::time::TimeVal::new(LIMIT.as_secs() as i64, 0);
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, PORT))).context("connect")?;
        let mut stream = TcpStream::from(fd);
        let (sent, mut received) = (pattern(length), Vec::new());
        stream.write_all(&sent).context("the way there stalled")?;
        stream.shutdown(Shutdown::Write)?;
        stream
            .read_to_end(&mut received)
            .with_context(|| format!("stalled; {} came back", received.len()))?;
        ensure!(sent == received, "other bytes came back: {} of {length}", received.len());
        Ok(())
    })
}

/// A connected UDP socket.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    to: IpAddr,
}

impl Datagrams {
    /// Opens it, towards the server at `to`.
    pub fn open(from: &Namespaces, bound: Option<IpAddr>, to: IpAddr) -> Result<Self> {
        let socket = from.run(|| {
            let socket = UdpSocket::bind((bound.unwrap_or(any(to)), 0))?;
            socket.connect((to, PORT))?;
            socket.set_read_timeout(Some(poll::scaled(ANSWERED)))?;
            Ok(socket)
        })?;
        Ok(Self { socket, to })
    }

    /// Lets nothing be fragmented: the sender is told what is too long.
    pub fn forbid_fragments(&self) -> Result<()> {
        if self.to.is_ipv4() {
            setsockopt(&self.socket, Ipv4Discovery, &libc::IP_PMTUDISC_DO)?;
        } else {
            setsockopt(&self.socket, Ipv6Discovery, &libc::IPV6_PMTUDISC_DO)?;
        }
        Ok(())
    }

    /// Each packet has extension headers from now on (IPv6).
    pub fn add_extension_headers(&self) -> Result<()> {
        setsockopt(&self.socket, HopByHop, &PADDING)?;
        setsockopt(&self.socket, DestinationOptions, &PADDING)?;
        Ok(())
    }

    /// The path MTU as the kernel knows it.
    pub fn path_mtu(&self) -> Result<usize> {
        let mtu = if self.to.is_ipv4() {
            getsockopt(&self.socket, sockopt::IpMtu)?
        } else {
            getsockopt(&self.socket, Ipv6Mtu)?
        };
        Ok(usize::try_from(mtu)?)
    }

    /// Sends one and gets it back.
    pub fn exchange(&self, length: usize) -> Result<()> {
        let (sent, mut received) = (pattern(length), vec![0; LONGEST]);
        self.socket.send(&sent).context("send")?;
        loop {
            let length = self.socket.recv(&mut received).context("no answer")?;
            // One of another length was sent before, and its answer was late.
            if length == sent.len() {
                ensure!(sent == received[..length], "other bytes came back: {length}");
                return Ok(());
            }
        }
    }

    /// The length of a datagram that fills a packet.
    fn fits(&self, mtu: usize) -> usize {
        mtu - if self.to.is_ipv4() { 28 } else { 48 }
    }

    /// Sends datagrams that fill the path, as it is known, until one comes back; the path MTU then. Fails if one is lost without
    /// that the kernel was told of a smaller path MTU.
    pub fn discover(&self) -> Result<usize> {
        let mut known = self.path_mtu()?;
        // One for each hop that is smaller, and each error is heard by two calls.
        for _ in 0..8 {
            match self.exchange(self.fits(known)) {
                Ok(()) => return Ok(known),
                Err(error)
                    if error.root_cause().downcast_ref::<std::io::Error>().is_some_and(is_too_long) => {}
                Err(error) => {
                    return Err(error.context(format!("a packet of {known} bytes was lost in silence")));
                }
            }
            known = self.path_mtu()?;
        }
        bail!("the path MTU is {known} and nothing comes back")
    }

    /// The next error of the socket, by what somebody in the network has said about what it sent.
    pub fn refusal(&self, length: usize) -> Result<Errno> {
        self.socket.send(&pattern(length)).context("send")?;
        match self.socket.recv(&mut [0; 16]) {
            Ok(_) => bail!("it was answered"),
            Err(error) => {
                error.raw_os_error().map(Errno::from_raw).ok_or_else(|| anyhow!("no error number: {error}"))
            }
        }
    }
}

fn is_too_long(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}
