//! SpiderIPAddress objects on the API server: create one, take one over, free one, list them.

use std::net::IpAddr;

use backon::{BackoffBuilder as _, Retryable as _};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, Request};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use spiderpool_api::agent::null_as_default;
use spiderpool_api::crd::{
    SpiderIPAddress, SpiderIPPoolUsage, keeping_patch, quarantining_patch, taking_patch,
};
use spiderpool_api::labels;
use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_core::ipam::address_name::{label_value, object_name, parse_object_name};
use spiderpool_core::ipam::{Holding, Quarantine, usage};
use spiderpool_core::names::{NodeName, PoolName};
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::holdings::AddressObject;

/// A list of objects, as far as it is read.
#[derive(Debug, Deserialize)]
struct Names {
    /// `null` if there are none.
    #[serde(deserialize_with = "null_as_default")]
    items: Vec<NamedItem>,
}

#[derive(Debug, Deserialize)]
struct NamedItem {
    metadata: Named,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
struct Labels {
    #[serde(rename = "ipam.spidernet.io/quarantined")]
    quarantined: Option<IgnoredAny>,
}

/// What a list of a pool says.
#[derive(Debug)]
pub(super) struct PoolList {
    /// The addresses in use.
    pub(super) in_use: IpSet,
    /// How many of them are quarantined.
    pub(super) quarantined: u128,
}

/// Attempts to create an address: a request whose outcome is unknown is sent again.
const CREATE_ATTEMPTS: usize = 6;
/// Attempts to delete one: the sweep comes later.
const DELETE_ATTEMPTS: usize = 4;

/// What came of an attempt to take an address.
#[derive(Debug)]
pub(super) enum Creation {
    /// It is ours.
    Ours(AddressObject),
    /// It is somebody else's.
    Theirs(Listing),
    /// It may be ours: no answer was certain.
    Unknown(ApiFailure),
}

/// What has become of an object that was known.
#[derive(Debug)]
pub(super) enum Reread {
    /// It has changed, and is still the pod's.
    Same(AddressObject),
    /// It is gone, or somebody else's.
    Other,
    /// It does not parse any more.
    Unreadable,
}

/// Whether a list of the pool shows an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// It does.
    Shown,
    /// Its object is labelled with another pool.
    Hidden,
}

/// When the object is looked at that has the name which was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Where it may be ours: an earlier request went without an answer.
    IfItMayBeOurs,
    /// Always.
    Always,
}

/// How recent a list has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// As of now.
    Exact,
    /// As the API server remembers it (resourceVersion 0): it costs etcd nothing.
    Cached,
}

/// The objects, through the API server.
#[derive(Clone)]
pub(super) struct AddressStore {
    kube: Kubernetes,
    api: Api<SpiderIPAddress>,
    usages: Api<SpiderIPPoolUsage>,
}

impl AddressStore {
    /// By this connection.
    pub(super) fn new(kube: Kubernetes) -> Self {
        Self { api: Api::all(kube.client()), usages: Api::all(kube.client()), kube }
    }

