//! Takes over a pool whose addresses upstream's agents have given out: each record of its status becomes a SpiderIPAddress, and
//! the mark on the pool comes last. What happens between two of these steps may happen again: an object that is there already is
//! the same one.

mod report;

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Api;
use kube::Resource as _;
use kube::api::{ListParams, PostParams};
use spiderpool_api::crd::{SpiderEndpointStatus, SpiderIPAddress, SpiderIPAddressSpec};
use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_api::upstream::{self, UpstreamRecord};
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::{Pool, virtual_machine};
use spiderpool_core::names::{PodName, PodUid};
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes, Preconditions};
use spiderpool_runtime::pools::{AllocationOwner, PoolObject, has_ready_condition, parse};
use tracing::{info, warn};

use super::claim;
use super::upstream_agents::{Access, ServiceAccount, UpstreamAgents};
use crate::leader::metrics::Metrics;

use report::ImportConflict;
pub(super) use report::{ImportReport, Obstacle};

/// Records that are imported at the same time.
const PARALLEL: usize = 8;
/// Whether the rights have changed is asked this often: nothing else tells.
const REPEAT: Duration = Duration::from_secs(10);
/// Attempts to write an address that somebody else gives up meanwhile.
const ATTEMPTS: usize = 3;

/// What has come of it.
#[derive(Debug)]
pub(super) enum Import {
    /// There is nothing to import, or no more: the watch tells of it.
    Unneeded,
    /// All is imported.
    Done(ImportReport),
    /// It cannot begin yet.
    Waits {
        /// Why, if a person has to know it.
        obstacle: Option<Obstacle>,
        /// When to look again; otherwise when the pool has changed.
        again: Option<Duration>,
    },
}

/// Imports.
pub(super) struct Importer {
    kube: Kubernetes,
    metrics: Metrics,
    agents: UpstreamAgents,
}

impl Importer {
    /// `agents` is the service account of this installation's agents.
    pub(super) fn new(kube: Kubernetes, metrics: Metrics, agents: ServiceAccount) -> Self {
        Self { agents: UpstreamAgents::new(kube.clone(), agents), kube, metrics }
    }

    /// Imports the pool with this UID, as the API server has it now.
    pub(super) async fn import(&self, name: &str, uid: &str) -> Result<Import, ApiFailure> {
        let pools = Api::<PoolObject>::all(self.kube.client());
        let read = || self.kube.read(pools.get_opt(name));
        let is_upstreams = |object: &PoolObject| {
            object.meta().uid.as_deref() == Some(uid)
                && AllocationOwner::of(object) == AllocationOwner::Upstream
        };
        if !read().await?.is_some_and(|object| is_upstreams(&object)) {
            return Ok(Import::Unneeded);
        }
        match self.agents.access().await? {
            Access::Revoked => {}
            Access::Settling(time) => return Ok(Import::Waits { obstacle: None, again: Some(time) }),
            Access::Granted(account) => {
                let obstacle = Some(Obstacle::Agents(account));
                return Ok(Import::Waits { obstacle, again: Some(REPEAT) });
            }
        }
        // What they have written before is in what is read from now on.
        let Some(object) = read().await?.filter(is_upstreams) else { return Ok(Import::Unneeded) };
        // A status without a condition of ours would be taken for upstream's after the mark, too. One is being written.
        if !has_ready_condition(&object) {
            return Ok(Import::Waits { obstacle: None, again: None });
        }
        // Of a spec that does not parse the condition tells.
        let Ok(pool) = parse(&object) else { return Ok(Import::Unneeded) };
        let status = object.0.as_ref().ok().and_then(|pool| pool.status.as_ref());
        let allocated = status.and_then(|status| status.allocated_ips.as_deref()).unwrap_or_default();
        let records = match upstream::records(allocated, &pool) {
            Ok(records) => records,
            Err(error) => {
                return Ok(Import::Waits { obstacle: Some(Obstacle::Records(error)), again: None });
            }
        };
        let report = self.import_records(&pool, records).await?;
        claim::mark_imported(&self.kube, &object).await?;
        info!(
            pool = name,
            addresses = report.addresses,
            faulty = report.faulty.len(),
            conflicts = report.conflicts.len(),
            "allocations of upstream's agents imported"
        );
        Ok(Import::Done(report))
    }

