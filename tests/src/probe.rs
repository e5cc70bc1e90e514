//! Probes and servers in places: what [`spiderpool_testbox::probe`] does, on threads inside the namespaces.

mod server;

use anyhow::Result;
pub use spiderpool_testbox::probe::{Answer, LIMIT, PORT, Probe, Protocol};

use crate::place::Place;
pub use server::Server;

/// Sends a probe from `place` and waits for its answer.
pub fn send(place: &Place, probe: Probe) -> Result<Answer> {
    place.run(|| spiderpool_testbox::probe::send(probe))
}
