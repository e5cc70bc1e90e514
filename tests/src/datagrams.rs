//! Numbered datagrams at a steady rate to a server that answers each: whoever loses one on the way is found.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespaces::Namespaces;
use crate::poll;
use crate::probe::PORT;

/// The pause between two datagrams, on a machine that is not emulated: one that is would lose some of so many.
const PAUSE: Duration = Duration::from_millis(2);

/// So many may wait for their answers: on an emulated machine, datagrams that are sent and not served would fill the server's
/// socket, and whoever else asks it waits for minutes.
const WINDOW: u64 = 32;

/// How long answers may take: a lost one never comes.
const ANSWERED: Duration = Duration::from_secs(10);
/// Room for the answers of some seconds in which this process does not run.
const BUFFER: usize = 16 << 20;

/// Datagrams of one socket, on their way.
#[derive(Debug)]
pub struct Datagrams {
    over: Arc<AtomicBool>,
    client: JoinHandle<Result<Counted>>,
}

/// What was sent, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams sent.
    pub sent: u64,
    /// Answers received.
    pub answered: u64,
}

impl Datagrams {
    /// Begins to send from a socket of `from` that is bound to an address, or to none, to the [`crate::probe::Server`] at `to`.
    /// The first datagram has been answered when this returns.
    pub fn start(from: &Namespaces, bound: Option<IpAddr>, to: IpAddr) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, (ready, begun)) = (Arc::clone(&over), channel());
        let client = from.spawn(move || {
            let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse()?;
            let socket = UdpSocket::bind(SocketAddr::new(bound.unwrap_or(any), 0))?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            socket.connect(SocketAddr::new(to, PORT))?;
            socket.set_read_timeout(Some(poll::scaled(ANSWERED)))?;
            // Meanwhile neighbors are resolved, and the flow is recorded where it needs to be.
            socket.send(&0_u64.to_be_bytes())?;
            socket.recv(&mut [0; 128]).with_context(|| format!("the first answer of {to}"))?;
            ready.send(())?;
            count(&socket, &stop)
        });
        if begun.recv().is_err() {
            client.join().map_err(|_| anyhow!("the client panicked"))??;
            bail!("the client ended before it began");
        }
        Ok(Self { over, client })
    }

    /// Ends it, and waits for the answers that are still on their way.
    pub fn finish(self) -> Result<Counted> {
        self.over.store(true, Ordering::Relaxed);
        self.client.join().map_err(|_| anyhow!("the client panicked"))?
    }
}

fn count(socket: &UdpSocket, over: &AtomicBool) -> Result<Counted> {
    socket.set_nonblocking(true)?;
    let mut counted = Counted { sent: 0, answered: 0 };
    while !over.load(Ordering::Relaxed) {
        if counted.sent < counted.answered + WINDOW {
            counted.sent += 1;
            socket.send(&counted.sent.to_be_bytes()).context("a datagram is refused")?;
        }
        take_answers(socket, &mut counted)?;
        thread::sleep(poll::scaled(PAUSE));
    }
    let until = Instant::now() + poll::scaled(ANSWERED);
    while counted.answered < counted.sent && Instant::now() < until {
        take_answers(socket, &mut counted)?;
        thread::sleep(poll::scaled(PAUSE));
    }
    Ok(counted)
}

fn take_answers(socket: &UdpSocket, counted: &mut Counted) -> Result<()> {
    loop {
        match socket.recv(&mut [0; 128]) {
            Ok(_) => counted.answered += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("an answer"),
        }
    }
}
