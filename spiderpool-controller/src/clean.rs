//! `spiderpool-controller clean`: takes Spiderpool from the cluster before its chart is uninstalled.

use clap::Args;

/// Arguments of `spiderpool-controller clean`.
#[derive(Debug, Clone, Args)]
pub struct Clean {}

/// Runs to the end.
pub async fn run(_clean: Clean) -> anyhow::Result<()> {
    anyhow::bail!("clean is not supported yet")
}
