//! One signal that everything which runs can wait for.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

/// Handed to every task; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Requests the shutdown; dropping it does so too.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// A trigger and what it triggers.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Ends every task that waits.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Requests the shutdown on SIGTERM or SIGINT.
    pub fn on_signals(self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "shutting down");
            self.request();
        });
        Ok(())
    }
}

impl Shutdown {
    /// Returns when the shutdown has been requested.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone: nobody could end us later.
        let _gone = receiver.wait_for(|requested| *requested).await;
    }

    /// Whether it has been requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Sleeps; `false` when the shutdown came first.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = self.requested() => false,
            () = tokio::time::sleep(duration) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_clones_made_before_and_after() {
        let (trigger, shutdown) = channel();
        let before = shutdown.clone();
        assert!(!shutdown.is_requested());
        trigger.request();
        before.requested().await;
        shutdown.clone().requested().await;
        assert!(!shutdown.sleep(Duration::from_hours(1)).await);
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_ends_the_tasks() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }
}
