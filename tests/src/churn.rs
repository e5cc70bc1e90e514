//! Short connections, one after the other, from a few source ports that are used again and again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::namespaces::Namespaces;
use crate::poll;

/// The server's port.
pub const PORT: u16 = 8091;
/// Longer than a lost segment takes to be repeated twice; a connection that lost its first one is no failure of this kind.
const LIMIT: TimeVal = TimeVal::new(5, 0);
/// Threads of the server and of a client.
const AT_ONCE: u16 = 4;
/// How often a port is asked for again that the client's own kernel still holds.
const ATTEMPTS: usize = 2000;

/// How long a socket may take until it asks.
const ASKS: Duration = Duration::from_secs(20);

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server closes it first, and keeps the port in TIME_WAIT.
    ByServer = b'S' as isize,
    /// The client resets it.
    Reset = b'R' as isize,
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct ChurnServer {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl ChurnServer {
    /// Listens on the wildcard address.
    pub fn start(at: &Namespaces) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (ready, listening) = channel();
        let stop = Arc::clone(&over);
        let first = at.spawn(move || {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
            listener.set_nonblocking(true)?;
            let workers: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    let (listener, stop) = (listener.try_clone()?, Arc::clone(&stop));
                    Ok(thread::spawn(move || serve(&listener, &stop)))
                })
                .collect::<Result<_>>()?;
            ready.send(())?;
            for worker in workers {
                worker.join().map_err(|_| anyhow!("a worker panicked"))?;
            }
            Ok(())
        });
        listening.recv().with_context(|| format!("no server in {}", at.name))?;
        Ok(Self { over, threads: vec![first] })
    }
}

impl Drop for ChurnServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                eprintln!("a server failed");
            }
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // One client's failure is that client's to report.
            Ok((stream, _)) => drop(answer(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_micros(100)),
            Err(_) => {}
        }
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut how = [0];
    stream.read_exact(&mut how)?;
    stream.write_all(&how)?;
    if how == [End::Reset as u8] {
        drop(stream.read(&mut how));
    }
    Ok(())
}

/// Makes `count` connections from `source` and these ports; fails at the first that fails.
pub fn connect_often(
    from: &Namespaces,
    source: IpAddr,
    ports: Range<u16>,
    to: IpAddr,
    count: usize,
) -> Result<()> {
    let each = (ports.end - ports.start) / AT_ONCE;
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let first = ports.start + number * each;
            let ports: Vec<u16> = (first..first + each).collect();
            from.spawn(move || {
                for (turn, port) in (0..count / usize::from(AT_ONCE)).zip(ports.into_iter().cycle()) {
                    let end = if turn % 3 == 2 { End::Reset } else { End::ByServer };
                    once(SocketAddr::new(source, port), SocketAddr::new(to, PORT), end)
                        .with_context(|| format!("connection {turn} from port {port}, {end:?}"))?;
                }
                Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow!("a client panicked"))??;
    }
    Ok(())
}

/// A connected socket. While the client's own kernel still has the last connection of the port, it asks again.
fn connected(from: SocketAddr, to: SocketAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    for _ in 0..ATTEMPTS {
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::SendTimeout, &LIMIT)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &LIMIT)?;
        let bound = bind(fd.as_raw_fd(), &SockaddrStorage::from(from));
        match bound.and_then(|()| connect(fd.as_raw_fd(), &SockaddrStorage::from(to))) {
            Ok(()) => return Ok(fd),
            Err(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => thread::sleep(Duration::from_millis(1)),
            Err(error) => bail!("connect: {error}"),
        }
    }
    bail!("the port stays in use")
}

fn once(from: SocketAddr, to: SocketAddr, end: End) -> Result<()> {
    let mut stream = TcpStream::from(connected(from, to)?);
    let mut answer = [0];
    stream.write_all(&[end as u8]).context("write")?;
    stream.read_exact(&mut answer).context("no answer")?;
    match end {
        End::ByServer => ensure!(stream.read(&mut answer).context("no end")? == 0, "more came"),
        End::Reset => setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?,
    }
    Ok(())
}

/// Both ends open one connection at once, on a way that lets no SYN through until `open_way` is called: then `other`, which
/// has asked first, repeats its SYN first, and finds `one` asking. `seen` is what `one` is for the other.
pub fn open_at_once(
    one: (&Namespaces, SocketAddr),
    other: (&Namespaces, SocketAddr),
    seen: SocketAddr,
    open_way: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut dialers = Vec::new();
    for (from, to) in [(other, seen), (one, other.1)] {
        dialers.push(dial(from, to));
        poll::until(&format!("a socket that asks {to}"), ASKS, || {
            let asking = ["-Htn", "state", "syn-sent", "dst", &to.to_string()];
            ensure!(!from.0.output("ss", &asking)?.is_empty(), "there is none");
            Ok(())
        })?;
    }
    open_way()?;
    for dialer in dialers {
        dialer.join().map_err(|_| anyhow!("a dialer panicked"))??;
    }
    Ok(())
}

/// Asks, and exchanges a byte.
fn dial((at, from): (&Namespaces, SocketAddr), to: SocketAddr) -> JoinHandle<Result<()>> {
    at.spawn(move || {
        let mut stream = TcpStream::from(connected(from, to).with_context(|| format!("{from} to {to}"))?);
        let mut byte = [0];
        stream.write_all(b"x")?;
        stream.read_exact(&mut byte).with_context(|| format!("{from} to {to}: opened, and nothing comes"))?;
        // Until the other one has read too.
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    })
}
