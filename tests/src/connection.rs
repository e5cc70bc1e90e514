//! A TCP connection that is used all the time, to show that what happens meanwhile does not cut or stall it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::namespaces::Namespaces;
use crate::poll;

/// The pause between two exchanges.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a connection may take to be set up.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// An exchange that takes longer is a failure: TCP repeats a lost segment after 0.2 s, then 0.4, 0.8 and 1.6 s, and a busy machine
/// may do nothing for seconds.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// A connection under way.
#[derive(Debug)]
pub struct Connection {
    over: Arc<AtomicBool>,
    client: JoinHandle<Result<Summary>>,
    server: JoinHandle<Result<()>>,
}

/// What happened on the connection.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Completed exchanges.
    pub exchanges: u64,
    /// The slowest of them.
    pub slowest: Duration,
}

impl Connection {
    /// Connects `from` with a server in `at`, which is reached by `address`. It listens on a port of its own, so `port`
    /// must be free there.
    pub fn start(from: &Namespaces, at: &Namespaces, address: IpAddr, port: u16) -> Result<Self> {
        let (ready, listening) = channel();
        let server = at.spawn(move || {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
            ready.send(())?;
            // With a deadline: a thread that waits for ever would hold the namespace of its pod.
            listener.set_nonblocking(true)?;
            let (mut stream, _) =
                poll::until("the client's connection", CONNECT_LIMIT * 2, || Ok(listener.accept()?))?;
            stream.set_nonblocking(false)?;
            let mut number = [0; 8];
            // The connection ends when the client closes it.
            while stream.read_exact(&mut number).is_ok() {
                stream.write_all(&number)?;
            }
            Ok(())
        });
        listening.recv().with_context(|| format!("no server in {}", at.name))?;
        let over = Arc::new(AtomicBool::new(false));
        let (stop, (ready, connected)) = (Arc::clone(&over), channel());
        let client = from.spawn(move || {
            let mut stream =
                TcpStream::connect_timeout(&SocketAddr::new(address, port), poll::scaled(CONNECT_LIMIT))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(poll::scaled(STALL_LIMIT)))?;
            ready.send(())?;
            talk(&mut stream, &stop)
        });
        if connected.recv().is_err() {
            client.join().map_err(|_| anyhow!("the client panicked"))?.context("connect")?;
            bail!("the client ended before it was connected");
        }
        Ok(Self { over, client, server })
    }

    /// Ends it; fails if it was cut or stalled.
    pub fn finish(self) -> Result<Summary> {
        self.over.store(true, Ordering::Relaxed);
        let summary = self.client.join().map_err(|_| anyhow!("the client panicked"))??;
        self.server.join().map_err(|_| anyhow!("the server panicked"))??;
        Ok(summary)
    }
}

fn talk(stream: &mut TcpStream, stop: &AtomicBool) -> Result<Summary> {
    let mut summary = Summary { exchanges: 0, slowest: Duration::ZERO };
    loop {
        let begun = Instant::now();
        let (sent, mut received) = (summary.exchanges.to_be_bytes(), [0; 8]);
        let stage = |what| move || format!("{what} after {} exchanges", summary.exchanges);
        stream.write_all(&sent).with_context(stage("cut"))?;
        stream.read_exact(&mut received).with_context(stage("stalled"))?;
        ensure!(sent == received, "another number came back");
        summary.exchanges += 1;
        summary.slowest = summary.slowest.max(begun.elapsed());
        // One exchange at least: a connection alone proves nothing about what comes after it.
        if stop.load(Ordering::Relaxed) {
            return Ok(summary);
        }
        thread::sleep(poll::scaled(PAUSE));
    }
}
