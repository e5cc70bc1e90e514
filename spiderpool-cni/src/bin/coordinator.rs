//! The meta plugin that sets up a pod's NICs.

use std::process::ExitCode;

use spiderpool_cni::{coordinator::Coordinator, run::run};

fn main() -> ExitCode {
    run::<Coordinator>()
}
