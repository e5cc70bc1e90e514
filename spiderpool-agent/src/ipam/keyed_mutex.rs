//! One at a time per key, in the order of asking.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Locks<K> = Mutex<HashMap<K, Arc<AsyncMutex<()>>>>;

/// A mutex per key. Keys that nobody has locked cost nothing. Clones share their locks.
#[derive(Debug, Clone)]
pub(super) struct KeyedMutex<K>(Arc<Locks<K>>);

/// Unlocks its key when dropped.
#[derive(Debug)]
pub(super) struct KeyedGuard<K: Eq + Hash> {
    locks: Arc<Locks<K>>,
    key: K,
    lock: Arc<AsyncMutex<()>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl<K> Default for KeyedMutex<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> KeyedMutex<K> {
    /// Waits until nobody else has locked the key.
    pub(super) async fn lock(&self, key: K) -> KeyedGuard<K> {
        let lock = Arc::clone(locked(&self.0).entry(key.clone()).or_default());
        // Made before waiting: dropped together with a waiter that gives up, it cleans up too.
        let mut guard = KeyedGuard { locks: Arc::clone(&self.0), key, lock: Arc::clone(&lock), guard: None };
        guard.guard = Some(lock.lock_owned().await);
        guard
    }
}

impl<K: Eq + Hash> Drop for KeyedGuard<K> {
    fn drop(&mut self) {
        let mut locks = locked(&self.locks);
        drop(self.guard.take());
        // The map's and ours: nobody else waits for it.
        if Arc::strong_count(&self.lock) <= 2 {
            locks.remove(&self.key);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_in_order() {
        let mutex = Arc::new(KeyedMutex::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = mutex.lock("pod").await;
        let mut tasks = Vec::new();
        for number in 0..4 {
            let (mutex, order) = (Arc::clone(&mutex), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _guard = mutex.lock("pod").await;
                locked(&order).push(number);
            }));
            tokio::task::yield_now().await;
        }
        let _other = mutex.lock("other").await;
        assert!(locked(&order).is_empty());
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*locked(&order), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn nothing_is_left_also_by_waiters_that_give_up() {
        let mutex = KeyedMutex::default();
        let first = mutex.lock(1).await;
        assert!(tokio::time::timeout(Duration::from_millis(1), mutex.lock(1)).await.is_err());
        drop(first);
        assert!(locked(&mutex.0).is_empty());
        drop(mutex.lock(1).await);
        assert!(locked(&mutex.0).is_empty());
    }
}
