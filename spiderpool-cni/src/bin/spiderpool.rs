//! The IPAM plugin.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use spiderpool_cni::{ipam::Ipam, run::run};

fn main() -> ExitCode {
    run::<Ipam>()
}