    /// Creates the object, unless `abandoned` before its turn comes. An answer that was lost does no harm: an object that
    /// serves as the same is ours. An error says that it was certainly not created.
    pub(super) async fn create(
        &self,
        wanted: &Holding,
        look: Look,
        abandoned: &CancellationToken,
    ) -> Result<Creation, ApiFailure> {
        let name = object_name(wanted.ip());
        let (object, parameters) = (SpiderIPAddress::from(wanted), PostParams::default());
        let mut pauses = backoff::short(CREATE_ATTEMPTS).build();
        let mut certain = true;
        loop {
            let create = self.api.create(&parameters, &object);
            let failure = match self.kube.write_unless_abandoned(abandoned, create).await {
                Ok(created) => return Ok(Creation::of(&created)),
                Err(failure) if failure.is_already_exists() => {
                    // What an earlier agent has created for this node is known since the start, and what the leader has written
                    // since is looked for before.
                    if certain && look == Look::IfItMayBeOurs {
                        return Ok(Creation::Theirs(Listing::Shown));
                    }
                    match self.kube.read(self.api.get_opt(&name)).await {
                        Ok(Some(found)) => return Ok(Creation::of_existing(&found, wanted)),
                        // Freed between the two requests. Whoever looks next may take it.
                        Ok(None) => return Ok(Creation::Theirs(Listing::Shown)),
                        Err(failure) => {
                            // An earlier attempt of ours may have made what cannot be looked at.
                            certain = false;
                            failure
                        }
                    }
                }
                Err(failure) => {
                    certain &= !failure.is_ambiguous();
                    failure
                }
            };
            let Some(pause) = pauses.next().filter(|_| failure.is_retryable()) else {
                return if certain { Err(failure) } else { Ok(Creation::Unknown(failure)) };
            };
            debug!(address = name, error = %failure, "creating an address failed, trying again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes the sandbox and the network that now use the address, and its pod's grace period. `None`: the object is not the one that was known.
    pub(super) async fn adopt(
        &self,
        known: &AddressObject,
        wanted: &Holding,
    ) -> Result<Option<AddressObject>, ApiFailure> {
        let spec = json!({
            "containerID": wanted.container_id,
            "detached": null,
            "network": wanted.network.as_deref().unwrap_or_default(),
            "terminationGracePeriodSeconds": wanted.grace.and_then(|grace| i64::try_from(grace.as_secs()).ok()),
        });
        self.patch(known, &patch(known, &spec)).await
    }

    /// Writes that no sandbox uses the address now. `None` as for [`Self::adopt`].
    pub(super) async fn detach(&self, known: &AddressObject) -> Result<Option<AddressObject>, ApiFailure> {
        self.patch(known, &patch(known, &json!({"containerID": null, "detached": true}))).await
    }

    /// Writes that the address waits for the next pod of its owner's name, on whatever node. `None` as for [`Self::adopt`].
    pub(super) async fn keep(&self, known: &AddressObject) -> Result<Option<AddressObject>, ApiFailure> {
        self.patch(known, &keeping_patch(&known.uid, &known.version)).await
    }

    /// Writes that nobody gets the address for a while. `None` as for [`Self::adopt`].
    pub(super) async fn quarantine(
        &self,
        known: &AddressObject,
        quarantine: &Quarantine,
    ) -> Result<Option<AddressObject>, ApiFailure> {
        self.patch(known, &quarantining_patch(&known.uid, &known.version, quarantine)).await
    }

    /// How many addresses of a pool are quarantined, as the API server remembers it.
    pub(super) async fn quarantined(&self, pool: &PoolName) -> Result<u128, ApiFailure> {
        let selector = format!(
            "{}={},{}",
            labels::ADDRESS_POOL,
            label_value(pool.as_str()),
            labels::ADDRESS_QUARANTINED
        );
        let parameters = ListParams::default().labels(&selector).match_any();
        let names = self.kube.read(self.names(&parameters)).await?;
        Ok(names.items.len() as u128)
    }

    /// Makes an address that was kept that of another pod of the name. `None`: somebody has changed it meanwhile.
    pub(super) async fn take_over(
        &self,
        kept: &AddressObject,
        wanted: &Holding,
    ) -> Result<Option<AddressObject>, ApiFailure> {
        let patch = taking_patch(&kept.uid, &kept.version, wanted);
        let failure = match self.write_patch(kept, &patch).await {
            Ok(object) => return Ok(readable(&object)),
            Err(failure) => failure,
        };
        // One whose outcome is unknown is found by the next ADD.
        if !failure.is_conflict() && !failure.is_not_found() {
            return Err(failure);
        }
        // A request that was sent again has done it.
        let found = self.find(wanted.ip()).await?;
        Ok(found.filter(|found| found.uid == kept.uid && found.holding.serves_as(wanted)))
    }

    async fn write_patch(&self, known: &AddressObject, patch: &Value) -> Result<SpiderIPAddress, ApiFailure> {
        let (name, parameters) = (object_name(known.holding.ip()), PatchParams::default());
        self.kube.write(self.api.patch(&name, &parameters, &Patch::Merge(patch))).await
    }

    async fn patch(&self, known: &AddressObject, patch: &Value) -> Result<Option<AddressObject>, ApiFailure> {
        match self.write_patch(known, patch).await {
            Ok(object) => Ok(readable(&object)),
            Err(failure) if failure.is_not_found() || failure.is_conflict() => {
                Ok(match self.reread(known).await? {
                    Reread::Same(now) => Some(now),
                    Reread::Other | Reread::Unreadable => None,
                })
            }
            Err(failure) => Err(failure),
        }
    }

    /// The object of an address, whoever has it.
    pub(super) async fn find(&self, ip: IpAddr) -> Result<Option<AddressObject>, ApiFailure> {
        Ok(self.kube.read(self.api.get_opt(&object_name(ip))).await?.as_ref().and_then(readable))
    }

    /// The object as it is now.
    pub(super) async fn reread(&self, known: &AddressObject) -> Result<Reread, ApiFailure> {
        let identity = |object: &AddressObject| {
            let holding = &object.holding;
            (object.uid.clone(), holding.owner.pod.uid.clone(), holding.nic.clone())
        };
        let found = self.kube.read(self.api.get_opt(&object_name(known.holding.ip()))).await?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(&*known.uid)) else {
            return Ok(Reread::Other);
        };
        Ok(match readable(&found) {
            Some(now) if identity(&now) == identity(known) => Reread::Same(now),
            Some(_) => Reread::Other,
            None => Reread::Unreadable,
        })
    }

    /// Deletes the object if it is still the one that is known; `false` if it has changed meanwhile.
    /// The preconditions make it safe to ask again.
    pub(super) async fn delete(&self, known: &AddressObject) -> Result<bool, ApiFailure> {
        let name = object_name(known.holding.ip());
        let what = Preconditions { name: &name, uid: &known.uid, version: Some(&known.version) };
        let delete = || self.kube.delete(&self.api, &what);
        let delete = delete.retry(backoff::short(DELETE_ATTEMPTS)).when(ApiFailure::is_retryable);
        let deletion = delete.notify(|error, pause| {
            debug!(address = name, %error, ?pause, "deleting an address failed, trying again");
        });
        Ok(deletion.await? == Deletion::Done)
    }

    /// All addresses of a node.
    pub(super) async fn of_node(&self, node: &NodeName) -> Result<Vec<AddressObject>, ApiFailure> {
        let selector = format!("{}={}", labels::NODE, label_value(node.as_str()));
        let list = self.kube.read(self.api.list(&ListParams::default().labels(&selector))).await?;
        let objects = list.items.iter().filter_map(readable);
        Ok(objects.filter(|object| object.holding.node.as_ref() == Some(node)).collect())
    }

    /// The addresses of a pool that are in use: the API server scans all addresses for it.
    pub(super) async fn of_pool(
        &self,
        pool: &PoolName,
        family: Family,
        freshness: Freshness,
    ) -> Result<PoolList, ApiFailure> {
        let parameters = match freshness {
            Freshness::Exact => of_pool(pool),
            Freshness::Cached => of_pool(pool).match_any(),
        };
        let names = self.kube.read(self.names(&parameters)).await?;
        let addresses = names.items.iter().filter_map(|item| parse_object_name(&item.metadata.name).ok());
        let quarantined = names.items.iter().filter(|item| item.metadata.labels.quarantined.is_some());
        Ok(PoolList {
            quarantined: quarantined.count() as u128,
            in_use: IpSet::from_ranges(family, addresses.map(IpRange::single)),
        })
    }

    /// The names, which are the addresses, and one label. Of the rest of thousands of objects nothing is kept while they are
    /// read.
    async fn names(&self, parameters: &ListParams) -> kube::Result<Names> {
        let request = Request::new(self.api.resource_url()).list_metadata(parameters);
        self.kube.client().request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// What the leader has written about a pool's usage, from the API server's memory; `None` if it has written
    /// nothing, as of a pool where picks hardly collide.
    pub(super) async fn usage(&self, pool: &PoolName, family: Family) -> Result<Option<IpSet>, ApiFailure> {
        let list = self.kube.read(self.usages.list(&of_pool(pool).match_any())).await?;
        let mut used = None;
        for block in list.items.iter().map(|object| &object.spec).filter(|spec| spec.pool == pool.as_str()) {
            let decoded = block
                .base
                .parse()
                .map_err(|_| "base is not an address".to_owned())
                .and_then(|base| usage::decode(base, &block.bitmap).map_err(|error| error.to_string()));
            match decoded {
                Ok(block) => used = Some(used.unwrap_or_else(|| IpSet::empty(family)).union(&block)),
                Err(error) => warn!(%pool, base = block.base, error, "usage of a pool is unreadable"),
            }
        }
        Ok(used)
    }
}

/// A merge patch of the spec of an object that has not changed since.
fn patch(known: &AddressObject, spec: &Value) -> Value {
    json!({"metadata": {"uid": &*known.uid, "resourceVersion": &*known.version}, "spec": spec})
}

/// Selects what is labelled with a pool.
fn of_pool(pool: &PoolName) -> ListParams {
    ListParams::default().labels(&format!("{}={}", labels::ADDRESS_POOL, label_value(pool.as_str())))
}

impl Creation {
    /// Of the object that was just written.
    fn of(created: &SpiderIPAddress) -> Self {
        readable(created).map_or(Self::Theirs(Listing::Hidden), Self::Ours)
    }

    /// Of the object that is there already: an earlier attempt of ours may have made it.
    fn of_existing(found: &SpiderIPAddress, wanted: &Holding) -> Self {
        match readable(found).filter(|object| object.holding.serves_as(wanted)) {
            Some(ours) => Self::Ours(ours),
            None => Self::Theirs(listing(found, &wanted.pool)),
        }
    }
}

/// The object, parsed. One that does not parse is nobody's that we know: it stays in use.
fn readable(object: &SpiderIPAddress) -> Option<AddressObject> {
    AddressObject::try_from(object)
        .inspect_err(
            |error| warn!(%error, "SpiderIPAddress cannot be parsed, its address is treated as in use"),
        )
        .ok()
}

/// Whether lists of the pool show the object.
fn listing(object: &SpiderIPAddress, pool: &PoolName) -> Listing {
    let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(labels::ADDRESS_POOL));
    if label.is_some_and(|label| *label == label_value(pool.as_str())) {
        Listing::Shown
    } else {
        Listing::Hidden
    }
}
