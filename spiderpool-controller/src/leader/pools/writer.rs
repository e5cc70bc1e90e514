//! Writes the views of pools: the first change at once, then at a pace.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kube::Api;
use kube::api::{ListParams, Patch, PostParams};
use serde_json::{Value, json};
use spiderpool_api::crd::{SpiderIPPool, SpiderIPPoolUsage};
use spiderpool_runtime::kubernetes::{Deletion, Failure, Kubernetes, Preconditions};
use spiderpool_runtime::watch::Shared;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::usage::{Step, Stored};
use super::{finalizer, status};
use crate::leader::metrics::Metrics;
use crate::leader::schedule::{Schedule, wait};
use crate::leader::state::ClusterState;
use crate::patch_parameters;

/// Pause between two writes of a pool's bitmaps.
const USAGE_PAUSE: Duration = Duration::from_millis(500);
/// Pools that are written at the same time.
const WRITERS: usize = 4;
/// Pause before a job is looked at again that is still running.
const BUSY: Duration = Duration::from_millis(100);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(2);

/// What is written of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Job {
    /// Its bitmaps; agents wait for them.
    Usage(Arc<str>),
    /// Its status, and what its object lacks.
    View(Arc<str>),
}

/// The writer of views.
pub struct Writer {
    kube: Kubernetes,
    state: Shared<ClusterState>,
    pools: Api<SpiderIPPool>,
    usages: Api<SpiderIPPoolUsage>,
    metrics: Metrics,
    jobs: Schedule<Job>,
    /// When a job may run again.
    not_before: HashMap<Job, Instant>,
    noticed: HashMap<Job, Instant>,
    busy: HashSet<Job>,
}

impl Writer {
    /// By this connection.
    pub fn new(kube: Kubernetes, state: Shared<ClusterState>, metrics: Metrics) -> Self {
        Self {
            pools: Api::all(kube.client()),
            usages: Api::all(kube.client()),
            kube,
            state,
            metrics,
            jobs: Schedule::default(),
            not_before: HashMap::new(),
            noticed: HashMap::new(),
            busy: HashSet::new(),
        }
    }

    /// These pools may have changed.
    fn notice(&mut self, pools: impl IntoIterator<Item = Arc<str>>) {
        let now = Instant::now();
        for pool in pools {
            for job in [Job::Usage(Arc::clone(&pool)), Job::View(pool)] {
                let at = self.not_before.get(&job).copied().filter(|at| *at > now).unwrap_or(now);
                self.noticed.entry(job.clone()).or_insert(now);
                self.jobs.put(job, at);
            }
        }
    }

    /// Writes until shutdown; `changed` tells of changes. Wants watches that have listed.
    pub async fn run(mut self, changed: Arc<Notify>, shutdown: CancellationToken) {
        let Some(stored) = self.load(&shutdown).await else { return };
        let stored = Shared::new(stored);
        self.notice(stored.read(|stored| stored.pools().collect::<Vec<_>>()));
        let mut running = FuturesUnordered::new();
        loop {
            let pools = self.state.write(ClusterState::take_pools);
            self.notice(pools);
            while running.len() < WRITERS {
                let Some(job) = self.jobs.take(Instant::now()) else { break };
                if !self.busy.insert(job.clone()) {
                    // What it writes may be older than the news.
                    self.jobs.put(job, Instant::now() + BUSY);
                    continue;
                }
                self.not_before.insert(job.clone(), Instant::now() + self.pause(&job));
                let noticed = self.noticed.remove(&job);
                running.push(self.write(job, noticed, stored.clone()));
            }
            let next = self.jobs.next().filter(|_| running.len() < WRITERS);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = changed.notified() => {}
                () = wait(next) => {}
                Some((job, outcome)) = running.next() => self.done(job, outcome),
            }
        }
        // What has begun is finished: it is not known otherwise what came of it.
        while running.next().await.is_some() {}
    }

    fn pause(&self, job: &Job) -> Duration {
        match job {
            Job::Usage(_) => USAGE_PAUSE,
            Job::View(pool) => status::pause(self.state.read(|state| state.addresses.count(pool))),
        }
    }

    fn done(&mut self, job: Job, outcome: Result<(), Failure>) {
        self.busy.remove(&job);
        let (Job::Usage(pool) | Job::View(pool)) = &job;
        if self.state.read(|state| state.pools.get(pool).is_none()) {
            self.not_before.remove(&job);
        }
        let Err(error) = outcome else { return };
        if error.is_conflict() || error.is_not_found() {
            debug!(%pool, %error, "the pool has changed meanwhile");
        } else {
            warn!(%pool, %error, "the view of the pool is not written yet, trying again");
        }
        self.metrics.view_failures.inc();
        self.jobs.put(job, Instant::now() + RETRY);
    }

    /// What an earlier leader has left.
    async fn load(&self, shutdown: &CancellationToken) -> Option<Stored> {
        loop {
            match self.kube.read(self.usages.list(&ListParams::default())).await {
                Ok(list) => return Some(Stored::new(&list.items)),
                Err(error) => warn!(%error, "the bitmaps of pools cannot be listed, trying again"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                return None;
            }
        }
    }

    fn write(
        &self,
        job: Job,
        noticed: Option<Instant>,
        stored: Shared<Stored>,
    ) -> impl Future<Output = (Job, Result<(), Failure>)> + use<> {
        let work = Work {
            kube: self.kube.clone(),
            state: self.state.clone(),
            pools: self.pools.clone(),
            usages: self.usages.clone(),
            metrics: self.metrics.clone(),
        };
        async move {
            let outcome = match &job {
                Job::Usage(pool) => work.usage(pool, &stored).await,
                Job::View(pool) => work.view(pool).await,
            };
            if let (Ok(()), Some(noticed)) = (&outcome, noticed) {
                work.metrics.view_lag.observe(noticed.elapsed());
            }
            (job, outcome)
        }
    }
}

