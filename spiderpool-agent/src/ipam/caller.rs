//! Whether somebody still waits for an answer. Requests to the API server are never broken off half-way: an
//! address could be taken that nobody knows of. But no new one is begun for a caller that is gone.

use tokio::sync::watch;

/// Held by the one who waits; dropping it says that it has gone.
#[derive(Debug)]
pub struct Presence(#[expect(dead_code, reason = "dropping it is the message")] watch::Sender<()>);

/// Seen from the one who works.
#[derive(Debug, Clone)]
pub struct Caller(watch::Receiver<()>);

impl Caller {
    /// Both ends.
    pub fn new() -> (Presence, Self) {
        let (sender, receiver) = watch::channel(());
        (Presence(sender), Self(receiver))
    }

    /// Whether nobody waits any more.
    pub fn is_gone(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits for `work` or for the caller to go; `None` in the latter case.
    pub async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut receiver = self.0.clone();
        tokio::select! {
            _ = receiver.changed() => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_with_the_caller() {
        let (presence, caller) = Caller::new();
        assert_eq!(caller.unless_gone(async { 1 }).await, Some(1));
        drop(presence);
        assert!(caller.is_gone());
        assert_eq!(caller.unless_gone(std::future::pending::<()>()).await, None);
    }
}
