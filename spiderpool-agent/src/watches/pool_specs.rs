//! The specs of pools. The watch brings their metadata alone: a status changes twice a second in busy times and may be
//! half a megabyte, would be sent to every agent, and none has a use for it.
//!
//! Whether a pool has upstream's allocations its status says, until the leader has marked it: a pool without mark is read
//! again when it changes.
//!
//! A spec is read once per generation, by the request that needs it or, soon after the watch has seen the change, in
//! the background. Which pools are default ones and which overlap only all specs together say: they are listed, in
//! pages, when the watch has listed for the first time, and an ADD waits a while for that. From then on a pool that
//! cannot be read fails the ADDs that name it, and no others; one that might be a default pool fails those that have no
//! default pool without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared as SharedFuture, WeakShared};
use futures::{StreamExt as _, stream};
use kube::runtime::utils::Backoff as _;
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Resource as _};
use spiderpool_core::ipam::PoolEntry;
use spiderpool_core::names::PoolName;
use spiderpool_runtime::health::Condition;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::pools::{AllocationOwner, PoolIndex, PoolObject, parse};
use spiderpool_runtime::watch::Shared;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::start::Starting;

/// How long an ADD waits for the first list.
const SPECS_TIMEOUT: Duration = Duration::from_secs(5);
/// So many changed pools are read one by one; more are listed.
const SINGLE_READS: usize = 8;
/// Reads in flight in the background.
const CONCURRENT_READS: usize = 4;
/// Pools of a page of a list: with 5000 addresses in the status of each, a page is about 10 MB.
const PAGE: u32 = 20;
/// Reads for one request: the one that it joins may have begun before the pool changed.
const READS: usize = 2;

/// Reads specs into the index. Cheap to clone.
#[derive(Clone)]
pub struct PoolSpecs(Arc<Inner>);

struct Inner {
    kube: Kubernetes,
    index: Shared<PoolIndex>,
    reads: Mutex<BTreeMap<PoolName, WeakShared<Read>>>,
    changed: Notify,
    /// Why the specs of all pools have not been listed yet.
    listed: watch::Sender<Result<(), String>>,
}

type ReadOutcome = Result<Option<PoolEntry>, Arc<ApiFailure>>;
type Read = BoxFuture<'static, ReadOutcome>;

/// A pool that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The pool.
    pub pool: PoolName,
    /// Why.
    pub failure: Arc<ApiFailure>,
}

impl PoolSpecs {
    /// For the pools of this index, which a watch feeds.
    pub fn new(kube: Kubernetes, index: Shared<PoolIndex>) -> Self {
        Self(Arc::new(Inner {
            kube,
            index,
            reads: Mutex::default(),
            changed: Notify::new(),
            listed: watch::Sender::new(Err("not yet".to_owned())),
        }))
    }

    /// The watch has listed, or a pool has changed.
    pub fn changed(&self) {
        self.0.changed.notify_one();
    }

    /// Waits until the specs of all pools have been listed once, but not for ever.
    pub async fn wait(&self) -> Result<(), Starting> {
        self.wait_for(SPECS_TIMEOUT).await
    }

    async fn wait_for(&self, limit: Duration) -> Result<(), Starting> {
        let mut listed = self.0.listed.subscribe();
        let waited = tokio::time::timeout(limit, listed.wait_for(Result::is_ok)).await;
        if matches!(waited, Ok(Ok(_))) {
            return Ok(());
        }
        let cause = self.0.listed.borrow().clone().err().unwrap_or_default();
        Err(Starting(vec![format!("specs of pools: {cause}")]))
    }

    /// The pool as it is now; `None` if there is none. Reads it unless the spec of its generation has been read.
    pub async fn get(&self, name: &PoolName) -> ReadOutcome {
        let mut read = None;
        for _ in 0..READS {
            if let Some(entry) = self.0.index.read(|index| index.entry(name)) {
                return Ok(Some(entry));
            }
            read = self.read(name).await?;
            let is_unread =
                |index: &PoolIndex| index.get(name.as_str()).is_some_and(|pool| pool.spec().is_none());
            if !self.0.index.read(is_unread) {
                break;
            }
        }
        Ok(read)
    }

    /// Reads the pools that could not be read until now.
    pub async fn get_unread(&self) -> Result<(), Unreadable> {
        for pool in self.0.index.read(PoolIndex::unread) {
            self.get(&pool).await.map_err(|failure| Unreadable { pool, failure })?;
        }
        Ok(())
    }

