//! SpiderEndpoints: written from a queue after the plugin has its answer, removed before the addresses are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spiderpool_api::crd::SpiderEndpoint;
use spiderpool_api::endpoint::Record;
use spiderpool_core::names::{PodIdentity, PodName};
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::{Failure, Kubernetes};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::allocator::HoldingIndex;
use super::keyed_mutex::KeyedMutex;
use crate::watches::Shared;

/// Endpoints written at the same time; the addresses come first.
pub(super) const WRITERS: usize = 4;
/// Pause before a write that failed is tried again, doubled each time up to the limit.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Endpoints that are to be written.
pub struct EndpointQueue {
    store: EndpointStore,
    holdings: Shared<HoldingIndex>,
    waiting: Mutex<HashMap<PodName, Record>>,
    wake: Notify,
    locks: KeyedMutex<PodName>,
}

impl EndpointQueue {
    /// Empty.
    pub(crate) fn new(kube: Kubernetes, holdings: Shared<HoldingIndex>) -> Self {
        Self {
            store: EndpointStore::new(kube),
            holdings,
            waiting: Mutex::default(),
            wake: Notify::new(),
            locks: KeyedMutex::default(),
        }
    }

    /// Has the endpoint written soon. Later NICs of the same pod join what still waits.
    pub fn put(&self, record: Record) {
        self.with(|waiting| {
            let record = match waiting.remove(&key(&record)) {
                Some(earlier) => earlier.joined_by(record),
                None => record,
            };
            waiting.insert(key(&record), record);
        });
        self.wake.notify_one();
    }

    /// Writes until shutdown, and then what still waits, within `grace`.
    pub async fn run(&self, shutdown: &CancellationToken, grace: Duration) {
        let writers = (0..WRITERS).map(|_| self.write_all(shutdown));
        futures::future::join_all(writers).await;
        let flush = async {
            while let Some(record) = self.take() {
                let _lock = self.locks.lock(key(&record)).await;
                if let Err(error) = self.write(&record).await {
                    warn!(endpoint = %record.pod(), %error, "endpoint is left to the next start");
                }
            }
        };
        if tokio::time::timeout(grace, flush).await.is_err() {
            warn!(left = self.with(|waiting| waiting.len()), "endpoints are left to the next start");
        }
    }

    async fn write_all(&self, shutdown: &CancellationToken) {
        let mut pause = PAUSE;
        while !shutdown.is_cancelled() {
            let Some(record) = self.take() else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.wake.notified() => continue,
                }
            };
            // Others may wait too: this one does not serve them all.
            self.wake.notify_one();
            let lock = self.locks.lock(key(&record)).await;
            match self.write(&record).await {
                Ok(()) => pause = PAUSE,
                Err(error) => {
                    warn!(endpoint = %record.pod(), %error, "endpoint is not written yet, trying again");
                    // Before the lock is released: a removal must find it.
                    self.put_back(record);
                    drop(lock);
                    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn take(&self) -> Option<Record> {
        self.with(|waiting| {
            let key = waiting.keys().next().cloned()?;
            waiting.remove(&key)
        })
    }

    /// Joined by what has come meanwhile.
    fn put_back(&self, record: Record) {
        self.with(|waiting| {
            let record = match waiting.remove(&key(&record)) {
                Some(newer) => record.joined_by(newer),
                None => record,
            };
            waiting.insert(key(&record), record);
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<PodName, Record>) -> T) -> T {
        f(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the endpoint say what the record says. The endpoint must be locked.
    async fn write(&self, record: &Record) -> Result<(), Failure> {
        if self.holdings.read(|index| index.of_pod(&record.pod().uid).is_empty()) {
            debug!(endpoint = %record.pod(), "the pod holds nothing any more, no endpoint is written");
            return Ok(());
        }
        self.store.write(record).await
    }

    /// Removes the endpoint of this pod, and what waits to be written of it. Another pod's stays.
    pub async fn remove(&self, pod: &PodIdentity) -> Result<(), Failure> {
        let _lock = self.locks.lock(pod.name.clone()).await;
        self.with(|waiting| waiting.retain(|_, record| record.pod() != pod));
        self.store.remove(pod.name.namespace(), pod.name.name(), pod.uid.as_str()).await
    }

    /// The recorded endpoint of a pod.
    pub async fn get(&self, pod: &PodName) -> Result<Option<SpiderEndpoint>, Failure> {
        self.store.get(pod.namespace(), pod.name()).await
    }
}

fn key(record: &Record) -> PodName {
    record.pod().name.clone()
}
