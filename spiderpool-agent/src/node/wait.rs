//! `spiderpool-agent wait`: the container that becomes ready when the init containers before it have succeeded.

use spiderpool_runtime::shutdown;

/// Waits for SIGTERM or SIGINT.
pub async fn run() -> anyhow::Result<()> {
    shutdown::on_signals()?.cancelled().await;
    Ok(())
}