    /// Reads the pool from the API server; all who ask at the same time share one request.
    fn read(&self, name: &PoolName) -> SharedFuture<Read> {
        let mut reads = self.0.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.retain(|_, read| read.upgrade().is_some_and(|read| read.peek().is_none()));
        if let Some(read) = reads.get(name).and_then(WeakShared::upgrade) {
            return read;
        }
        let read = Arc::clone(&self.0).read(name.clone()).boxed().shared();
        reads.extend(read.downgrade().map(|read| (name.clone(), read)));
        read
    }

    /// Reads what has changed until shutdown. `listed` is met when the specs of all pools have been listed.
    pub async fn run(self, listed: Condition, shutdown: CancellationToken) {
        let work = async { tokio::join!(self.read_changes(), self.report(&listed)) };
        shutdown.run_until_cancelled(work).await;
    }

    async fn report(&self, condition: &Condition) {
        let mut listed = self.0.listed.subscribe();
        loop {
            match &*listed.borrow_and_update() {
                Ok(()) => condition.met(),
                Err(cause) => condition.unmet(cause.as_str()),
            }
            if listed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn read_changes(&self) {
        let mut backoff = DefaultBackoff::default();
        let mut failed = BTreeSet::new();
        let mut retry_at = None;
        loop {
            let retry = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = retry => {
                    failed.clear();
                    retry_at = None;
                }
            }
            let unread = self.0.index.read(PoolIndex::unread);
            failed.retain(|name| unread.contains(name));
            let wanted: BTreeSet<_> = unread.difference(&failed).cloned().collect();
            if unread.is_empty() {
                self.set_listed(Ok(()));
            } else if !wanted.is_empty() {
                failed.extend(self.read_all(wanted).await);
            }
            if failed.is_empty() && self.0.listed.borrow().is_ok() {
                backoff.reset();
                retry_at = None;
            } else if retry_at.is_none() {
                retry_at = backoff.next().map(|pause| Instant::now() + pause);
            }
        }
    }

    fn set_listed(&self, outcome: Result<(), String>) {
        self.0.listed.send_modify(|listed| *listed = outcome);
    }

    /// Reads these pools; returns those that are still to be read.
    async fn read_all(&self, names: BTreeSet<PoolName>) -> BTreeSet<PoolName> {
        let is_first = self.0.listed.borrow().is_err();
        if !is_first && names.len() <= SINGLE_READS {
            self.read_each(&names).await;
        } else {
            self.list(names.len(), is_first).await;
        }
        let unread = self.0.index.read(PoolIndex::unread);
        names.intersection(&unread).cloned().collect()
    }

    async fn list(&self, pools: usize, is_first: bool) {
        match self.0.list().await {
            Ok(()) => self.set_listed(Ok(())),
            Err(failure) => {
                warn!(pools, %failure, "pools cannot be listed, trying again");
                if is_first {
                    self.set_listed(Err(failure.to_string()));
                }
            }
        }
    }

    async fn read_each(&self, names: &BTreeSet<PoolName>) {
        let reads = stream::iter(names).for_each_concurrent(CONCURRENT_READS, |name| async move {
            if let Err(failure) = self.read(name).await {
                warn!(pool = %name, %failure, "pool cannot be read, trying again");
            }
        });
        reads.await;
    }
}

impl Inner {
    async fn read(self: Arc<Self>, name: PoolName) -> ReadOutcome {
        let api = Api::<PoolObject>::all(self.kube.client());
        let object = self.kube.read(api.get_opt(name.as_str())).await.map_err(Arc::new)?;
        Ok(object.map(|object| {
            let (meta, spec, owner) = (object.meta(), parse(&object), AllocationOwner::of(&object));
            self.index.write(|index| {
                index.apply_spec(meta, spec.clone(), owner);
                let conflict = spec.as_ref().ok().and_then(|pool| index.find_conflict(meta, pool, owner));
                PoolEntry { spec, terminating: meta.deletion_timestamp.is_some(), conflict }
            })
        }))
    }

    /// Reads all pools whose spec is not known, page by page.
    async fn list(&self) -> Result<(), ApiFailure> {
        let api = Api::<PoolObject>::all(self.kube.client());
        let store = |object: PoolObject| {
            let meta = object.meta();
            let is_current = |index: &PoolIndex| {
                let pool = meta.name.as_deref().and_then(|name| index.get(name));
                pool.is_none_or(|pool| pool.spec().is_some())
            };
            if !self.index.read(is_current) {
                let (spec, owner) = (parse(&object), AllocationOwner::of(&object));
                self.index.write(|index| index.apply_spec(meta, spec, owner));
            }
        };
        let pools = self.kube.pages_of(&api, PAGE, store).await?;
        debug!(pools = pools.len(), "specs of pools listed");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
