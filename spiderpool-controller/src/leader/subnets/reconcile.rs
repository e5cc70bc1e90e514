//! Carries out what is planned for a subnet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, Patch, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::events::Recorder;
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use spiderpool_api::crd::{FINALIZER, SpiderIPPool, SpiderSubnet};
use spiderpool_api::workload::SubnetApplication;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::Pool;
use spiderpool_core::names::PoolName;
use spiderpool_core::subnet::application::PoolPurpose;
use spiderpool_core::subnet::plan::{AutoPool, Problem, ProblemCause, Step, WantedPool};
use spiderpool_core::subnet::{ControlledPools, PoolSize, Subnet, SubnetPlan, SubnetState, plan_subnet};
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};
use spiderpool_runtime::pools::{PoolIndex, PoolObject};
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{Action, Reconciler};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::applications::AllApplications;
use super::events::SubnetEvents;
use super::known::SubnetIndex;
use super::objects;
use super::presence;
use super::view::{self, SeenPool, SubnetView};
use crate::config::SubnetSettings;
use crate::leader::state::{ClusterState, LeaderFields, insert_pool};
use crate::patch_parameters;

/// How often it is asked whether applications are still there of which nobody tells.
const ASK_AGAIN: Duration = Duration::from_mins(5);
/// After this time an application that has not what it wants is looked at again, whatever has been seen to change.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// The status of a subnet with more pools would not fit the API server's objects (etcd's limit is 1.5 MiB): bytes.
const MAX_RECORDS: usize = 1 << 20;
/// Pools that are read at a time.
const READS: usize = 8;
/// The finalizer with which the API server deletes what an object owns before the object.
const FOREGROUND: &str = "foregroundDeletion";

/// Reconciles subnets.
pub(super) struct SubnetReconciler {
    kube: Kubernetes,
    settings: SubnetSettings,
    state: Shared<ClusterState>,
    index: Shared<SubnetIndex>,
    applications: AllApplications,
    subnets: Api<SpiderSubnet>,
    pools: Api<SpiderIPPool>,
    events: SubnetEvents,
}

