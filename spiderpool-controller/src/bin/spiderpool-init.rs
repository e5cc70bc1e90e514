//! `spiderpool-init`: default objects from the chart's values; `spiderpool-init apply-crds`: the CRDs.
#![forbid(unsafe_code)]

use clap::Parser;
use spiderpool_controller::init::{self, Init};

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(init::run(Init::parse()))
}
