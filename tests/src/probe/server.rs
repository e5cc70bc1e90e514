//! Tells each client by which address it came, by TCP and UDP.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe;

use super::{LIMIT, PORT};
use crate::place::Place;

/// A running server; dropping it stops it, so that its thread does not hold the namespace.
#[derive(Debug)]
pub struct Server {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Listens on the wildcard address of both families: the kernel chooses by which address a datagram is answered.
    pub fn start(place: &Place) -> Result<Self> {
        Self::start_at(place, &[Ipv6Addr::UNSPECIFIED.into()])
    }

    /// Listens on `addresses` once this returns.
    pub fn start_at(place: &Place, addresses: &[IpAddr]) -> Result<Self> {
        let (stopped, stop) = pipe()?;
        let (ready, listening) = channel();
        let (name, addresses) = (place.name.clone(), addresses.to_owned());
        let thread = place.spawn(move || {
            let sockets = addresses
                .iter()
                .map(|address| Ok((TcpListener::bind((*address, PORT))?, UdpSocket::bind((*address, PORT))?)))
                .collect::<Result<Vec<_>>>()?;
            ready.send(())?;
            serve(&name, &sockets, &stopped)
        });
        if listening.recv().is_err() {
            thread.join().map_err(|_| anyhow!("the server panicked"))??;
            bail!("the server ended before it listened");
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            eprintln!("a server failed");
        }
    }
}

fn serve(name: &str, sockets: &[(TcpListener, UdpSocket)], stopped: &OwnedFd) -> Result<()> {
    loop {
        let descriptors = sockets.iter().flat_map(|(tcp, udp)| [tcp.as_fd(), udp.as_fd()]);
        let mut watched: Vec<PollFd> =
            descriptors.chain([stopped.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut watched, PollTimeout::NONE)?;
        let ready: Vec<bool> = watched.iter().map(|socket| socket.any().unwrap_or(true)).collect();
        if ready.last() == Some(&true) {
            return Ok(());
        }
        for ((tcp, udp), ready) in sockets.iter().zip(ready.chunks(2)) {
            // One client's failure is that client's to report.
            if ready[0] {
                drop(answer_connection(tcp, name));
            }
            if ready[1] {
                drop(answer_datagram(udp, name));
            }
        }
    }
}

fn answer_connection(tcp: &TcpListener, name: &str) -> Result<()> {
    let (mut stream, peer) = tcp.accept()?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).context("request")?;
    stream.write_all(format!("{} {name}", peer.ip().to_canonical()).as_bytes())?;
    Ok(())
}

fn answer_datagram(udp: &UdpSocket, name: &str) -> Result<()> {
    let (_, peer) = udp.recv_from(&mut [0; 16])?;
    udp.send_to(format!("{} {name}", peer.ip().to_canonical()).as_bytes(), peer)?;
    Ok(())
}
