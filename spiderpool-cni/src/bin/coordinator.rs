//! The meta plugin that sets up a pod's NICs.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use spiderpool_cni::{coordinator::Coordinator, run::run};

fn main() -> ExitCode {
    run::<Coordinator>()
}
