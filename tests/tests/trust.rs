//! Who is believed: what a pod cannot do by its node link, whatever it tries, what nobody in the underlay can do to help
//! it, what nobody there can do to it, and what it costs others.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "trust/arrivals.rs"]
mod arrivals;
#[path = "trust/attacker.rs"]
mod attacker;
#[path = "trust/connections.rs"]
mod connections;
#[path = "trust/node_link.rs"]
mod node_link;
#[path = "trust/packets.rs"]
mod packets;
#[path = "trust/services.rs"]
mod services;
#[path = "trust/shares.rs"]
mod shares;
#[path = "trust/underlay.rs"]
mod underlay;

use std::sync::MutexGuard;

use spiderpool_tests::lab::{Lab, lock_lab};
use spiderpool_tests::privilege;

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab(|_| Ok(())).unwrap())
}
