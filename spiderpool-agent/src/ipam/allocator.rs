//! The third stage of an ADD: takes addresses out of pools; and gives them back. It knows what the node's pods hold,
//! what is known of each pool's usage, and which requests have no known outcome. It knows pods by their identity only.

mod creations;
mod holdings;
mod pending_creates;
mod pool_usage;
mod reassert;
mod search;
mod shared;
mod sharing;
mod store;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use spiderpool_core::ip::IpSet;
use spiderpool_core::ipam::pick::PickContext;
use spiderpool_core::ipam::{
    AddressState, Holding, IpamError, Owner, Pool, PoolCandidates, PoolFailure, Quarantine,
};
use spiderpool_core::names::{ContainerId, IfName, NodeName, PodUid, PoolName};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::metrics::{PickMetrics, PickOutcome};
use crate::watches::{ReservedIndex, Shared};
use pending_creates::{PendingCreates, Purpose};
use search::{FreeAddresses, api_server_failed};
use shared::MigrationTargets;
use store::{AddressStore, Creation, Listing, Look, Reread};

pub(super) use creations::Creations;
pub(crate) use holdings::{AddressObject, HoldingIndex};
pub(super) use reassert::Reasserted;
pub(super) use shared::MigrationError;
pub(crate) use shared::state_path;

/// Addresses that are tried for a NIC and family in one request.
const ATTEMPTS: u32 = 256;
/// So many of them without a pause.
const IMMEDIATE_ATTEMPTS: u32 = 16;
/// Pause after each further one, growing up to the limit.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// For whom addresses are taken.
pub(super) struct Claimant {
    /// The pod and its workload.
    pub(super) owner: Arc<Owner>,
    /// Its sandbox.
    pub(super) container_id: ContainerId,
    /// The NIC that is being added.
    pub(super) nic: IfName,
    /// That NIC's network.
    pub(super) network: Option<Arc<str>>,
    /// Its grace period.
    pub(super) grace: Duration,
    /// Cancelled when nobody waits for the addresses any more.
    pub(super) abandoned: CancellationToken,
}

/// What came of an attempt to free an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freed {
    /// It is not the pod's any more.
    Yes,
    /// A newer sandbox of the pod has it.
    Adopted,
    /// Its object does not parse any more: nobody knows whose it is.
    Unreadable,
}

/// Takes and frees the addresses of this node's pods.
pub(super) struct AddressAllocator {
    store: AddressStore,
    holdings: Shared<HoldingIndex>,
    free: FreeAddresses,
    pending: PendingCreates,
    migrations: MigrationTargets,
    creations: Creations,
    reserved: Shared<ReservedIndex>,
    node: NodeName,
    metrics: PickMetrics,
}

impl AddressAllocator {
    /// Holds nothing until [`AddressAllocator::load`]. `state_dir` is the folder for what outlives the process.
    pub(super) fn new(
        kube: Kubernetes,
        reserved: Shared<ReservedIndex>,
        node: NodeName,
        state_dir: &Path,
        metrics: PickMetrics,
    ) -> Self {
        let (store, holdings) = (AddressStore::new(kube), Shared::default());
        Self {
            free: FreeAddresses::new(store.clone(), Shared::clone(&holdings)),
            store,
            holdings,
            pending: PendingCreates::default(),
            migrations: MigrationTargets::open(state_path(state_dir)),
            creations: Creations::default(),
            reserved,
            node,
            metrics,
        }
    }

    /// Reads what the node's pods hold; how many addresses.
    pub(super) async fn load(&self) -> Result<usize, ApiFailure> {
        let objects = self.store.of_node(&self.node).await?;
        let count = objects.len();
        self.holdings.write(|index| index.reset(objects));
        Ok(count)
    }

    /// What the node's pods hold.
    pub(super) fn holdings(&self) -> &Shared<HoldingIndex> {
        &self.holdings
    }

    /// The addresses that are being created.
    pub(super) fn creations(&self) -> &Creations {
        &self.creations
    }

    /// The agent's node.
    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// The pods that hold something, or may, each once.
    pub(super) fn owners(&self) -> Vec<Arc<Owner>> {
        let owners = self.holdings.read(HoldingIndex::owners).into_iter().chain(self.pending.owners());
        let by_pod: BTreeMap<_, _> = owners.map(|owner| (owner.pod.clone(), owner)).collect();
        by_pod.into_values().collect()
    }

