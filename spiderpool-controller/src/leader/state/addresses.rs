//! Addresses in use, by pool and by pod.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_core::ipam::{AddressState, Holding, Owner, Workload};
use spiderpool_core::names::{PodIdentity, PodName};
use spiderpool_runtime::watch::Index;

use super::slim::SlimAddress;
use super::{ClusterState, PodId};

/// What is kept of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// With the prefix length of its subnet; `None` if the object's field is invalid.
    pub net: Option<IpNet>,
    /// The NIC.
    pub interface: Arc<str>,
    /// Whether its state is `Bound`: one that is kept or quarantined is not freed.
    pub is_bound: bool,
    /// The pod that holds it.
    pub holder: PodId,
}

/// A pod that holds addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The node whose agent holds the addresses.
    pub node: Arc<str>,
    /// Kind of the pod's topmost controller.
    pub owner_kind: Arc<str>,
    /// Its name.
    pub owner_name: Arc<str>,
    /// The addresses, and their pools.
    addresses: Vec<(IpAddr, Arc<str>)>,
}

impl Holder {
    /// Whether it is a static pod, which the kubelet runs from a file: its owner is the Node.
    pub fn is_static(&self) -> bool {
        &*self.owner_kind == "Node"
    }

    fn owner(&self, id: &PodId) -> Option<Owner> {
        let name = PodName::new(Arc::clone(&id.namespace), Arc::clone(&id.name)).ok()?;
        let pod = PodIdentity { name, uid: Arc::clone(&id.uid).try_into().ok()? };
        let workload = Workload { kind: Arc::clone(&self.owner_kind), name: Arc::clone(&self.owner_name) };
        Some(Owner { pod, workload: (!self.owner_kind.is_empty()).then_some(workload) })
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|(ip, _)| *ip)
    }
}

/// The addresses.
#[derive(Debug, Default)]
pub struct AddressIndex {
    pools: HashMap<Arc<str>, BTreeMap<IpAddr, Address>>,
    places: HashMap<IpAddr, Arc<str>>,
    holders: HashMap<PodId, Holder>,
}

impl AddressIndex {
    /// The addresses of a pool, ascending.
    pub fn of_pool(&self, pool: &str) -> impl Iterator<Item = (IpAddr, &Address)> {
        self.pools.get(pool).into_iter().flatten().map(|(ip, address)| (*ip, address))
    }

    /// How many addresses of a pool are in use.
    pub fn count(&self, pool: &str) -> usize {
        self.pools.get(pool).map_or(0, BTreeMap::len)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The pools that addresses are from, whether they exist or not.
    pub fn pools(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.pools.keys().cloned()
    }

    /// The pods that hold addresses.
    pub fn holders(&self) -> impl Iterator<Item = (&PodId, &Holder)> {
        self.holders.iter()
    }

    /// What a pod holds.
    pub fn holder(&self, id: &PodId) -> Option<&Holder> {
        self.holders.get(id)
    }

    /// The bound addresses of a pod that are readable.
    pub fn held(&self, id: &PodId) -> Vec<Holding> {
        let Some(holder) = self.holders.get(id) else { return Vec::new() };
        let Some(owner) = holder.owner(id).map(Arc::new) else { return Vec::new() };
        let held = holder.addresses.iter().filter_map(|(ip, pool)| {
            let address = self.pools.get(pool)?.get(ip)?;
            Some(Holding {
                address: address.net.filter(|_| address.is_bound)?,
                pool: Arc::clone(pool).try_into().ok()?,
                nic: Arc::clone(&address.interface).try_into().ok()?,
                owner: Arc::clone(&owner),
                node: None,
                container_id: None,
                network: None,
                state: AddressState::Bound,
            })
        });
        held.collect()
    }

    /// The pod's addresses that are bound to it.
    pub fn bound(&self, id: &PodId) -> Vec<IpAddr> {
        let Some(holder) = self.holders.get(id) else { return Vec::new() };
        let is_bound = |(ip, pool): &&(IpAddr, Arc<str>)| {
            self.pools.get(pool).and_then(|pool| pool.get(ip)).is_some_and(|address| address.is_bound)
        };
        holder.addresses.iter().filter(is_bound).map(|(ip, _)| *ip).collect()
    }

    /// Removes an address; returns its pool and its holder.
    fn remove(&mut self, ip: IpAddr) -> Option<(Arc<str>, PodId)> {
        let pool = self.places.remove(&ip)?;
        let addresses = self.pools.get_mut(&pool)?;
        let address = addresses.remove(&ip)?;
        if addresses.is_empty() {
            self.pools.remove(&pool);
        }
        if let Some(holder) = self.holders.get_mut(&address.holder) {
            holder.addresses.retain(|(other, _)| *other != ip);
            if holder.addresses.is_empty() {
                self.holders.remove(&address.holder);
            }
        }
        Some((pool, address.holder))
    }
}

impl ClusterState {
    fn insert_address(&mut self, ip: IpAddr, address: &SlimAddress) -> (Arc<str>, PodId) {
        let interner = &mut self.interner;
        let (pool, interface) = (interner.intern(&address.pool), interner.intern(&address.interface));
        let id = PodId {
            namespace: interner.intern(&address.namespace),
            name: interner.intern(&address.pod),
            uid: interner.intern(&address.uid),
        };
        let holder = self.addresses.holders.entry(id.clone()).or_insert_with(|| Holder {
            node: interner.intern(&address.node),
            owner_kind: interner.intern(&address.owner_kind),
            owner_name: interner.intern(&address.owner_name),
            addresses: Vec::with_capacity(1),
        });
        if *holder.node != *address.node {
            holder.node = interner.intern(&address.node);
        }
        holder.addresses.push((ip, Arc::clone(&pool)));
        let known = Address { net: address.net, interface, is_bound: address.is_bound, holder: id.clone() };
        self.addresses.pools.entry(Arc::clone(&pool)).or_default().insert(ip, known);
        self.addresses.places.insert(ip, Arc::clone(&pool));
        (pool, id)
    }

    fn remove_address(&mut self, ip: IpAddr) {
        if let Some((pool, id)) = self.addresses.remove(ip) {
            self.changes.pools.insert(pool);
            self.mark_pod_changed(id);
        }
    }
}

impl Index<SlimAddress> for ClusterState {
    fn apply(&mut self, address: SlimAddress) {
        let Some(ip) = address.ip else { return };
        self.remove_address(ip);
        let (pool, id) = self.insert_address(ip, &address);
        self.changes.pools.insert(pool);
        self.mark_pod_changed(id);
    }

    fn delete(&mut self, address: &SlimAddress) {
        if let Some(ip) = address.ip {
            self.remove_address(ip);
        }
    }

    fn reset(&mut self, addresses: Vec<SlimAddress>) {
        let before: Vec<Arc<str>> = self.addresses.pools().collect();
        self.changes.pools.extend(before);
        self.addresses = AddressIndex::default();
        for address in addresses {
            if let Some(ip) = address.ip {
                self.insert_address(ip, &address);
            }
        }
        self.mark_all_changed();
    }
}