/// Why an attempt has failed.
#[derive(Debug, Error)]
pub(super) enum ReconcileError {
    /// A request was not successful.
    #[error(transparent)]
    Api(#[from] ApiFailure),
    /// Our own object is none for the API server.
    #[error("SpiderIPPool: {0}")]
    Object(#[from] serde_json::Error),
    /// A pool is not as it was when it was decided upon.
    #[error("SpiderIPPool {0} has changed")]
    Changed(PoolName),
}

/// A subnet as it was read, and what its spec means.
struct Read {
    object: Arc<SpiderSubnet>,
    subnet: Subnet,
}

impl SubnetReconciler {
    pub(super) fn new(
        kube: Kubernetes,
        settings: SubnetSettings,
        state: Shared<ClusterState>,
        index: Shared<SubnetIndex>,
        applications: AllApplications,
        recorder: Recorder,
    ) -> Self {
        let (subnets, pools) = (Api::all(kube.client()), Api::all(kube.client()));
        let events = SubnetEvents::new(recorder);
        Self { kube, settings, state, index, applications, subnets, pools, events }
    }

    async fn reconcile_subnet(
        &self,
        name: &PoolName,
        object: Arc<SpiderSubnet>,
    ) -> Result<Action, ReconcileError> {
        let is_terminating = object.metadata.deletion_timestamp.is_some();
        if is_terminating && self.finalize(&object).await? {
            return Ok(Action::await_change());
        }
        let subnet = match Subnet::try_from(&*object) {
            Ok(subnet) => subnet,
            Err(error) => {
                self.events.report_subnet(name, &object, error.to_string()).await;
                return Ok(Action::await_change());
            }
        };
        let read = Read { object, subnet };
        let older = self.index.read(|index| index.older(name, &read.subnet.subnet));
        if let Some(older) = older.filter(|_| !is_terminating) {
            let text = format!(
                "spec.subnet overlaps that of the older SpiderSubnet {older}, which has its addresses: delete one of them"
            );
            self.events.report_subnet(name, &read.object, text).await;
            return Ok(Action::await_change());
        }
        if let Some(patch) = objects::completion_patch(&read.object, &read.subnet) {
            let (patch, parameters) = (Patch::Merge(patch), patch_parameters());
            let request = self.subnets.patch(name.as_str(), &parameters, &patch);
            // It comes back by the watch, and with it the rest.
            self.written(self.kube.write(request).await?);
            return Ok(Action::await_change());
        }
        let family = read.subnet.family();
        let reserved = match self.index.read(|index| index.reserved(family)) {
            Ok(reserved) => reserved,
            Err(error) => {
                self.events.report_subnet(name, &read.object, error.to_string()).await;
                return Ok(Action::await_change());
            }
        };
        let (wanted, undecided) = if is_terminating { Default::default() } else { self.wanted(name, family) };
        let status = read.object.status.clone().unwrap_or_default();
        let records = ControlledPools::parse(status.controlled_ip_pools.as_deref(), family);
        self.index.write(|index| index.begin_plan(name));
        let unseen = self.unseen(&read, &records).await?;
        // The plan is made outside of the lock: there may be thousands of pools.
        let view = self.state.read(|state| SubnetView::new(state, &unseen, &read.object, &read.subnet));
        let subnet_state = SubnetState {
            subnet: &read.subnet,
            records: &records,
            terminating: is_terminating,
            members: &view.members,
            wanted: &wanted,
            undecided: &undecided,
            reserved: &reserved,
            in_use: &view.in_use,
        };
        let is_taken = |pool: &str| {
            unseen.get(pool).is_some() || self.state.read(|state| state.pools.get(pool).is_some())
        };
        let mut plan = plan_subnet(&subnet_state, is_taken);
        self.index.write(|index| index.set_waiting(name, plan.waiting.clone()));
        if plan.records.text().is_some_and(|text| text.len() > MAX_RECORDS) {
            let text = format!(
                "its {} pools do not fit its status any more, none is made or changed: make another SpiderSubnet for some of its applications",
                plan.records.0.len()
            );
            self.events.report_subnet(name, &read.object, text).await;
            // What nobody needs goes all the same.
            for step in plan.steps.iter().filter(|step| matches!(step, Step::DeleteUnlessWanted { .. })) {
                self.execute(&read, step, &view).await?;
            }
            return Ok(Action::requeue(LOOK_AGAIN));
        }
        self.write_status(&read, &plan).await?;
        let (mut is_unanswered, mut failed) = (false, None);
        for step in &plan.steps {
            // One that is refused keeps no other application waiting.
            match self.execute(&read, step, &view).await {
                Ok(asked) => is_unanswered |= asked == Asked::Alive,
                Err(ReconcileError::Api(failure @ ApiFailure::Refused(_))) if !is_passing(&failure) => {
                    match step {
                        Step::Create { purpose, .. } => {
                            let cause = ProblemCause::Refused(failure.to_string());
                            plan.problems.push(Problem { purpose: purpose.clone(), cause });
                        }
                        _ => drop(failed.get_or_insert(failure.into())),
                    }
                }
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        self.events.report(name, &plan.problems).await;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(if !plan.problems.is_empty() || !plan.waiting.is_empty() {
            Action::requeue(LOOK_AGAIN)
        } else if is_unanswered {
            Action::requeue(ASK_AGAIN)
        } else {
            Action::await_change()
        })
    }

    /// Pools whose addresses the status says and no watch has shown, as the API server has them now: the last plan's
    /// writes, or those of a leader before. Planned without them, their addresses would be given once more.
    async fn unseen(
        &self,
        read: &Read,
        records: &ControlledPools,
    ) -> Result<PoolIndex<LeaderFields>, ReconcileError> {
        let behind = self.state.read(|state| view::behind(state, &read.subnet, records));
        let pools: Api<PoolObject> = Api::all(self.kube.client());
        let get = |name: String| {
            let pools = pools.clone();
            async move { self.kube.read(pools.get_opt(&name)).await }
        };
        let mut found = stream::iter(behind).map(get).buffer_unordered(READS);
        let mut unseen = PoolIndex::default();
        while let Some(pool) = found.try_next().await? {
            if let Some(pool) = pool {
                insert_pool(&mut unseen, &pool);
            }
        }
        Ok(unseen)
    }

    /// What applications want of a subnet, and the UIDs of those of which that is not known.
    fn wanted(&self, subnet: &PoolName, family: Family) -> (Vec<WantedPool>, BTreeSet<String>) {
        let mut applications: Vec<Arc<SubnetApplication>> = Vec::new();
        for kind in self.applications.iter() {
            applications.extend(kind.read(|kind| kind.iter().cloned().collect::<Vec<_>>()));
        }
        if self.settings.auto_pools {
            applications
                .extend(self.state.read(|state| state.third_parties.iter().cloned().collect::<Vec<_>>()));
        }
        let (mut wanted, mut undecided) = (Vec::new(), BTreeSet::new());
        for application in applications {
            let Ok(request) = &application.request else {
                undecided.insert(application.uid.clone());
                continue;
            };
            let nics = request.nics.all().iter().filter(|nic| nic.of(family) == Some(subnet));
            wanted.extend(nics.map(|nic| WantedPool {
                purpose: PoolPurpose {
                    application: application.application.clone(),
                    uid: application.uid.clone(),
                    nic: nic.nic.clone(),
                    family,
                },
                size: request.size.unwrap_or(PoolSize::Flexible(self.settings.redundant_addresses)),
                pods: application.pods,
                reclaim: request.reclaim,
            }));
        }
        // Who comes first gets the last addresses: always the same.
        wanted.sort_by(|a, b| key(a).cmp(&key(b)));
        (wanted, undecided)
    }

    async fn write_status(&self, read: &Read, plan: &SubnetPlan) -> Result<(), ReconcileError> {
        let status = objects::status(&read.subnet, &plan.records);
        if read.object.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let patch = Patch::Merge(objects::status_patch(&read.object, &status));
        let (name, parameters) = (read.subnet.name.as_str(), patch_parameters());
        let request = self.subnets.patch_status(name, &parameters, &patch);
        self.written(self.kube.write(request).await?);
        Ok(())
    }

    /// The next attempt begins with what was written.
    fn written(&self, object: SpiderSubnet) {
        self.index.write(|index| index.apply_written(object));
    }

    async fn execute(&self, read: &Read, step: &Step, view: &SubnetView) -> Result<Asked, ReconcileError> {
        match step {
            Step::Create { purpose, pool } => self.create(read, purpose, pool).await?,
            Step::Update(pool) => self.update(pool, view).await?,
            Step::DeleteUnlessWanted { pool, application, uid } => {
                if presence::is_wanted(&self.kube, &read.subnet.name, pool, application, uid).await? {
                    return Ok(Asked::Alive);
                }
                self.delete(pool, view).await?;
            }
            Step::Adopt(pool) => self.adopt(read, pool).await?,
        }
        Ok(Asked::Nothing)
    }

    async fn create(
        &self,
        read: &Read,
        purpose: &PoolPurpose,
        pool: &AutoPool,
    ) -> Result<(), ReconcileError> {
        let object = objects::pool(&read.object, &read.subnet, purpose, pool);
        let object: SpiderIPPool = serde_json::from_value(object)?;
        let field_manager = patch_parameters().field_manager;
        let parameters = PostParams { field_manager, ..PostParams::default() };
        self.kube.write(self.pools.create(&parameters, &object)).await?;
        let (application, nic) = (&purpose.application, &purpose.nic);
        info!(pool = %pool.name, subnet = %read.subnet.name, %application, %nic, addresses = pool.ips.len(), "pool made for an application");
        Ok(())
    }

    async fn update(&self, pool: &AutoPool, view: &SubnetView) -> Result<(), ReconcileError> {
        let name = pool.name.as_str();
        let read = self.kube.read(self.pools.get_opt(name)).await?;
        let read = read.filter(|read| {
            let now = SeenPool { uid: read.uid().unwrap_or_default(), generation: read.metadata.generation };
            view.seen.get(&pool.name) == Some(&now)
        });
        let read = read.ok_or_else(|| ReconcileError::Changed(pool.name.clone()))?;
        let patch = objects::pool_patch(pool, read.metadata.resource_version.as_deref());
        self.kube.write(self.pools.patch(name, &patch_parameters(), &Patch::Merge(patch))).await?;
        info!(pool = name, addresses = pool.ips.len(), "pool of an application changed");
        Ok(())
    }

    async fn delete(&self, pool: &PoolName, view: &SubnetView) -> Result<(), ReconcileError> {
        let Some(seen) = view.seen.get(pool) else { return Ok(()) };
        let object = Preconditions { name: pool.as_str(), uid: &seen.uid, version: None };
        match self.kube.delete(&self.pools, &object).await? {
            Deletion::Done => info!(%pool, "pool of an application that is gone deleted"),
            Deletion::Changed => debug!(%pool, "another pool has the name"),
        }
        Ok(())
    }

    async fn adopt(&self, read: &Read, pool: &PoolName) -> Result<(), ReconcileError> {
        let kind = ApiResource::erase::<SpiderIPPool>(&());
        let pools = Api::<DynamicObject>::all_with(self.kube.client(), &kind);
        let Some(found) = self.kube.read(pools.get_opt(pool.as_str())).await? else { return Ok(()) };
        let value = serde_json::to_value(&found)?;
        let typed: SpiderIPPool = serde_json::from_value(value.clone())?;
        let Ok(parsed) = Pool::try_from(&typed) else { return Ok(()) };
        if parsed.subnet != read.subnet.subnet || found.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let patch: Patch<Value> =
            Patch::Merge(objects::adoption_patch(&read.object, &read.subnet, &value, &parsed));
        self.kube.write(self.pools.patch(pool.as_str(), &patch_parameters(), &patch)).await?;
        info!(%pool, subnet = %read.subnet.name, "pool is the subnet's");
        Ok(())
    }

    /// A subnet that is deleted takes its pools with it, and goes when they are gone.
    /// Whether nothing is left to do.
    async fn finalize(&self, object: &SpiderSubnet) -> Result<bool, ReconcileError> {
        let meta = &object.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|one| one == finalizer);
        let is_last = !self.state.read(|state| view::owns_pools(state, object));
        if is_last && has(FINALIZER) {
            self.kube.remove_finalizer(&self.subnets, meta, FINALIZER, &patch_parameters()).await?;
            info!(subnet = name, "finalizer removed");
        } else if !is_last && has(FINALIZER) && !has(FOREGROUND) {
            let mut parameters = DeleteParams::foreground();
            parameters.preconditions =
                Some(kube::api::Preconditions { uid: meta.uid.clone(), resource_version: None });
            self.kube.write(self.subnets.delete(name, &parameters)).await?;
        }
        Ok(is_last)
    }
}

/// Whether the same request may succeed in a moment: what is there has changed, or the API server is busy.
fn is_passing(failure: &ApiFailure) -> bool {
    failure.is_conflict() || failure.is_already_exists() || failure.is_retryable()
}

/// Whether an application was asked for that is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Alive,
}

fn key(wanted: &WantedPool) -> (String, String, &str) {
    let purpose = &wanted.purpose;
    (purpose.application.to_string(), purpose.nic.to_string(), &purpose.uid)
}

impl Reconciler<PoolName> for SubnetReconciler {
    type Error = ReconcileError;

    async fn reconcile(&self, name: &PoolName, _since: Instant) -> Result<Action, ReconcileError> {
        if let Some(object) = self.index.read(|index| index.get(name)) {
            return self.reconcile_subnet(name, object).await;
        }
        self.events.forget(name);
        self.index.write(|index| index.set_waiting(name, BTreeSet::new()));
        Ok(Action::await_change())
    }

    fn failed(&self, name: &PoolName, error: &ReconcileError, pause: Duration) {
        let is_expected = match error {
            ReconcileError::Changed(_) => true,
            ReconcileError::Api(failure) => {
                failure.is_conflict() || failure.is_already_exists() || failure.is_not_found()
            }
            ReconcileError::Object(_) => false,
        };
        if is_expected {
            debug!(subnet = %name, %error, ?pause, "something of the subnet has changed, reconciling again");
        } else {
            warn!(subnet = %name, %error, ?pause, "SpiderSubnet not reconciled, trying again");
        }
    }
}