    /// Takes one address for a NIC and family: from the first of the pools that has one.
    pub(super) async fn take(
        &self,
        claimant: &Claimant,
        candidate: &PoolCandidates,
        pools: &[Arc<Pool>],
    ) -> Result<AddressObject, IpamError> {
        let failed = |failures| IpamError::AllFailed {
            family: candidate.family,
            nic: candidate.nic.clone(),
            pools: pools.iter().map(|pool| pool.name.clone()).collect(),
            failures,
        };
        let pod_uid = claimant.owner.pod.uid.clone();
        let purpose = Purpose { pod_uid, nic: candidate.nic.clone(), family: candidate.family };
        let earlier = self.finish_pending(claimant, &purpose, pools).await;
        if let Some(object) = earlier.map_err(|failure| failed(vec![failure]))? {
            return Ok(object);
        }
        let mut failures = Vec::new();
        for pool in pools {
            match self.take_from(claimant, candidate, pool).await {
                Ok(object) => return Ok(object),
                Err(failure) => failures.push(failure),
            }
            // The pod may have an address of this pool; another one must not give it a second.
            if self.pending.get(&purpose).is_some() {
                break;
            }
        }
        Err(failed(failures))
    }

    async fn take_from(
        &self,
        claimant: &Claimant,
        candidate: &PoolCandidates,
        pool: &Pool,
    ) -> Result<AddressObject, PoolFailure> {
        let usable = self.usable(pool)?;
        for attempt in 0.. {
            if claimant.abandoned.is_cancelled() || attempt >= ATTEMPTS {
                return Err(PoolFailure::Retries { pool: pool.name.clone(), tries: attempt });
            }
            let context = PickContext {
                node: self.node.as_str(),
                pod_uid: claimant.owner.pod.uid.as_str(),
                nic: candidate.nic.as_str(),
                pool: pool.name.as_str(),
                attempt,
            };
            let find = self.free.find(pool, &usable, context.seed(), attempt);
            let Some(found) = claimant.abandoned.run_until_cancelled(find).await else { continue };
            let Some(ip) = found? else { break };
            let address = pool.with_prefix(ip).map_err(|error| PoolFailure::Refused {
                pool: pool.name.clone(),
                cause: error.to_string(),
            })?;
            let wanted = self.wanted(claimant, &candidate.nic, &pool.name, address);
            if let Some(age) = self.free.view_age(&pool.name) {
                self.metrics.viewed(age);
            }
            let look = if self.free.is_unlisted(&pool.name, ip) { Look::Always } else { Look::IfItMayBeOurs };
            let created = self.create(wanted, look, &claimant.abandoned).await;
            self.metrics.picked(match &created {
                Ok(Some(_)) => PickOutcome::Taken,
                Ok(None) => PickOutcome::Collided,
                Err(_) => PickOutcome::Failed,
            });
            if let Some(object) = created.map_err(|error| api_server_failed(&pool.name, &error))? {
                return Ok(object);
            }
            debug!(address = %ip, pool = %pool.name, attempt, "somebody else has the address, picking again");
            // A few collisions are usual on a tight pool; more must not keep the API server busy.
            let beyond = attempt.saturating_sub(IMMEDIATE_ATTEMPTS);
            tokio::time::sleep((PAUSE * beyond).min(LONGEST_PAUSE)).await;
        }
        Err(exhausted(pool, &usable, self.free.quarantined(&pool.name)))
    }

    /// What the pool may give now.
    fn usable(&self, pool: &Pool) -> Result<IpSet, PoolFailure> {
        let reserved = self.reserved.read(|index| index.of_family(pool.family()));
        Ok(pool.usable.difference(&reserved.map_err(PoolFailure::Reserved)?))
    }

    /// An address as it is to be written.
    fn wanted(&self, claimant: &Claimant, nic: &IfName, pool: &PoolName, address: IpNet) -> Holding {
        Holding {
            address,
            pool: pool.clone(),
            nic: nic.clone(),
            owner: Arc::clone(&claimant.owner),
            node: Some(self.node.clone()),
            container_id: Some(claimant.container_id.clone()),
            is_detached: false,
            network: claimant.network.clone().filter(|_| claimant.nic == *nic),
            grace: Some(claimant.grace),
            state: AddressState::Bound,
            quarantine: None,
        }
    }

    /// `None`: somebody else has it.
    async fn create(
        &self,
        wanted: Holding,
        look: Look,
        abandoned: &CancellationToken,
    ) -> Result<Option<AddressObject>, ApiFailure> {
        let (pool, ip) = (wanted.pool.clone(), wanted.ip());
        let _in_progress = self.creations.begin();
        match self.store.create(&wanted, look, abandoned).await {
            Ok(Creation::Ours(object)) => {
                self.holdings.write(|index| index.apply(object.clone()));
                self.free.taken(&pool, ip);
                Ok(Some(object))
            }
            Ok(Creation::Theirs(listing)) => {
                self.metrics.collisions.inc();
                self.free.collided(&pool, ip, listing);
                Ok(None)
            }
            Ok(Creation::Unknown(failure)) => {
                self.free.not_taken(&pool, ip);
                self.pending.insert(wanted);
                Err(failure)
            }
            Err(failure) => {
                self.free.not_taken(&pool, ip);
                Err(failure)
            }
        }
    }

