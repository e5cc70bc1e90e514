//! What a replica knows of other objects: pools, Service CIDRs and names of networks, by watches. A follower has no other index; the leader
//! has its own beside it. A pool that is created at the same moment is not known: of two that share addresses, the older
//! one goes on all the same (`spiderpool_runtime::pools`).

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use spiderpool_api::crd::{SpiderCoordinator, SpiderMultusConfig};
use spiderpool_core::multus::MultusFields;
use spiderpool_runtime::coordinators::CoordinatorIndex;
use spiderpool_runtime::pools::{AllocationOwner, ParsedSpec, PoolIndex, PoolObject, parse, pool_name};
use spiderpool_runtime::watch::Index;

/// Pools, coordinators and networks.
#[derive(Debug, Default)]
pub(super) struct KnownObjects {
    pub(super) pools: PoolIndex,
    pub(super) coordinators: CoordinatorIndex,
    /// Names of NetworkAttachmentDefinitions, by namespace and name of their SpiderMultusConfigs.
    attachments: BTreeMap<(String, String), String>,
}

impl KnownObjects {
    /// A SpiderMultusConfig other than `except` whose NetworkAttachmentDefinition has this name.
    pub(super) fn network_of(&self, namespace: &str, attachment: &str, except: &str) -> Option<String> {
        let mut all = self.attachments.iter();
        let found =
            all.find(|((of, name), known)| of == namespace && name != except && known.as_str() == attachment);
        found.map(|((_, name), _)| name.clone())
    }
}

/// The name of a network, and that of its NetworkAttachmentDefinition.
#[derive(Debug)]
pub(super) struct KnownNetwork {
    key: (String, String),
    attachment: String,
}

impl From<SpiderMultusConfig> for KnownNetwork {
    fn from(object: SpiderMultusConfig) -> Self {
        let attachment = MultusFields::from(&object).attachment_name().to_owned();
        Self { key: (object.namespace().unwrap_or_default(), object.name_any()), attachment }
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
        self.attachments.insert(network.key, network.attachment);
    }

    fn delete(&mut self, network: &KnownNetwork) {
        self.attachments.remove(&network.key);
    }

    fn reset(&mut self, networks: Vec<KnownNetwork>) {
        self.attachments = networks.into_iter().map(|network| (network.key, network.attachment)).collect();
    }
}
