//! `spiderpool-agent wait`: a container that shows, by being ready, that those before it are done.

use spiderpool_runtime::shutdown;

/// Waits for SIGTERM or SIGINT.
pub async fn run() -> anyhow::Result<()> {
    shutdown::on_signals()?.cancelled().await;
    Ok(())
}