    async fn import_records(
        &self,
        pool: &Pool,
        records: Vec<Result<UpstreamRecord, upstream::RecordError>>,
    ) -> Result<ImportReport, ApiFailure> {
        let mut report = ImportReport::default();
        let (good, faulty): (Vec<_>, Vec<_>) = records.into_iter().partition(Result::is_ok);
        report.faulty.extend(faulty.into_iter().filter_map(Result::err).map(|error| error.to_string()));
        let good: Vec<UpstreamRecord> = good.into_iter().filter_map(Result::ok).collect();
        let mut imports = Vec::with_capacity(good.len());
        for record in &good {
            imports.push(self.import_record(pool, record));
        }
        let mut outcomes = stream::iter(imports).buffer_unordered(PARALLEL);
        while let Some(outcome) = outcomes.try_next().await? {
            match outcome {
                Imported::Yes => report.addresses += 1,
                Imported::Faulty(fault) => report.faulty.push(fault),
                Imported::Conflict(conflict) => report.conflicts.push(conflict),
            }
        }
        for fault in &report.faulty {
            warn!(pool = %pool.name, fault, "a record of upstream's agents is not imported");
        }
        Ok(report)
    }

    async fn import_record(&self, pool: &Pool, record: &UpstreamRecord) -> Result<Imported, ApiFailure> {
        let ip = record.address.addr();
        let endpoints = EndpointStore::new(self.kube.clone());
        let endpoint = endpoints.get(&record.name).await?.and_then(|endpoint| endpoint.status);
        let pod = self.pod(record, endpoint.as_ref()).await?;
        let holding = match record.holding(pool, endpoint.as_ref(), pod.as_ref()) {
            Ok(holding) => holding,
            Err(error) => return Ok(Imported::Faulty(format!("{ip} of Pod {}: {error}", record.name))),
        };
        let (api, object) = (Api::all(self.kube.client()), SpiderIPAddress::from(&holding));
        for _ in 0..ATTEMPTS {
            match self.kube.write(api.create(&PostParams::default(), &object)).await {
                Ok(_) => {
                    self.metrics.addresses_imported.inc();
                    return Ok(Imported::Yes);
                }
                Err(failure) if failure.is_already_exists() => {}
                Err(failure) => return Err(failure),
            }
            let Some(found) = self.kube.read(api.get_opt(&object_name(ip))).await? else { continue };
            if found.spec.pod_uid == record.uid.as_str() {
                return Ok(Imported::Yes);
            }
            // Of an earlier time in which the pool was ours: its pod has ended since.
            if self.is_alive(&found.spec).await? {
                let other = format!("{}/{}", found.spec.pod_namespace, found.spec.pod_name);
                warn!(address = %ip, pod = %record.name, other, "two pods have an address, it stays the other one's");
                return Ok(Imported::Conflict(ImportConflict {
                    address: ip,
                    pod: record.name.clone(),
                    other,
                }));
            }
            self.kube.delete(&api, &Preconditions::from_meta(&found.metadata)).await?;
        }
        Ok(Imported::Faulty(format!(
            "{ip} of Pod {}: its SpiderIPAddress changes again and again",
            record.name
        )))
    }

    /// The pod with the record's UID, if there is one.
    async fn pod(
        &self,
        record: &UpstreamRecord,
        endpoint: Option<&SpiderEndpointStatus>,
    ) -> Result<Option<Pod>, ApiFailure> {
        if let Some(pod) = self.read_pod(&record.name, &record.uid).await? {
            return Ok(Some(pod));
        }
        if endpoint.is_none_or(|one| one.owner_controller_type != virtual_machine::INSTANCE) {
            return Ok(None);
        }
        // The record has the name of the machine.
        let pods = Api::<PodObject>::namespaced(self.kube.client(), record.name.namespace());
        let of_machine = ListParams::default().labels("kubevirt.io=virt-launcher");
        let found = self.kube.pages_by(&pods, of_machine, |pod| Pod::try_from(pod).ok()).await?;
        Ok(found.into_iter().flatten().find(|pod| pod.identity.uid == record.uid))
    }

    async fn read_pod(&self, name: &PodName, uid: &PodUid) -> Result<Option<Pod>, ApiFailure> {
        let pods = Api::<PodObject>::namespaced(self.kube.client(), name.namespace());
        let found = self.kube.read(pods.get_opt(name.name())).await?;
        let found = found.and_then(|pod| Pod::try_from(pod).ok());
        Ok(found.filter(|pod| pod.identity.uid == *uid))
    }

    /// Whether the pod that an object names may use the address. What does not parse may.
    async fn is_alive(&self, spec: &SpiderIPAddressSpec) -> Result<bool, ApiFailure> {
        let name = PodName::new(spec.pod_namespace.as_str(), spec.pod_name.as_str()).ok();
        let Some((name, uid)) = name.zip(spec.pod_uid.parse::<PodUid>().ok()) else { return Ok(true) };
        let found = self.read_pod(&name, &uid).await?;
        Ok(found.is_some_and(|pod| pod.stage != PodStage::Finished))
    }
}

/// What has come of a record.
enum Imported {
    Yes,
    Faulty(String),
    Conflict(ImportConflict),
}
