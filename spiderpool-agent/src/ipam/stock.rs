//! Takes addresses out of pools and gives them back. It knows what the agent holds, what it believes of each pool,
//! and which requests have no known outcome.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use prometheus_client::metrics::counter::Counter;
use spiderpool_api::crd::SpiderIPAddressSpec;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::pick::Asker;
use spiderpool_core::ipam::{Candidate, IpamError, Pool, PoolFailure};
use spiderpool_core::names::{IfName, PoolName};
use spiderpool_runtime::kubernetes::Failure;
use tracing::debug;

use super::addresses::{Addresses, Taken};
use super::caller::Caller;
use super::find::store;
use super::held::{Held, HeldIndex, Holder};
use super::object;
use super::turns::Turns;
use super::unsettled::{Attempt, Purpose, Unsettled};
use super::view::PoolView;
use crate::watches::{ReservedIndex, Shared};

/// Addresses that are tried for a NIC and family in one request.
const ATTEMPTS: u32 = 256;
/// So many of them without a pause.
const HASTY_ATTEMPTS: u32 = 16;
/// Pause after each further one, growing up to the limit.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// For whom addresses are taken.
#[derive(Debug, Clone)]
pub(super) struct Taker {
    /// What every address of the request says, but for address, pool and NIC.
    pub spec: SpiderIPAddressSpec,
    /// The NIC that is being added, and its network.
    pub network: Option<(IfName, String)>,
    /// Whether it still wants them.
    pub caller: Caller,
}

impl Taker {
    fn purpose(&self, nic: &IfName, family: Family) -> Purpose {
        Purpose { pod_uid: self.spec.pod_uid.clone(), nic: nic.clone(), family }
    }

    fn holder(&self) -> Holder {
        let spec = &self.spec;
        Holder::new(&spec.pod_namespace, &spec.pod_name, &spec.pod_uid, &spec.owner_kind)
    }
}

/// The node's stock of addresses.
pub(super) struct Stock {
    pub(super) addresses: Addresses,
    pub(super) held: Shared<HeldIndex>,
    reserved: Shared<ReservedIndex>,
    node: String,
    pub(super) views: Mutex<HashMap<String, PoolView>>,
    unsettled: Unsettled,
    pub(super) lists: Turns<String>,
    collisions: Counter,
}

impl Stock {
    /// Empty until [`Stock::load`]. `collisions` counts addresses that somebody else had taken first.
    pub(super) fn new(
        addresses: Addresses,
        held: Shared<HeldIndex>,
        reserved: Shared<ReservedIndex>,
        node: String,
        collisions: Counter,
    ) -> Self {
        Self {
            addresses,
            held,
            reserved,
            node,
            views: Mutex::default(),
            unsettled: Unsettled::default(),
            lists: Turns::default(),
            collisions,
        }
    }

    /// Reads what the node holds.
    pub(super) async fn load(&self) -> Result<usize, Failure> {
        let held = self.addresses.of_node(&self.node).await?;
        let count = held.len();
        self.held.write(|index| index.reset(held));
        Ok(count)
    }

    /// What the node holds.
    pub(super) fn held(&self) -> &Shared<HeldIndex> {
        &self.held
    }

    /// Takes one address for a NIC and family: from the first of the pools that has one.
    pub(super) async fn take(
        &self,
        taker: &Taker,
        candidate: &Candidate,
        pools: &[Arc<Pool>],
    ) -> Result<Arc<Held>, IpamError> {
        let failed = |failures| IpamError::AllFailed {
            family: candidate.family,
            nic: candidate.nic.clone(),
            pools: pools.iter().map(|pool| pool.name.clone()).collect(),
            failures,
        };
        if let Some(held) = self.settle(taker, candidate).await.map_err(|failure| failed(vec![failure]))? {
            return Ok(held);
        }
        let purpose = taker.purpose(&candidate.nic, candidate.family);
        let mut failures = Vec::new();
        for pool in pools {
            match self.take_from(taker, candidate, pool).await {
                Ok(held) => return Ok(held),
                Err(failure) => failures.push(failure),
            }
            // The pod may have an address of this pool; another one must not give it a second.
            if self.unsettled.get(&purpose).is_some() {
                break;
            }
        }
        Err(failed(failures))
    }

    async fn take_from(
        &self,
        taker: &Taker,
        candidate: &Candidate,
        pool: &Pool,
    ) -> Result<Arc<Held>, PoolFailure> {
        let reserved = self.reserved.read(|index| index.of(pool.family()));
        let usable = pool.usable.difference(&reserved);
        for attempt in 0.. {
            if taker.caller.is_gone() || attempt >= ATTEMPTS {
                return Err(PoolFailure::Retries { pool: pool.name.clone(), tries: attempt });
            }
            let seed = Asker {
                node: &self.node,
                pod_uid: &taker.spec.pod_uid,
                nic: candidate.nic.as_str(),
                pool: pool.name.as_str(),
                attempt,
            };
            let Some(ip) = self.find(pool, &usable, seed.seed()).await? else { break };
            let net = pool
                .with_prefix(ip)
                .map_err(|error| PoolFailure::Store { pool: pool.name.clone(), cause: error.to_string() })?;
            let created = self.create(taker, &candidate.nic, &pool.name, net).await;
            if let Some(held) = created.map_err(|error| store(&pool.name, &error))? {
                return Ok(held);
            }
            debug!(address = %ip, pool = %pool.name, attempt, "somebody else has the address, picking again");
            // Bad luck on a tight pool passes soon; what does not pass must not keep the API server busy.
            let beyond = attempt.saturating_sub(HASTY_ATTEMPTS);
            tokio::time::sleep((PAUSE * beyond).min(LONGEST_PAUSE)).await;
        }
        Err(PoolFailure::Exhausted {
            pool: pool.name.clone(),
            usable: pool.usable.len(),
            reserved: pool.usable.len() - usable.len(),
        })
    }

