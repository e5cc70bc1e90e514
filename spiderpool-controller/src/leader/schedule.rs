//! Work that is due at a time, each piece once. Plain data: the caller reads the clock.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// Pieces of work and when they are due.
#[derive(Debug)]
pub struct Schedule<K> {
    due: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { due: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Schedule<K> {
    /// The piece is due at `at`, or when it was due already if that is earlier.
    pub fn put(&mut self, key: K, at: Instant) {
        if let Some(known) = self.due.get(&key) {
            if *known <= at {
                return;
            }
            self.order.remove(&(*known, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// Takes out the first piece that is due.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let (at, key) = self.order.pop_first()?;
        if at > now {
            self.order.insert((at, key));
            return None;
        }
        self.due.remove(&key);
        Some(key)
    }

    /// When the next piece is due.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// How many pieces wait.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}

/// Waits until the next piece is due; for ever if there is none.
pub async fn wait(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_piece_once_and_the_earlier_time_counts() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        schedule.put("a", later);
        schedule.put("b", now);
        schedule.put("b", later);
        assert_eq!((schedule.len(), schedule.next()), (2, Some(now)));
        assert_eq!(schedule.take(now), Some("b"));
        assert_eq!(schedule.take(now), None);
        schedule.put("a", now);
        assert_eq!(schedule.take(now), Some("a"));
        assert!(schedule.is_empty() && schedule.next().is_none());
    }
}
