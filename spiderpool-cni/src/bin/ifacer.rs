//! The plugin that makes VLANs and bonds on the node.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use spiderpool_cni::{ifacer::Ifacer, run::run};

fn main() -> ExitCode {
    run::<Ifacer>()
}
