//! `spiderpool-controller`: what is done once per cluster. [`replica`] runs everywhere, and `webhook` with it,
//! `leader` on the elected replica.
//!
//! `clean` is a subcommand of its own, and [`init`] the program `spiderpool-init`: default objects and CRDs, at
//! install and upgrade.
#![forbid(unsafe_code)]

pub mod clean;
pub mod config;
pub mod init;
mod leader;
mod network_attachment;
pub mod replica;
mod webhook;

use kube::api::PatchParams;

/// Names the controller as the field manager, as an object's `managedFields` show.
fn patch_parameters() -> PatchParams {
    PatchParams { field_manager: Some("spiderpool-controller".to_owned()), ..PatchParams::default() }
}
