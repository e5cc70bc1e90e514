//! Packets as applications send them: TCP, UDP and ping, by plain sockets on threads inside the namespaces.

mod client;
mod server;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use client::{Probe, send};
pub use server::Server;

/// The port that every server listens on.
pub const PORT: u16 = 8080;

/// How long a probe waits. Shorter than TCP's first retransmission and ARP's second request (1 s): a flow whose
/// first packet is lost has failed.
pub const LIMIT: Duration = Duration::from_millis(900);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// A connection that the server answers with the client's address.
    Tcp,
    /// A datagram that the server answers with the client's address.
    Udp,
    /// An echo request that the kernel answers.
    Ping,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Ping => "ping",
        })
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The client's address as the server saw it; unknown for ping.
    pub seen: Option<IpAddr>,
    /// Who answered: the name of the server; empty for ping.
    pub server: String,
}
