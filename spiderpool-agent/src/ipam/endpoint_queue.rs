//! SpiderEndpoints: written from a queue after the plugin has its answer, removed before the addresses are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use spiderpool_api::crd::SpiderEndpoint;
use spiderpool_api::endpoint::Record;
use spiderpool_core::ipam::{Holding, Owner};
use spiderpool_core::names::PodName;
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::work_queue::{Action, Reconciler, WorkQueue, Workers, work_queue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::allocator::{Creations, HoldingIndex};
use super::keyed_mutex::KeyedMutex;
use crate::watches::Shared;

/// Endpoints written at the same time.
pub(super) const WRITERS: usize = 4;
/// So long an endpoint waits while addresses are created: on a node with many new pods those are what the pods wait for, and each
/// endpoint costs the API server as much as an address.
const GIVES_WAY: Duration = Duration::from_secs(5);
/// Those written at the same time at the end.
const FLUSHED_AT_ONCE: usize = 32;

/// Endpoints that are to be written.
pub struct EndpointQueue {
    store: EndpointStore,
    holdings: Shared<HoldingIndex>,
    creations: Creations,
    /// No endpoint waits for others any more.
    closing: CancellationToken,
    waiting: Mutex<HashMap<PodName, Record>>,
    queue: WorkQueue<PodName>,
    /// Taken by [`Self::run`].
    workers: Mutex<Option<Workers<PodName>>>,
    locks: KeyedMutex<PodName>,
}

impl EndpointQueue {
    /// Empty.
    pub(super) fn new(kube: Kubernetes, holdings: Shared<HoldingIndex>, creations: Creations) -> Self {
        let (queue, workers) = work_queue();
        Self {
            store: EndpointStore::new(kube),
            holdings,
            creations,
            closing: CancellationToken::new(),
            waiting: Mutex::default(),
            queue,
            workers: Mutex::new(Some(workers)),
            locks: KeyedMutex::default(),
        }
    }

    /// Has the endpoint written soon. Later NICs of the same pod join what still waits.
    pub fn put(&self, record: Record) {
        let name = key(&record);
        self.with(|waiting| {
            let record = match waiting.remove(&name) {
                Some(earlier) => earlier.joined_by(record),
                None => record,
            };
            waiting.insert(name.clone(), record);
        });
        self.queue.add(name);
    }

    /// Writes until shutdown, and then what still waits, within `grace`. Only the first call writes until shutdown.
    pub async fn run(&self, shutdown: &CancellationToken, grace: Duration) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(workers) = workers {
            let close = async {
                shutdown.cancelled().await;
                self.closing.cancel();
            };
            tokio::join!(workers.run(WRITERS, self, shutdown), close);
        }
        // One that hangs does not keep the others from being written in the time that is left.
        let records = std::iter::from_fn(|| self.take());
        let flush = stream::iter(records).for_each_concurrent(FLUSHED_AT_ONCE, |record| async move {
            let _lock = self.locks.lock(key(&record)).await;
            if let Err(error) = self.write(&record).await {
                warn!(endpoint = %record.pod(), %error, "endpoint is left to the next start");
            }
        });
        if tokio::time::timeout(grace, flush).await.is_err() {
            warn!(left = self.with(|waiting| waiting.len()), "endpoints are left to the next start");
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
    async fn write(&self, record: &Record) -> Result<(), ApiFailure> {
        if self.holdings.read(|index| index.of_pod(&record.pod().uid).is_empty()) {
            debug!(endpoint = %record.pod(), "the pod holds nothing any more, no endpoint is written");
            return Ok(());
        }
        self.store.write(record).await
    }

    /// Removes the endpoint of this pod, and what waits to be written of it. Another pod's stays.
    pub async fn remove(&self, owner: &Owner) -> Result<(), ApiFailure> {
        let (name, pod) = (owner.endpoint_name(), &owner.pod);
        let _lock = self.locks.lock(name.clone()).await;
        self.with(|waiting| waiting.retain(|_, record| record.pod() != pod));
        self.store.remove(&name, pod).await
    }

    /// Has the endpoint of this pod, and what waits to be written of it, name these addresses no more.
    pub async fn forget(&self, owner: &Owner, freed: &[Holding]) -> Result<(), ApiFailure> {
        let (name, pod) = (owner.endpoint_name(), &owner.pod);
        let _lock = self.locks.lock(name.clone()).await;
        self.with(|waiting| {
            if let Some(record) = waiting.remove(&name) {
                let is_of_pod = record.pod() == pod;
                let record = if is_of_pod { record.without(freed) } else { record };
                waiting.insert(name.clone(), record);
            }
        });
        self.store.forget(&name, pod, freed).await
    }

    /// Has the endpoint of a pod that has ended, written first if that still waits, name what it leaves to the next one of
    /// its name.
    pub async fn hand_on<H: AsRef<Holding>>(
        &self,
        owner: &Owner,
        node: &str,
        kept: &[H],
    ) -> Result<(), ApiFailure> {
        let name = owner.endpoint_name();
        let _lock = self.locks.lock(name.clone()).await;
        if let Some(record) = self.with(|waiting| waiting.remove(&name)) {
            if record.pod() != &owner.pod {
                self.put_back(record);
            } else if let Err(failure) = self.store.write(&record).await {
                self.put_back(record);
                return Err(failure);
            }
        }
        self.store.hand_on(owner, node, kept).await
    }

    /// The recorded endpoint of this name.
    pub async fn get(&self, name: &PodName) -> Result<Option<SpiderEndpoint>, ApiFailure> {
        self.store.get(name).await
    }
}

impl Reconciler<PodName> for EndpointQueue {
    type Error = ApiFailure;

    async fn reconcile(&self, name: &PodName, since: Instant) -> Result<Action, ApiFailure> {
        let give_way = self.creations.give_way(since + GIVES_WAY);
        self.closing.run_until_cancelled(give_way).await;
        let _lock = self.locks.lock(name.clone()).await;
        // A removal may have taken it out.
        if let Some(record) = self.with(|waiting| waiting.remove(name))
            && let Err(failure) = self.write(&record).await
        {
            // Before the lock is released: a removal must find it.
            self.put_back(record);
            return Err(failure);
        }
        Ok(Action::await_change())
    }

    fn failed(&self, name: &PodName, error: &ApiFailure, pause: Duration) {
        warn!(endpoint = %name, %error, ?pause, "endpoint not written, trying again");
    }
}

fn key(record: &Record) -> PodName {
    record.name().clone()
}
