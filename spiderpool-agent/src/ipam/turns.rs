//! One at a time per key, in the order of asking.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Line, OwnedMutexGuard};

/// Hands out turns. Keys that nobody waits for cost nothing.
#[derive(Debug)]
pub(super) struct Turns<K>(Arc<Mutex<HashMap<K, Arc<Line<()>>>>>);

/// The right to work on a key, until dropped.
#[derive(Debug)]
pub(super) struct Turn<K: Eq + Hash> {
    turns: Arc<Mutex<HashMap<K, Arc<Line<()>>>>>,
    key: K,
    line: Arc<Line<()>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// Waits for the turn.
    pub(super) async fn take(&self, key: K) -> Turn<K> {
        let line = Arc::clone(lock(&self.0).entry(key.clone()).or_default());
        // Made before waiting: dropped together with a waiter that gives up, it cleans up too.
        let mut turn = Turn { turns: Arc::clone(&self.0), key, line: Arc::clone(&line), guard: None };
        turn.guard = Some(line.lock_owned().await);
        turn
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut lines = lock(&self.turns);
        drop(self.guard.take());
        // The map's and ours: nobody else is in the line.
        if Arc::strong_count(&self.line) <= 2 {
            lines.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_in_order() {
        let turns = Arc::new(Turns::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = turns.take("pod").await;
        let mut tasks = Vec::new();
        for number in 0..4 {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _turn = turns.take("pod").await;
                lock(&order).push(number);
            }));
            tokio::task::yield_now().await;
        }
        let _other = turns.take("other").await;
        assert!(lock(&order).is_empty());
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*lock(&order), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn nothing_is_left_also_by_waiters_that_give_up() {
        let turns = Turns::default();
        let first = turns.take(1).await;
        assert!(tokio::time::timeout(Duration::from_millis(1), turns.take(1)).await.is_err());
        drop(first);
        assert!(lock(&turns.0).is_empty());
        drop(turns.take(1).await);
        assert!(lock(&turns.0).is_empty());
    }
}
