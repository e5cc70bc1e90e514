//! What a replica knows of other objects: pools, SpiderSubnets, Service CIDRs, networks and, if pods get networks by an annotation,
//! annotations of namespaces, by watches. A follower has no other index; the leader
//! has its own beside it. A pool that is created at the same moment is not known: of two that share addresses, the older
//! one goes on all the same (`spiderpool_runtime::pools`).

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::core::{ObjectMeta, PartialObjectMeta};
use spiderpool_api::crd::{SpiderCoordinator, SpiderMultusConfig, SpiderSubnet, SpiderSubnetSpec};
use spiderpool_core::ipam::Pool;
use spiderpool_core::multus::{INJECTION_KEYS, InjectableNetwork, MultusFields};
use spiderpool_core::subnet::Subnet;
use spiderpool_runtime::coordinators::CoordinatorIndex;
use spiderpool_runtime::pools::{AllocationOwner, ParsedSpec, PoolIndex, PoolObject, parse, pool_name};
use spiderpool_runtime::watch::Index;

/// Pools, subnets, coordinators and networks.
#[derive(Debug, Default)]
pub(super) struct KnownObjects {
    pub(super) pools: PoolIndex,
    /// SpiderSubnets by name.
    subnets: BTreeMap<String, KnownSubnet>,
    pub(super) coordinators: CoordinatorIndex,
    /// Names of NetworkAttachmentDefinitions, by namespace and name of their SpiderMultusConfigs.
    attachments: BTreeMap<(String, String), String>,
    /// Those of them that pods get by an annotation.
    injectable: BTreeMap<(String, String), InjectableNetwork>,
    /// The annotations by which their pods ask for networks, by namespace.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl KnownObjects {
    /// The pools whose spec is valid, whether they serve or not.
    pub(super) fn valid_pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let specs = self.pools.names().filter_map(|name| self.pools.get(name.as_str())?.spec());
        specs.filter_map(|spec| spec.as_ref().ok())
    }

    /// The SpiderSubnets whose spec is valid.
    pub(super) fn valid_subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.subnets.values().filter_map(|subnet| subnet.parsed.as_ref())
    }

    /// The SpiderSubnet that a pool of this network belongs to. There is one, unless two were made at the same moment: then
    /// it is the older one. One that goes gets no pools any more.
    pub(super) fn subnet_of(&self, network: &str) -> Option<(&KnownSubnet, &Subnet)> {
        let network: IpNet = network.parse().ok()?;
        let valid = self.subnets.values().filter_map(|subnet| Some((subnet, subnet.parsed.as_ref()?)));
        let of_network = valid.filter(|(subnet, parsed)| !subnet.terminating && parsed.subnet == network);
        of_network.min_by_key(|(subnet, _)| (subnet.created.as_ref().map(|at| at.0), &subnet.name))
    }

    /// A SpiderMultusConfig other than `except` whose NetworkAttachmentDefinition has this name.
    pub(super) fn network_of(&self, namespace: &str, attachment: &str, except: &str) -> Option<String> {
        let mut all = self.attachments.iter();
        let found =
            all.find(|((of, name), known)| of == namespace && name != except && known.as_str() == attachment);
        found.map(|((_, name), _)| name.clone())
    }

    /// The networks that pods get by an annotation.
    pub(super) fn injectable(&self) -> impl Iterator<Item = &InjectableNetwork> {
        self.injectable.values()
    }

    /// The annotations by which the pods of a namespace ask for networks; `None` if the namespace is not known.
    pub(super) fn annotations_of(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }
}

/// The name of a network, and that of its NetworkAttachmentDefinition.
#[derive(Debug)]
pub(super) struct KnownNetwork {
    key: (String, String),
    attachment: String,
    injectable: Option<InjectableNetwork>,
}

impl From<SpiderMultusConfig> for KnownNetwork {
    fn from(object: SpiderMultusConfig) -> Self {
        let attachment = MultusFields::from(&object).attachment_name().to_owned();
        let injectable = injectable(&object);
        Self { key: (object.namespace().unwrap_or_default(), object.name_any()), attachment, injectable }
    }
}

/// The network as pods get it by an annotation; `None` if none does.
pub(super) fn injectable(object: &SpiderMultusConfig) -> Option<InjectableNetwork> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let namespace = object.namespace().unwrap_or_default();
    InjectableNetwork::new(&namespace, &MultusFields::from(object), object.metadata.labels.as_ref())
}

/// What a namespace says of its pods' networks.
#[derive(Debug)]
pub(super) struct KnownNamespace {
    name: String,
    annotations: BTreeMap<String, String>,
}

