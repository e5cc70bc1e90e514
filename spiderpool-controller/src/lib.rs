//! `spiderpool-controller`: what is done once per cluster. One replica leads and works, the others wait.
//!
//! `spiderpool-init` is in here too: default objects and definitions, at install and upgrade.
#![forbid(unsafe_code)]

pub mod clean;
pub mod config;
pub mod coordinator;
pub mod daemon;
pub mod gc;
pub mod init;
mod lead;
pub mod metrics;
pub mod pools;
pub mod schedule;
pub mod world;

use kube::api::PatchParams;

/// Patches are the controller's, as an object's `managedFields` show.
fn patch_parameters() -> PatchParams {
    PatchParams { field_manager: Some("spiderpool-controller".to_owned()), ..PatchParams::default() }
}
