//! Addresses in use, by pool and by pod.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use spiderpool_core::ipam::{AddressState, Holding, Owner, Workload};
use spiderpool_core::names::{NodeName, PodIdentity, PodName};

use super::interner::Interner;
use super::slim::SlimAddress;

/// The pod that holds an address, and how many it holds.
#[derive(Debug)]
struct Holder {
    owner: Arc<Owner>,
    addresses: Vec<IpAddr>,
}

/// Whose addresses a change concerns.
#[derive(Debug)]
pub(crate) struct AddressChange {
    /// The pool.
    pub(crate) pool: Arc<str>,
    /// The pod that holds the address, or held it.
    pub(crate) pod: Option<PodIdentity>,
}

/// The addresses.
#[derive(Debug, Default)]
pub(crate) struct AddressIndex {
    /// By pool; `None` for an address whose object is unreadable: it is in use. Boxed, because a third of a map's places is empty.
    pools: HashMap<Arc<str>, BTreeMap<IpAddr, Option<Box<Holding>>>>,
    pool_of: HashMap<IpAddr, Arc<str>>,
    holders: HashMap<PodIdentity, Holder>,
    /// Addresses that wait for a next pod, by the name of the endpoint that names them.
    kept: HashMap<PodName, Vec<IpAddr>>,
    /// How many of the holders are pods of virtual machines.
    of_machines: usize,
}

impl AddressIndex {
    /// The addresses of a pool, ascending; `None` for those of an unknown pod.
    pub(crate) fn of_pool(&self, pool: &str) -> impl Iterator<Item = (IpAddr, Option<&Holding>)> {
        self.pools.get(pool).into_iter().flatten().map(|(ip, holding)| (*ip, holding.as_deref()))
    }

    /// How many addresses of a pool are in use.
    pub(crate) fn count(&self, pool: &str) -> usize {
        self.pools.get(pool).map_or(0, BTreeMap::len)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pool_of.len()
    }

    /// The pools that addresses are from, whether they exist or not.
    pub(crate) fn pools(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.pools.keys().cloned()
    }

