//! Log records of the programs about rare events (ring buffer `events`), forwarded to `tracing`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya_log::EbpfLogger;

/// Turns a record of aya-log into an event of `tracing`.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(record = %text, "eBPF program logged an event"),
            log::Level::Warn => tracing::warn!(record = %text, "eBPF program logged an event"),
            log::Level::Info => tracing::info!(record = %text, "eBPF program logged an event"),
            _ => tracing::debug!(record = %text, "eBPF program logged an event"),
        }
    }

    fn flush(&self) {}
}

/// The reading end of the programs' log. Readable (poll, epoll, tokio's `AsyncFd`) when there is something;
/// then call [`Logs::flush`].
pub struct Logs(EbpfLogger<Forward>);

impl Logs {
    pub(crate) fn take(ebpf: &mut aya::Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, Forward).ok().map(Self)
    }

    /// Hands on all that is waiting.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for Logs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Logs {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Logs").field(&self.as_raw_fd()).finish()
    }
}
