//! Probes and servers in places: what [`spiderpool_testbox::probe`] does, on threads inside the namespaces.

mod server;

use anyhow::Result;
pub use spiderpool_testbox::probe::{Answer, LIMIT, PORT, Probe, Protocol};

use crate::namespaces::Namespaces;
pub use server::Server;

/// Sends a probe from `namespaces` and waits for its answer.
pub fn send(namespaces: &Namespaces, probe: Probe) -> Result<Answer> {
    namespaces.run(|| spiderpool_testbox::probe::send(probe))
}