    /// Finishes an earlier attempt whose outcome is unknown; `None` if there was none or it came to nothing. It is
    /// forgotten only when the API server has said whose the address is.
    async fn finish_pending(
        &self,
        claimant: &Claimant,
        purpose: &Purpose,
        pools: &[Arc<Pool>],
    ) -> Result<Option<AddressObject>, PoolFailure> {
        let Some(earlier) = self.pending.get(purpose) else { return Ok(None) };
        let failed = |failure| api_server_failed(&earlier.pool, &failure);
        let pool = pools.iter().find(|pool| pool.name == earlier.pool);
        if !pool.is_some_and(|pool| self.usable(pool).is_ok_and(|usable| usable.contains(earlier.ip()))) {
            // Reserved, or taken out of the pool, since: it must not be taken now if it has not been then.
            return self.read_pending(&earlier).await.map_err(failed);
        }
        let wanted = self.wanted(claimant, &earlier.nic, &earlier.pool, earlier.address);
        // The earlier attempt may have made it.
        let outcome = match self.create(wanted, Look::Always, &claimant.abandoned).await {
            Ok(object) => {
                self.pending.remove(purpose);
                return Ok(object);
            }
            Err(failure @ ApiFailure::Abandoned) => Err(failure),
            // Refused: what the first attempt has done is still to be seen.
            Err(failure) if !failure.is_retryable() => self.read_pending(&earlier).await,
            Err(failure) => Err(failure),
        };
        outcome.map_err(failed)
    }

    /// Reads whose the address of an attempt is; the pod's own is known from then on.
    async fn read_pending(&self, pending: &Holding) -> Result<Option<AddressObject>, ApiFailure> {
        let found = self.store.find(pending.ip()).await?;
        let ours = found.filter(|object| object.holding.serves_as(pending));
        if let Some(object) = ours.clone() {
            self.holdings.write(|index| index.apply(object));
        }
        self.pending.remove(&Purpose::of(pending));
        Ok(ours)
    }

    /// Learns of what a pod may hold without our knowing, before it is freed.
    pub(super) async fn finish_pending_of(&self, pod_uid: &PodUid) -> Result<(), ApiFailure> {
        for pending in self.pending.of_pod(pod_uid) {
            self.read_pending(&pending).await?;
        }
        self.learn_shared(pod_uid).await.map(drop)
    }

    /// Writes the sandbox and network that use the address now, unless the object says so already. `None`: the pod
    /// does not hold it any more, or an earlier sandbox has just written into it.
    pub(super) async fn adopt(
        &self,
        object: &AddressObject,
        claimant: &Claimant,
    ) -> Result<Option<AddressObject>, ApiFailure> {
        let holding = &object.holding;
        let network = claimant.network.clone().filter(|_| claimant.nic == holding.nic);
        let network = network.or_else(|| holding.network.clone());
        let is_adopted = |holding: &Holding| {
            holding.container_id.as_ref() == Some(&claimant.container_id) && holding.network == network
        };
        if is_adopted(holding) {
            return Ok(Some(object.clone()));
        }
        let adopting = Holding {
            container_id: Some(claimant.container_id.clone()),
            network: network.clone(),
            grace: Some(claimant.grace),
            ..(**holding).clone()
        };
        let adopted = self.store.adopt(object, &adopting).await?;
        Ok(self.holdings.write(|index| {
            let Some(now) = adopted else {
                index.delete(holding.ip());
                return None;
            };
            // After a conflict it may still name the old sandbox: what is known is then right for the next try.
            index.apply(now.clone());
            is_adopted(&now.holding).then_some(now)
        }))
    }

    /// Writes the pod's grace period into an object that lacks it, as those of earlier versions and restored ones do. An
    /// object that has changed meanwhile is left as it is.
    pub(super) async fn record_grace(
        &self,
        object: &AddressObject,
        grace: Duration,
    ) -> Result<(), ApiFailure> {
        let holding = Holding { grace: Some(grace), ..(*object.holding).clone() };
        if let Some(now) = self.store.adopt(object, &holding).await? {
            self.holdings.write(|index| index.apply(now));
        }
        Ok(())
    }

    /// Writes that no sandbox uses the address, unless its object has become something else meanwhile.
    pub(super) async fn detach(&self, object: &AddressObject) -> Result<(), ApiFailure> {
        let mut known = object.clone();
        loop {
            let Some(now) = self.store.detach(&known).await? else {
                self.holdings.write(|index| index.delete(object.holding.ip()));
                return Ok(());
            };
            let is_done = now.holding.is_detached || now.holding.container_id != object.holding.container_id;
            self.holdings.write(|index| index.apply(now.clone()));
            if is_done {
                return Ok(());
            }
            // Only something else of it has changed meanwhile.
            known = now;
        }
    }

