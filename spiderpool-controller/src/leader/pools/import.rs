//! Takes over a pool whose addresses upstream's agents have given out: each record of its status becomes a SpiderIPAddress, and
//! the mark on the pool comes last. What happens between two of these steps may happen again: an object that is there already is
//! the same one.

mod report;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Api;
use kube::Resource as _;
use kube::api::{ListParams, PostParams};
use kube::core::DeserializeGuard;
use spiderpool_api::crd::{SpiderEndpoint, SpiderEndpointStatus, SpiderIPAddress, SpiderIPAddressSpec};
use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_api::upstream::{self, UpstreamRecord};
use spiderpool_core::ipam::Pool;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{PodName, PodUid};
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
        match self.agents.access().await? {
            Access::Revoked => {}
            Access::Settling(time) => return Ok(Import::Waits { obstacle: None, again: Some(time) }),
            Access::Granted(account) => {
                let obstacle = Some(Obstacle::Agents(account));
                return Ok(Import::Waits { obstacle, again: Some(REPEAT) });
            }
        }
        // What they have written before is in what is read from now on.
        let is_upstreams = |object: &PoolObject| {
            object.meta().uid.as_deref() == Some(uid)
                && AllocationOwner::of(object) == AllocationOwner::Upstream
        };
        let found = self.kube.read(Api::<PoolObject>::all(self.kube.client()).get_opt(name)).await?;
        let Some(object) = found.filter(is_upstreams) else { return Ok(Import::Unneeded) };
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
        let endpoints = self.endpoints(&pool, &records).await?;
        let report = self.import_records(&pool, records, &endpoints).await?;
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

    /// The endpoints that records of the pool or addresses of it belong to.
    async fn endpoints(&self, pool: &Pool, records: &Records) -> Result<Endpoints, ApiFailure> {
        let recorded: HashSet<&PodName> = records.iter().flatten().map(|record| &record.name).collect();
        let endpoints = Api::<DeserializeGuard<SpiderEndpoint>>::all(self.kube.client());
        let of_pool = |endpoint: DeserializeGuard<SpiderEndpoint>| {
            let endpoint = endpoint.0.inspect_err(|invalid| {
                warn!(error = %invalid.error, "SpiderEndpoint cannot be decoded, its pod's addresses are imported without it");
            });
            let SpiderEndpoint { metadata, status, .. } = endpoint.ok()?;
            let name = PodName::new(metadata.namespace?, metadata.name?).ok()?;
            let status = status?;
            let is_of_pool =
                recorded.contains(&name) || !upstream::unrecorded(pool, &name, &status, |_| false).is_empty();
            is_of_pool.then_some((name, status))
        };
        let found = self.kube.pages_by(&endpoints, ListParams::default(), of_pool).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn import_records(
        &self,
        pool: &Pool,
        records: Records,
        endpoints: &Endpoints,
    ) -> Result<ImportReport, ApiFailure> {
        let mut report = ImportReport::default();
        let (good, faulty): (Vec<_>, Vec<_>) = records.into_iter().partition(Result::is_ok);
        report.faulty.extend(faulty.into_iter().filter_map(Result::err).map(|error| error.to_string()));
        let good: Vec<UpstreamRecord> = good.into_iter().filter_map(Result::ok).collect();
        let recorded: HashSet<IpAddr> = good.iter().map(|record| record.address.addr()).collect();
        let is_recorded = |ip| recorded.contains(&ip);
        let unrecorded: Vec<UpstreamRecord> = endpoints
            .iter()
            .flat_map(|(name, status)| upstream::unrecorded(pool, name, status, is_recorded))
            .collect();
        let mut imports = Vec::with_capacity(good.len() + unrecorded.len());
        for record in &good {
            imports.push(self.import_record(pool, record, endpoints, Source::Record));
        }
        for record in &unrecorded {
            imports.push(self.import_record(pool, record, endpoints, Source::Endpoint));
        }
        let mut outcomes = stream::iter(imports).buffer_unordered(PARALLEL);
        while let Some(outcome) = outcomes.try_next().await? {
            match outcome {
                Imported::Yes => report.addresses += 1,
                Imported::Unneeded => {}
                Imported::Conflict(conflict) => report.conflicts.push(conflict),
            }
        }
        for fault in &report.faulty {
            warn!(pool = %pool.name, fault, "a record of upstream's agents is not imported");
        }
        Ok(report)
    }

    async fn import_record(
        &self,
        pool: &Pool,
        record: &UpstreamRecord,
        endpoints: &Endpoints,
        source: Source,
    ) -> Result<Imported, ApiFailure> {
        let ip = record.address.addr();
        let endpoint = endpoints.get(&record.name);
        let pod = self.pod(record, endpoint).await?;
        let lives = pod.as_ref().is_some_and(|pod| pod.stage != PodStage::Finished);
        if source == Source::Endpoint && !lives {
            return Ok(Imported::Unneeded);
        }
        let holding = record.holding(pool, endpoint, pod.as_ref());
        let (api, object) = (Api::all(self.kube.client()), SpiderIPAddress::from(&holding));
        let mut attempts = 1..ATTEMPTS;
        loop {
            let created = self.kube.write(api.create(&PostParams::default(), &object)).await;
            let Err(failure) = created else {
                self.metrics.addresses_imported.inc();
                return Ok(Imported::Yes);
            };
            if !failure.is_already_exists() {
                return Err(failure);
            }
            if let Some(found) = self.kube.read(api.get_opt(&object_name(ip))).await? {
                if found.spec.pod_uid == holding.owner.pod.uid.as_str() {
                    return Ok(Imported::Yes);
                }
                // Nobody uses it by this record.
                let Some(pod) = pod.as_ref().filter(|_| lives) else { return Ok(Imported::Unneeded) };
                // Of an earlier time in which the pool was ours: its pod has ended since, or not.
                if self.is_alive(&found.spec).await? {
                    self.metrics.addresses_lost.inc();
                    let conflict = ImportConflict::new(ip, pod, &found.spec);
                    warn!(%conflict, "two pods have an address, it stays the second one's");
                    return Ok(Imported::Conflict(conflict));
                }
                self.kube.delete(&api, &Preconditions::from_meta(&found.metadata)).await?;
            }
            // Somebody makes it again and again: the whole pool is tried again.
            if attempts.next().is_none() {
                return Err(failure);
            }
        }
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
        if !endpoint.is_some_and(|endpoint| upstream::is_of_machine(endpoint, &record.name)) {
            return Ok(None);
        }
        // The record has the name of the machine. A label's value is shorter than a name may be.
        let pods = Api::<PodObject>::namespaced(self.kube.client(), record.name.namespace());
        let labels = match record.name.name() {
            machine if machine.len() <= 63 => {
                format!("kubevirt.io=virt-launcher,vm.kubevirt.io/name={machine}")
            }
            _ => "kubevirt.io=virt-launcher".to_owned(),
        };
        let of_machine = ListParams::default().labels(&labels);
        let found = self.kube.pages_by(&pods, of_machine, |pod| Pod::try_from(pod).ok()).await?;
        Ok(found.into_iter().flatten().find(|pod| pod.identity.uid == record.uid))
    }

    async fn read_pod(&self, name: &PodName, uid: &PodUid) -> Result<Option<Pod>, ApiFailure> {
        let pods = Api::<PodObject>::namespaced(self.kube.client(), name.namespace());
        let found = self.kube.read(pods.get_opt(name.name())).await?;
        let found = found.and_then(|pod| Pod::try_from(pod).ok());
        // Upstream knows a static pod by the UID of its mirror.
        Ok(found.filter(|pod| pod.identity.uid == *uid || pod.object_uid == uid.as_str()))
    }

    /// Whether the pod that an object names may use the address. What does not parse may.
    async fn is_alive(&self, spec: &SpiderIPAddressSpec) -> Result<bool, ApiFailure> {
        let name = PodName::new(spec.pod_namespace.as_str(), spec.pod_name.as_str()).ok();
        let Some((name, uid)) = name.zip(spec.pod_uid.parse::<PodUid>().ok()) else { return Ok(true) };
        let found = self.read_pod(&name, &uid).await?;
        Ok(found.is_some_and(|pod| pod.stage != PodStage::Finished))
    }
}

/// Records of a pool, each with what is wrong with it.
type Records = Vec<Result<UpstreamRecord, upstream::RecordError>>;
/// Endpoints by their names.
type Endpoints = HashMap<PodName, SpiderEndpointStatus>;

/// What says that an address is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The pool's status.
    Record,
    /// An endpoint alone: only of a pod that lives.
    Endpoint,
}

/// What has come of a record.
enum Imported {
    Yes,
    Unneeded,
    Conflict(ImportConflict),
}
