//! A queue of keys to reconcile, as Kubernetes' controllers have it: a key waits once however often it is added, is
//! reconciled by one worker at a time, and after a failure again with exponential back-off, while others go on.
//!
//! Keys are taken in the order in which they are due, so that none waits for ever while others come again and again.
//! kube's scheduler does not promise that: keys that are due while no worker is free wait in a set without order. Its
//! `Controller` does not fit either: it keeps every object in a store, and reconciles only what is in there, not what is
//! gone.

mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use crate::backoff::{MIN_PAUSE, exponential};
use schedule::{Entry, Schedule, Take};

/// When a key that was reconciled is reconciled again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Action {
    requeue_after: Option<Duration>,
    min_interval: Duration,
}

impl Action {
    /// When it is added again.
    pub fn await_change() -> Self {
        Self::default()
    }

    /// After this time, or earlier when it is added again.
    pub fn requeue(after: Duration) -> Self {
        Self { requeue_after: Some(after), ..Self::default() }
    }

    /// The next run begins at least so long after the begin of this one, whoever adds the key.
    #[must_use]
    pub fn with_min_interval(self, min_interval: Duration) -> Self {
        Self { min_interval, ..self }
    }
}

/// Brings objects, each named by a key, to their desired state.
pub trait Reconciler<K> {
    /// Why an object is not as desired yet.
    type Error: Display;

    /// Brings one object to its desired state. `since` is when it was due, also for attempts that follow failures.
    fn reconcile(&self, key: &K, since: Instant) -> impl Future<Output = Result<Action, Self::Error>>;

    /// The next run begins at least so long after the begin of one that failed, whoever adds the key.
    fn min_interval(&self, _key: &K) -> Duration {
        Duration::ZERO
    }

    /// A failure; the next attempt follows after `pause`.
    fn failed(&self, key: &K, error: &Self::Error, pause: Duration);
}

/// Adds keys to a queue. Cheap to clone.
#[derive(Debug)]
pub struct WorkQueue<K>(Arc<Shared<K>>);

#[derive(Debug)]
struct Shared<K> {
    schedule: Mutex<Schedule<K>>,
    changed: Notify,
}

/// Who reconciles the keys of a [`WorkQueue`].
#[derive(Debug)]
pub struct Workers<K>(WorkQueue<K>);

/// An empty queue and its workers.
pub fn work_queue<K>() -> (WorkQueue<K>, Workers<K>) {
    let queue = WorkQueue(Arc::new(Shared { schedule: Mutex::default(), changed: Notify::new() }));
    (queue.clone(), Workers(queue))
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> WorkQueue<K> {
    fn schedule(&self) -> MutexGuard<'_, Schedule<K>> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    /// Has the key reconciled as soon as a worker is free.
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// Has the key reconciled after this time; of several times for one key the earliest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        let due = Instant::now() + delay;
        self.insert(Entry { key, since: due }, due);
    }

    fn insert(&self, entry: Entry<K>, run_at: Instant) {
        self.schedule().insert(entry, run_at);
        self.0.changed.notify_one();
    }

    /// The key that is due longest and not held; waits for one.
    async fn take(&self, held: &HashSet<K>) -> Entry<K> {
        loop {
            let taken = self.schedule().take(Instant::now(), held);
            match taken {
                Take::Due(entry) => return entry,
                Take::At(due) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = self.0.changed.notified() => {}
                    }
                }
                Take::Empty => self.0.changed.notified().await,
            }
        }
    }
}

impl<K: Clone + Eq + Hash> Workers<K> {
    /// Reconciles until shutdown, at most `limit` keys at a time; reconciliations that have begun are finished.
    pub async fn run(self, limit: usize, reconciler: &impl Reconciler<K>, shutdown: &CancellationToken) {
        let Self(queue) = self;
        let mut running = FuturesUnordered::new();
        // Keys that no worker may take: they are being reconciled, or their minimum interval is not over.
        let mut held = HashSet::new();
        let mut delayed = DelayQueue::new();
        let mut backoffs = HashMap::new();
        loop {
            let has_free_worker = running.len() < limit;
            tokio::select! {
                () = shutdown.cancelled() => break,
                entry = queue.take(&held), if has_free_worker => {
                    held.insert(entry.key.clone());
                    let begun = Instant::now();
                    running.push(async move {
                        let outcome = reconciler.reconcile(&entry.key, entry.since).await;
                        (entry, begun, outcome)
                    });
                }
                Some((entry, begun, outcome)) = running.next() => {
                    let now = Instant::now();
                    let Entry { key, since } = entry;
                    let (action, pause_until) = match outcome {
                        Ok(action) => {
                            backoffs.remove(&key);
                            (action, now)
                        }
                        Err(error) => {
                            let backoff = backoffs.entry(key.clone()).or_insert_with(|| exponential().build());
                            let pause = backoff.next().unwrap_or_default();
                            reconciler.failed(&key, &error, pause);
                            queue.insert(Entry { key: key.clone(), since }, now + pause);
                            // However often it is added meanwhile: no attempt after attempt.
                            (Action::await_change().with_min_interval(reconciler.min_interval(&key)), now + MIN_PAUSE)
                        }
                    };
                    if let Some(delay) = action.requeue_after {
                        queue.add_after(key.clone(), delay);
                    }
                    let held_until = pause_until.max(begun + action.min_interval);
                    if held_until > now {
                        delayed.insert_at(key, held_until);
                    } else {
                        held.remove(&key);
                    }
                }
                Some(expired) = delayed.next() => {
                    held.remove(&expired.into_inner());
                }
            }
        }
        while running.next().await.is_some() {}
    }
}
