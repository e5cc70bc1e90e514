//! `spiderpool-init`: what the chart's values ask for, at install and upgrade. Whatever it does it can do again.

mod apply;
mod definitions;
mod environment;
mod lists;
mod objects;

use std::time::Instant;

use anyhow::bail;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::logging;
use tracing::{error, info};

pub use environment::{Command, Init, Values};
pub use objects::{ObjectError, Wanted, plan};

use apply::Applier;

/// Runs to the end, or to the deadline.
pub async fn run(init: Init) -> anyhow::Result<()> {
    logging::init(init.log_level);
    let deadline = Instant::now() + init.deadline;
    if let Some(Command::ApplyCrds) = init.command {
        return definitions::apply(&Kubernetes::connect().await?, deadline).await;
    }
    // What makes no sense is said before anything is written.
    let wanted = plan(&init.values)?;
    if wanted.is_empty() {
        info!("the values ask for no object");
        return Ok(());
    }
    let applier = Applier::new(Kubernetes::connect().await?, deadline);
    let mut failed = Vec::new();
    for object in &wanted {
        if let Err(problem) = applier.apply(object).await {
            error!(object = %object, error = %problem, "not applied");
            failed.push(problem.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    info!(objects = wanted.len(), "everything that the values ask for is there");
    Ok(())
}
