//! Addresses that pods wait for come before what nobody waits for.

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How many addresses are being created, queued requests included. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in crate::ipam) struct Creations(watch::Sender<usize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct CreationInProgress(watch::Sender<usize>);

impl Creations {
    /// One more.
    pub(super) fn begin(&self) -> CreationInProgress {
        self.0.send_modify(|count| *count += 1);
        CreationInProgress(self.0.clone())
    }

    /// Waits until there are none, and not longer than until `deadline`.
    pub(in crate::ipam) async fn give_way(&self, deadline: Instant) {
        let mut count = self.0.subscribe();
        // The sender is here.
        drop(timeout_at(deadline, count.wait_for(|count| *count == 0)).await);
    }
}

impl Drop for CreationInProgress {
    fn drop(&mut self) {
        self.0.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_wait_until_all_are_done_or_their_time_is_over() {
        let creations = Creations::default();
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(2);
        creations.give_way(deadline).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let (one, other) = (creations.begin(), creations.begin());
        let end = async {
            drop(one);
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(other);
        };
        tokio::join!(creations.give_way(deadline), end);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        let _third = creations.begin();
        creations.give_way(deadline).await;
        assert_eq!(Instant::now(), deadline);
    }
}
