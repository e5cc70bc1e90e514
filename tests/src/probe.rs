//! Probes and servers in places: what [`spiderpool_testbox::probe`] does, on threads inside the namespaces.

mod server;

use anyhow::Result;
use spiderpool_testbox::probe::send_to_port;
pub use spiderpool_testbox::probe::{Answer, LIMIT, PORT, Probe, Protocol};

use crate::namespaces::Namespaces;
pub use server::Server;

/// Sends a probe from `namespaces` and waits for its answer.
pub fn send(namespaces: &Namespaces, probe: Probe) -> Result<Answer> {
    send_to(namespaces, probe, PORT)
}

/// As [`send`], to another port than the servers'.
pub fn send_to(namespaces: &Namespaces, probe: Probe, port: u16) -> Result<Answer> {
    namespaces.run(|| send_to_port(probe, port))
}
