//! A queue of keys to reconcile, as Kubernetes' controllers have it: a key waits once however often it is added, is
//! reconciled by one worker at a time, and after a failure again with exponential back-off, while others go on.
//!
//! Order and time are those of kube's `scheduler`. kube's `Controller` around it does not fit: it keeps every object in
//! a store, and reconciles only what is in there, not what is gone.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::pin::pin;
use std::time::Duration;

use backon::BackoffBuilder as _;
use futures::channel::mpsc;
use futures::future::poll_fn;
use futures::stream::FuturesUnordered;
use futures::{Stream as _, StreamExt as _};
use kube::runtime::scheduler::{ScheduleRequest, scheduler};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::time::DelayQueue;

use crate::backoff::{MIN_PAUSE, exponential};

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

    /// A failure; the next attempt follows after `pause`.
    fn failed(&self, key: &K, error: &Self::Error, pause: Duration);
}

/// Adds keys to a queue. Cheap to clone.
#[derive(Debug)]
pub struct WorkQueue<K>(mpsc::UnboundedSender<ScheduleRequest<Entry<K>>>);

/// The other end of a [`WorkQueue`].
#[derive(Debug)]
pub struct Workers<K> {
    added: mpsc::UnboundedReceiver<ScheduleRequest<Entry<K>>>,
    queue: WorkQueue<K>,
}

/// A key, and since when it is due.
#[derive(Debug, Clone)]
struct Entry<K> {
    key: K,
    since: Instant,
}

impl<K: PartialEq> PartialEq for Entry<K> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<K: Eq> Eq for Entry<K> {}

impl<K: Hash> Hash for Entry<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// An empty queue and its workers.
pub fn work_queue<K>() -> (WorkQueue<K>, Workers<K>) {
    let (sender, added) = mpsc::unbounded();
    let queue = WorkQueue(sender);
    (queue.clone(), Workers { added, queue })
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> WorkQueue<K> {
    /// Has the key reconciled as soon as a worker is free.
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// Has the key reconciled after this time; of several times for one key the earliest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        let due = Instant::now() + delay;
        self.schedule(Entry { key, since: due }, due);
    }

    fn schedule(&self, message: Entry<K>, run_at: Instant) {
        // It fails when the workers have ended, and with them the reason to reconcile.
        let _ended = self.0.unbounded_send(ScheduleRequest { message, run_at });
    }
}

impl<K: Clone + Eq + Hash> Workers<K> {
    /// Reconciles until shutdown, at most `limit` keys at a time; reconciliations that have begun are finished.
    pub async fn run(self, limit: usize, reconciler: &impl Reconciler<K>, shutdown: &CancellationToken) {
        let Self { added, queue } = self;
        let mut scheduler = pin!(scheduler(added));
        let mut running = FuturesUnordered::new();
        // Keys that no worker may take: they are being reconciled, or their minimum interval is not over.
        let mut held = HashSet::new();
        let mut delayed = DelayQueue::new();
        let mut backoffs = HashMap::new();
        loop {
            let has_free_worker = running.len() < limit;
            let next = poll_fn(|cx| {
                if has_free_worker {
                    let is_free = |entry: &Entry<K>| !held.contains(&entry.key);
                    pin!(scheduler.as_mut().hold_unless(is_free)).poll_next(cx)
                } else {
                    pin!(scheduler.as_mut().hold()).poll_next(cx)
                }
            });
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(entry) = next => {
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
                    let action = match outcome {
                        Ok(action) => {
                            backoffs.remove(&key);
                            action
                        }
                        Err(error) => {
                            let backoff = backoffs.entry(key.clone()).or_insert_with(|| exponential().build());
                            let pause = backoff.next().unwrap_or_default();
                            reconciler.failed(&key, &error, pause);
                            queue.schedule(Entry { key: key.clone(), since }, now + pause);
                            // However often it is added meanwhile: no attempt after attempt.
                            Action::await_change().with_min_interval(MIN_PAUSE)
                        }
                    };
                    if let Some(delay) = action.requeue_after {
                        queue.add_after(key.clone(), delay);
                    }
                    let held_until = begun + action.min_interval;
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
