//! `spiderpool-init`: what the chart's values ask for, at install and upgrade. It can be repeated.

mod apply;
mod command;
mod crds;
mod file;
mod manifests;

use std::time::Instant;

use anyhow::bail;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::logging;
use tracing::{error, info};

pub use command::{Command, Init};
pub use file::{DefaultCoordinator, DefaultPool, InitFile};
pub use manifests::{Manifest, ManifestError, plan};

use apply::Applier;

/// Runs to the end, or to the deadline.
pub async fn run(init: Init) -> anyhow::Result<()> {
    logging::init(init.log_level);
    let deadline = Instant::now() + init.deadline;
    if let Some(Command::ApplyCrds) = init.command {
        return crds::apply(&Kubernetes::connect().await?, deadline).await;
    }
    // Everything is checked before anything is written.
    let manifests = plan(&InitFile::load(&init.config_path)?)?;
    if manifests.is_empty() {
        info!("no default object is configured");
        return Ok(());
    }
    let applier = Applier::new(Kubernetes::connect().await?, deadline);
    let mut failed = Vec::new();
    for manifest in &manifests {
        if let Err(error) = applier.apply(manifest).await {
            error!(object = %manifest, %error, "object not applied");
            failed.push(error.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    info!(objects = manifests.len(), "all default objects are applied");
    Ok(())
}
