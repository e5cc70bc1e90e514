//! Tells each client by which address and port it came, by TCP and UDP.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::thread;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::{LIMIT, PORT};

/// Room for the datagrams of some seconds in which this process does not run.
const BUFFER: usize = 16 << 20;

/// The sockets of a server.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<(TcpListener, UdpSocket)>,
}

impl Listener {
    /// Listens on each address. By which of them a datagram to the wildcard address is answered, the kernel chooses.
    pub fn bind(addresses: &[IpAddr]) -> Result<Self> {
        let bind = |address: &IpAddr| {
            let udp = UdpSocket::bind((*address, PORT))?;
            // Many clients at once. In a pod without the right to it, few ask.
            let _ = setsockopt(&udp, sockopt::RcvBufForce, &BUFFER);
            Ok((TcpListener::bind((*address, PORT))?, udp))
        };
        Ok(Self { sockets: addresses.iter().map(bind).collect::<Result<_>>()? })
    }

    /// Serves under `name` until `stopped` becomes readable or is closed at its other end; without it for ever.
    pub fn serve(&self, name: &str, stopped: Option<BorrowedFd<'_>>) -> Result<()> {
        // A connection whose request is late must not keep the others, nor datagrams, waiting.
        thread::scope(|connections| self.serve_in(connections, name, stopped))
    }

    fn serve_in<'scope>(
        &self,
        connections: &'scope thread::Scope<'scope, '_>,
        name: &'scope str,
        stopped: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        loop {
            let descriptors = self.sockets.iter().flat_map(|(tcp, udp)| [tcp.as_fd(), udp.as_fd()]);
            let mut watched: Vec<PollFd> =
                descriptors.chain(stopped).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            poll(&mut watched, PollTimeout::NONE)?;
            let ready: Vec<bool> = watched.iter().map(|socket| socket.any().unwrap_or(true)).collect();
            if stopped.is_some() && ready.last() == Some(&true) {
                return Ok(());
            }
            for ((tcp, udp), ready) in self.sockets.iter().zip(ready.chunks(2)) {
                // One client's failure is that client's to report.
                if ready[0]
                    && let Ok((stream, peer)) = tcp.accept()
                {
                    connections.spawn(move || drop(answer_connection(stream, peer, name)));
                }
                if ready[1] {
                    drop(answer_datagram(udp, name));
                }
            }
        }
    }
}

fn answer_connection(mut stream: TcpStream, peer: SocketAddr, name: &str) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut request = [0; 4];
    stream.read_exact(&mut request).context("request")?;
    stream.write_all(answer(peer, name).as_bytes())?;
    Ok(())
}

fn answer_datagram(udp: &UdpSocket, name: &str) -> Result<()> {
    let (_, peer) = udp.recv_from(&mut [0; 16])?;
    udp.send_to(answer(peer, name).as_bytes(), peer)?;
    Ok(())
}

fn answer(peer: SocketAddr, name: &str) -> String {
    format!("{} {} {name}", peer.ip().to_canonical(), peer.port())
}