/// What a write needs.
struct Work {
    kube: Kubernetes,
    state: Shared<ClusterState>,
    pools: Api<SpiderIPPool>,
    usages: Api<SpiderIPPoolUsage>,
    metrics: Metrics,
}

impl Work {
    async fn view(&self, pool: &str) -> Result<(), Failure> {
        let (status, version, held_back) = self.state.read(|state| {
            let Some(known) = state.pools.get(pool) else { return (None, None, None) };
            let unused = known.is_finalizing && state.addresses.count(pool) == 0;
            let held_back = unused.then(|| known.uid.clone());
            (status::plan(state, pool, known), status::plan_version(known), held_back)
        });
        if let Some(patch) = version {
            self.patch(pool, patch, Part::Spec).await?;
        }
        if let Some(patch) = status {
            self.patch(pool, patch, Part::Status).await?;
            self.metrics.view_writes.inc();
        }
        match held_back {
            Some(uid) => finalizer::remove_when_unused(&self.kube, pool, &uid).await,
            None => Ok(()),
        }
    }

    async fn patch(&self, pool: &str, patch: Value, part: Part) -> Result<(), Failure> {
        let (patch, parameters) = (Patch::Merge(patch), patch_parameters());
        let request = async {
            match part {
                Part::Spec => self.pools.patch(pool, &parameters, &patch).await,
                Part::Status => self.pools.patch_status(pool, &parameters, &patch).await,
            }
        };
        let written = self.kube.write(request).await?;
        self.state.write(|state| state.apply_written(written));
        Ok(())
    }

    async fn usage(&self, pool: &str, stored: &Shared<Stored>) -> Result<(), Failure> {
        let steps = self.state.read(|state| stored.read(|stored| stored.plan(state, pool)));
        for step in steps {
            match step {
                Step::Put(object) => {
                    // It may be written although nobody says so.
                    let name = object.metadata.name.clone().unwrap_or_default();
                    stored.write(|stored| stored.doubt(pool, &name));
                    self.put(&object).await?;
                    stored.write(|stored| stored.put(&object));
                }
                Step::Delete(name) => {
                    stored.write(|stored| stored.doubt(pool, &name));
                    self.delete(&name).await?;
                    stored.write(|stored| stored.delete(pool, &name));
                }
            }
            self.metrics.usage_writes.inc();
        }
        Ok(())
    }

    async fn put(&self, object: &SpiderIPPoolUsage) -> Result<(), Failure> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let patch =
            Patch::Merge(json!({"metadata": {"labels": object.metadata.labels}, "spec": object.spec}));
        match self.kube.write(self.usages.patch(name, &patch_parameters(), &patch)).await {
            Err(failure) if failure.is_not_found() => {
                self.kube.write(self.usages.create(&PostParams::default(), object)).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), Failure> {
        while let Some(found) = self.kube.read(self.usages.get_opt(name)).await? {
            if self.kube.delete(&self.usages, &Preconditions::of(&found.metadata)).await? == Deletion::Done {
                break;
            }
        }
        Ok(())
    }
}

/// Which part of a pool is written.
#[derive(Debug, Clone, Copy)]
enum Part {
    Spec,
    Status,
}