    /// Writes that the address waits for the next pod of its owner's name, unless its object has become something else
    /// meanwhile.
    pub(super) async fn keep(&self, object: &AddressObject) -> Result<(), ApiFailure> {
        let mut known = object.clone();
        while let Some(now) = self.store.keep(&known).await? {
            if now.holding.state != AddressState::Bound {
                break;
            }
            if now.holding.container_id != object.holding.container_id {
                // A newer sandbox has it.
                self.holdings.write(|index| index.apply(now));
                return Ok(());
            }
            known = now;
        }
        self.holdings.write(|index| index.delete(object.holding.ip()));
        Ok(())
    }

    /// Writes that nobody gets the address for a while, unless its object has become something else meanwhile. The pod does not
    /// hold it any more then.
    pub(super) async fn quarantine(
        &self,
        object: &AddressObject,
        quarantine: &Quarantine,
    ) -> Result<(), ApiFailure> {
        let mut known = object.clone();
        while let Some(now) = self.store.quarantine(&known, quarantine).await? {
            if now.holding.state != AddressState::Bound {
                break;
            }
            known = now;
        }
        let Holding { pool, .. } = &*object.holding;
        self.holdings.write(|index| index.delete(object.holding.ip()));
        self.free.collided(pool, object.holding.ip(), Listing::Shown);
        Ok(())
    }

    /// How many addresses of a pool are quarantined.
    pub(super) async fn quarantined(&self, pool: &PoolName) -> Result<u128, ApiFailure> {
        self.store.quarantined(pool).await
    }

    /// Makes an address that was kept the claimant's, for this NIC. `None`: somebody has changed it meanwhile.
    pub(super) async fn take_over(
        &self,
        kept: &AddressObject,
        claimant: &Claimant,
        nic: &IfName,
    ) -> Result<Option<AddressObject>, ApiFailure> {
        let wanted = self.wanted(claimant, nic, &kept.holding.pool, kept.holding.address);
        let taken = self.store.take_over(kept, &wanted).await?;
        if let Some(object) = &taken {
            self.holdings.write(|index| index.apply(object.clone()));
        }
        Ok(taken)
    }

    /// The object of an address, whoever has it.
    pub(super) async fn find(&self, ip: IpAddr) -> Result<Option<AddressObject>, ApiFailure> {
        self.store.find(ip).await
    }

    /// The addresses of this node that are not known, as a list has them.
    pub(super) async fn unknown(&self) -> Result<Vec<AddressObject>, ApiFailure> {
        let mut listed = self.store.of_node(&self.node).await?;
        self.holdings.read(|index| listed.retain(|object| !index.has(object.holding.ip())));
        Ok(listed)
    }

    /// An address turns out to be that of a pod of this node, which must be locked.
    pub(super) fn learn(&self, object: AddressObject) {
        if object.holding.node.as_ref() == Some(&self.node) {
            self.holdings.write(|index| index.apply(object));
        }
    }

    /// Frees the address, unless its object has become something else meanwhile.
    pub(super) async fn free(&self, object: &AddressObject) -> Result<Freed, ApiFailure> {
        let mut known = Some(object.clone());
        while let Some(object) = known {
            if self.store.delete(&object).await? {
                break;
            }
            let is_same_sandbox =
                |now: &AddressObject| now.holding.container_id == object.holding.container_id;
            known = match self.store.reread(&object).await? {
                // The leader has kept it.
                Reread::Same(now) if now.holding.state != AddressState::Bound => None,
                Reread::Same(now) if is_same_sandbox(&now) => Some(now),
                // The answer to that was lost, or it has just happened: whoever frees next finds it.
                Reread::Same(now) => {
                    self.holdings.write(|index| index.apply(now));
                    return Ok(Freed::Adopted);
                }
                Reread::Other => None,
                Reread::Unreadable => {
                    self.holdings.write(|index| index.delete(object.holding.ip()));
                    return Ok(Freed::Unreadable);
                }
            };
        }
        let holding = &object.holding;
        self.holdings.write(|index| index.delete(holding.ip()));
        self.free.released(&holding.pool, holding.ip());
        Ok(Freed::Yes)
    }

    /// Forgets the usage of pools that do not exist any more.
    pub(super) fn forget_pools(&self, exists: impl Fn(&PoolName) -> bool) {
        self.free.forget_pools(exists);
    }
}

fn exhausted(pool: &Pool, usable: &IpSet, quarantined: u128) -> PoolFailure {
    PoolFailure::Exhausted {
        pool: pool.name.clone(),
        usable: pool.usable.len(),
        reserved: pool.usable.len() - usable.len(),
        quarantined,
    }
}
