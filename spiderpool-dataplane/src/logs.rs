//! Log records of the programs about rare events (ring buffer `events`), forwarded to `tracing`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya_log::EbpfLogger;
use spiderpool_ebpf_common::state::LogEvent;

/// Turns a record of aya-log into an event of `tracing`.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        if let Some((event, nic)) = event(&text) {
            report(event, nic);
        } else {
            tracing::info!(record = %text, "eBPF program logged an event");
        }
    }

    fn flush(&self) {}
}

/// What a record says: an event and the id of the NIC that it is about.
fn event(text: &str) -> Option<(LogEvent, u16)> {
    let (event, nic) = text.split_once(' ')?;
    Some((LogEvent::from_number(event.parse().ok()?)?, nic.parse().ok()?))
}

fn report(event: LogEvent, nic: u16) {
    match event {
        LogEvent::NeighborAnswered => tracing::info!(nic, "neighbor request for a node address answered"),
        LogEvent::NatFull => tracing::warn!(
            nic,
            "no room for a translation: raise coordinator.ebpf.maps.nat if the pod needs so many"
        ),
        LogEvent::NatNoPort => tracing::warn!(nic, "no free source port for a translation"),
        LogEvent::LinkFull => {
            tracing::warn!(nic, "no room for flows by the node link: they are dropped");
        }
        LogEvent::ArrivalsFull => {
            tracing::warn!(nic, "no room for a flow that comes in: its answers follow the routing table");
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_an_event_and_a_nic() {
        assert_eq!(event("2 17"), Some((LogEvent::NatFull, 17)));
        for event in LogEvent::ALL {
            assert_eq!(super::event(&format!("{} 65535", event as u8)), Some((event, u16::MAX)));
        }
        // Of programs of an earlier version, or none that the agent knows.
        for text in ["no free source port for a translation on NIC 4", "0 4", "6 4", "2 65536", "2", ""] {
            assert_eq!(event(text), None, "{text}");
        }
    }
}