    /// The pods that hold addresses.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &PodIdentity> {
        self.holders.keys()
    }

    /// What is known of a pod that holds addresses.
    pub(crate) fn owner(&self, pod: &PodIdentity) -> Option<&Arc<Owner>> {
        self.holders.get(pod).map(|holder| &holder.owner)
    }

    /// What a pod holds.
    pub(crate) fn of_pod(&self, pod: &PodIdentity) -> impl Iterator<Item = &Holding> {
        let addresses = self.holders.get(pod).into_iter().flat_map(|holder| &holder.addresses);
        addresses.filter_map(|ip| self.pools.get(self.pool_of.get(ip)?)?.get(ip)?.as_deref())
    }

    /// What is known of all pods that hold addresses.
    pub(crate) fn all_owners(&self) -> impl Iterator<Item = &Arc<Owner>> {
        self.holders.values().map(|holder| &holder.owner)
    }

    /// Whether pods of virtual machines hold addresses, or have left some.
    pub(crate) fn has_virtual_machines(&self) -> bool {
        self.of_machines > 0
    }

    /// What waits for the next pod whose endpoint has this name.
    pub(crate) fn kept_for(&self, name: &PodName) -> impl Iterator<Item = &Holding> {
        let addresses = self.kept.get(name).into_iter().flatten();
        addresses.filter_map(|ip| self.pools.get(self.pool_of.get(ip)?)?.get(ip)?.as_deref())
    }

    /// The names of endpoints for whose next pod something waits.
    pub(crate) fn names_with_kept(&self) -> impl Iterator<Item = &PodName> {
        self.kept.keys()
    }

    /// What a pod held last that waits for the next one.
    pub(crate) fn kept_by(&self, pod: &PodIdentity) -> impl Iterator<Item = &Holding> {
        self.of_pod(pod).filter(|holding| holding.state == AddressState::Kept)
    }

    /// The addresses that are bound to a pod.
    pub(crate) fn bound(&self, pod: &PodIdentity) -> impl Iterator<Item = &Holding> {
        self.of_pod(pod).filter(|holding| holding.state == AddressState::Bound)
    }

    /// The addresses that a pod was given and that somebody else was seen using.
    pub(crate) fn quarantined(&self, pod: &PodIdentity) -> impl Iterator<Item = &Holding> {
        self.of_pod(pod).filter(|holding| holding.state == AddressState::Quarantined)
    }

    /// Whether pods have addresses of a pool, or wait for them.
    pub(crate) fn is_in_use(&self, pool: &str) -> bool {
        let is_quarantined = |holding: &Holding| holding.state == AddressState::Quarantined;
        self.of_pool(pool).any(|(_, holding)| !holding.is_some_and(is_quarantined))
    }

    /// Whether no sandbox uses any of what is bound to a pod.
    pub(crate) fn is_detached(&self, pod: &PodIdentity) -> bool {
        let mut bound = self.bound(pod).peekable();
        bound.peek().is_some() && bound.all(|holding| holding.is_detached)
    }

    /// The node whose agent holds a pod's addresses.
    pub(crate) fn node(&self, pod: &PodIdentity) -> Option<&NodeName> {
        self.of_pod(pod).find_map(|holding| holding.node.as_ref())
    }

    /// Adds an address that is not in the index; `None` if the object's name is no address.
    pub(super) fn insert(&mut self, address: SlimAddress, interner: &mut Interner) -> Option<AddressChange> {
        let (ip, pool) = (address.ip?, interner.intern(&address.pool));
        let holding = address.holding.map(|holding| compact(interner, holding));
        let pod = holding.as_ref().map(|holding| holding.owner.pod.clone());
        self.insert_holding(ip, Arc::clone(&pool), holding);
        Some(AddressChange { pool, pod })
    }

    /// Removes an address; `None` if it is not in the index.
    pub(super) fn remove(&mut self, ip: IpAddr) -> Option<AddressChange> {
        let pool = self.pool_of.remove(&ip)?;
        let addresses = self.pools.get_mut(&pool)?;
        let holding = addresses.remove(&ip)?;
        if addresses.is_empty() {
            self.pools.remove(&pool);
        }
        if let Some(Holding { state: AddressState::Kept, owner, .. }) = holding.as_deref() {
            let name = owner.endpoint_name();
            if let Some(kept) = self.kept.get_mut(&name) {
                kept.retain(|other| *other != ip);
                if kept.is_empty() {
                    self.kept.remove(&name);
                }
            }
        }
        let pod = holding.map(|holding| holding.owner.pod.clone());
        if let Some(pod) = &pod
            && let Some(holder) = self.holders.get_mut(pod)
        {
            holder.addresses.retain(|other| *other != ip);
            if holder.addresses.is_empty() {
                self.of_machines -= usize::from(holder.owner.virtual_machine.is_some());
                self.holders.remove(pod);
            }
        }
        Some(AddressChange { pool, pod })
    }

    fn insert_holding(&mut self, ip: IpAddr, pool: Arc<str>, mut holding: Option<Holding>) {
        if let Some(holding) = &mut holding {
            let pod = holding.owner.pod.clone();
            if holding.state == AddressState::Kept {
                self.kept.entry(holding.owner.endpoint_name()).or_default().push(ip);
            }
            let of_machines = &mut self.of_machines;
            let holder = self.holders.entry(pod).or_insert_with(|| {
                *of_machines += usize::from(holding.owner.virtual_machine.is_some());
                Holder { owner: Arc::clone(&holding.owner), addresses: Vec::with_capacity(1) }
            });
            holder.addresses.push(ip);
            // Addresses of one pod say the same of it.
            if holder.owner == holding.owner {
                holding.owner = Arc::clone(&holder.owner);
            }
        }
        self.pools.entry(Arc::clone(&pool)).or_default().insert(ip, holding.map(Box::new));
        self.pool_of.insert(ip, pool);
    }
}

/// The holding with its texts shared, and without the sandbox, which is of no use here.
fn compact(interner: &mut Interner, holding: Holding) -> Holding {
    let Owner { pod, workload, virtual_machine } = &*holding.owner;
    let pod = interner.share_identity(pod);
    let workload = workload
        .as_ref()
        .map(|top| Workload { kind: interner.intern(&top.kind), name: interner.intern(&top.name) });
    let virtual_machine = virtual_machine.as_ref().map(|machine| interner.intern(machine));
    Holding {
        owner: Arc::new(Owner { pod, workload, virtual_machine }),
        pool: interner.share(holding.pool),
        nic: interner.share(holding.nic),
        node: holding.node.map(|node| interner.share(node)),
        container_id: None,
        network: None,
        ..holding
    }
}