impl From<PartialObjectMeta<Namespace>> for KnownNamespace {
    fn from(object: PartialObjectMeta<Namespace>) -> Self {
        let mut annotations = object.metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| INJECTION_KEYS.contains(&key.as_str()));
        Self { name: object.metadata.name.unwrap_or_default(), annotations }
    }
}

/// A SpiderSubnet without its status.
#[derive(Debug)]
pub(super) struct KnownSubnet {
    pub(super) name: String,
    pub(super) uid: String,
    /// As it is written: pools inherit gateway and routes of it.
    pub(super) spec: SpiderSubnetSpec,
    created: Option<Time>,
    terminating: bool,
    parsed: Option<Subnet>,
}

impl From<SpiderSubnet> for KnownSubnet {
    fn from(object: SpiderSubnet) -> Self {
        let parsed = Subnet::try_from(&object).ok();
        let (name, meta) = (object.name_any(), object.metadata);
        Self {
            name,
            uid: meta.uid.unwrap_or_default(),
            spec: object.spec,
            created: meta.creation_timestamp,
            terminating: meta.deletion_timestamp.is_some(),
            parsed,
        }
    }
}

/// A pool without its status.
#[derive(Debug)]
pub(super) struct KnownPool {
    meta: ObjectMeta,
    spec: ParsedSpec,
    owner: AllocationOwner,
}

impl From<PoolObject> for KnownPool {
    fn from(object: PoolObject) -> Self {
        let meta = ObjectMeta { managed_fields: None, ..kube::Resource::meta(&object).clone() };
        Self { meta, spec: parse(&object), owner: AllocationOwner::of(&object) }
    }
}

impl Index<KnownPool> for KnownObjects {
    fn apply(&mut self, pool: KnownPool) {
        self.pools.apply_metadata(&pool.meta, ());
        self.pools.apply_spec(&pool.meta, pool.spec, pool.owner);
    }

    fn delete(&mut self, pool: &KnownPool) {
        self.pools.remove(pool.meta.name.as_deref().unwrap_or_default());
    }

    fn reset(&mut self, pools: Vec<KnownPool>) {
        self.pools.retain(&pools.iter().filter_map(|pool| pool_name(&pool.meta)).collect());
        for pool in pools {
            self.pools.forget_later(&pool.meta);
            self.apply(pool);
        }
    }
}

impl Index<KnownSubnet> for KnownObjects {
    fn apply(&mut self, subnet: KnownSubnet) {
        self.subnets.insert(subnet.name.clone(), subnet);
    }

    fn delete(&mut self, subnet: &KnownSubnet) {
        self.subnets.remove(&subnet.name);
    }

    fn reset(&mut self, subnets: Vec<KnownSubnet>) {
        self.subnets = subnets.into_iter().map(|subnet| (subnet.name.clone(), subnet)).collect();
    }
}

impl Index<SpiderCoordinator> for KnownObjects {
    fn apply(&mut self, coordinator: SpiderCoordinator) {
        self.coordinators.apply(coordinator);
    }

    fn delete(&mut self, coordinator: &SpiderCoordinator) {
        self.coordinators.delete(coordinator);
    }

    fn reset(&mut self, coordinators: Vec<SpiderCoordinator>) {
        self.coordinators.reset(coordinators);
    }
}

impl Index<KnownNetwork> for KnownObjects {
    fn apply(&mut self, network: KnownNetwork) {
        match network.injectable {
            Some(injectable) => drop(self.injectable.insert(network.key.clone(), injectable)),
            None => drop(self.injectable.remove(&network.key)),
        }
        self.attachments.insert(network.key, network.attachment);
    }

    fn delete(&mut self, network: &KnownNetwork) {
        self.attachments.remove(&network.key);
        self.injectable.remove(&network.key);
    }

    fn reset(&mut self, networks: Vec<KnownNetwork>) {
        self.attachments.clear();
        self.injectable.clear();
        for network in networks {
            self.apply(network);
        }
    }
}

impl Index<KnownNamespace> for KnownObjects {
    fn apply(&mut self, namespace: KnownNamespace) {
        self.namespaces.insert(namespace.name, namespace.annotations);
    }

    fn delete(&mut self, namespace: &KnownNamespace) {
        self.namespaces.remove(&namespace.name);
    }

    fn reset(&mut self, namespaces: Vec<KnownNamespace>) {
        self.namespaces.clear();
        for namespace in namespaces {
            self.apply(namespace);
        }
    }
}