    /// `None`: somebody else has it.
    async fn create(
        &self,
        taker: &Taker,
        nic: &IfName,
        pool: &PoolName,
        net: IpNet,
    ) -> Result<Option<Arc<Held>>, Failure> {
        let network = taker.network.as_ref().filter(|(of, _)| of == nic).map(|(_, network)| network.clone());
        let spec = SpiderIPAddressSpec {
            interface: nic.to_string(),
            pool: pool.to_string(),
            network: network.unwrap_or_default(),
            ..taker.spec.clone()
        };
        match self.addresses.create(&object::of_spec(net, spec)).await {
            Ok(Taken::Ours(held)) => {
                let held = self.held.write(|index| index.apply(*held));
                self.known(pool.as_str(), |view| view.settle(net.addr()));
                Ok(Some(held))
            }
            Ok(Taken::Theirs(listing)) => {
                self.collisions.inc();
                self.known(pool.as_str(), |view| view.collide(net.addr(), listing, Instant::now()));
                Ok(None)
            }
            Ok(Taken::Unknown(failure)) => {
                self.known(pool.as_str(), |view| view.give_back(net.addr()));
                let attempt = Attempt { net, pool: pool.clone(), holder: taker.holder() };
                self.unsettled.insert(taker.purpose(nic, Family::of_net(&net)), attempt);
                Err(failure)
            }
            Err(failure) => {
                self.known(pool.as_str(), |view| view.give_back(net.addr()));
                Err(failure)
            }
        }
    }

    /// Finishes an earlier attempt whose outcome is unknown; `None` if there was none or it came to nothing. It is
    /// forgotten only when the API server has said whose the address is.
    async fn settle(&self, taker: &Taker, candidate: &Candidate) -> Result<Option<Arc<Held>>, PoolFailure> {
        let purpose = taker.purpose(&candidate.nic, candidate.family);
        let Some(Attempt { net, pool, .. }) = self.unsettled.get(&purpose) else { return Ok(None) };
        let outcome = match self.create(taker, &candidate.nic, &pool, net).await {
            Ok(held) => {
                self.unsettled.remove(&purpose);
                return Ok(held);
            }
            // Refused: what the first attempt has done is still to be seen.
            Err(failure) if !failure.is_retryable() => self.look(&purpose, net).await,
            Err(failure) => Err(failure),
        };
        outcome.map_err(|failure| store(&pool, &failure))
    }

    /// Reads whose the address of an attempt is; the pod's own is known from then on.
    async fn look(&self, purpose: &Purpose, net: IpNet) -> Result<Option<Arc<Held>>, Failure> {
        let found = self.addresses.find(&object_name(net.addr())).await?;
        let ours = found.filter(|held| {
            (held.pod_uid.as_str(), held.interface.as_str()) == (&purpose.pod_uid, purpose.nic.as_str())
                && held.node == self.node
        });
        let held = ours.map(|held| self.held.write(|index| index.apply(held)));
        self.unsettled.remove(purpose);
        Ok(held)
    }

    /// Learns of what a pod may hold without our knowing, before it is freed.
    pub(super) async fn settle_pod(&self, pod_uid: &str) -> Result<(), Failure> {
        for (purpose, attempt) in self.unsettled.of_pod(pod_uid) {
            self.look(&purpose, attempt.net).await?;
        }
        Ok(())
    }

    /// Writes the sandbox and network that use the address now. `None`: the pod does not hold it any more.
    pub(super) async fn adopt(
        &self,
        held: &Held,
        container_id: &str,
        network: &str,
    ) -> Result<Option<Arc<Held>>, Failure> {
        let adopted = self.addresses.adopt(held, container_id, network).await?;
        Ok(self.held.write(|index| {
            let Some(now) = adopted else {
                index.delete(held.ip());
                return None;
            };
            // After a conflict it may still name the old sandbox: what is known is then right for the next try.
            let done = now.container_id == container_id && now.network == network;
            let now = index.apply(now);
            done.then_some(now)
        }))
    }

    /// Frees the address, unless its object has become something else meanwhile.
    pub(super) async fn free(&self, held: &Held) -> Result<(), Failure> {
        let mut known = Some(held.clone());
        while let Some(held) = known {
            if self.addresses.delete(&held).await? {
                break;
            }
            let container_id = held.container_id.clone();
            known = self.addresses.reread(&held).await?.filter(|now| now.container_id == container_id);
        }
        self.held.write(|index| index.delete(held.ip()));
        self.known(&held.pool, |view| view.release(held.ip(), Instant::now()));
        Ok(())
    }

    /// Changes the view of a pool if there is one.
    fn known(&self, pool: &str, change: impl FnOnce(&mut PoolView)) {
        if let Some(view) = self.views.lock().unwrap_or_else(PoisonError::into_inner).get_mut(pool) {
            change(view);
        }
    }

    /// The pods that hold something, or may.
    pub(super) fn holders(&self) -> BTreeSet<Holder> {
        self.held.read(HeldIndex::holders).into_iter().chain(self.unsettled.holders()).collect()
    }

    /// Forgets what is believed of pools that do not exist any more.
    pub(super) fn forget_pools(&self, exists: impl Fn(&str) -> bool) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|name, _| exists(name));
    }
}
