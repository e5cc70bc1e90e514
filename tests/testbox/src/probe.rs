//! Packets as applications send them: TCP, UDP and ping, by plain sockets in the namespace of the calling thread.

mod client;
mod server;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{Probe, send, send_to_port};
pub use server::Listener;

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

impl Protocol {
    /// From what [`fmt::Display`] prints.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Ping].into_iter().find(|protocol| protocol.to_string() == name)
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The client's address as the server saw it; unknown for ping.
    pub seen: Option<IpAddr>,
    /// The client's port as the server saw it; for ping what `own_port` is.
    pub seen_port: u16,
    /// The client's own port; for ping a number at the head of the data, which no NAT changes.
    pub own_port: u16,
    /// Who answered: the name of the server; empty for ping.
    pub server: String,
}
