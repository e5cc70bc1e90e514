//! SpiderEndpoints on the API server, as agent and controller write and remove them.

use kube::Api;
use kube::api::{PatchParams, PostParams};
use spiderpool_api::crd::{FINALIZER, SpiderEndpoint};
use spiderpool_api::endpoint::{self, Lifetime, Record};
use spiderpool_api::pod::{self, PodObject};
use spiderpool_core::ipam::{Holding, Owner};
use spiderpool_core::names::{PodIdentity, PodName};
use tracing::{info, warn};

use crate::kubernetes::{ApiFailure, Kubernetes, Preconditions};

/// The objects, through the API server.
#[derive(Clone)]
pub struct EndpointStore {
    kube: Kubernetes,
}

impl EndpointStore {
    /// By this client.
    pub fn new(kube: Kubernetes) -> Self {
        Self { kube }
    }

    fn api(&self, namespace: &str) -> Api<SpiderEndpoint> {
        Api::namespaced(self.kube.client(), namespace)
    }

    /// The endpoint of this name.
    pub async fn get(&self, name: &PodName) -> Result<Option<SpiderEndpoint>, ApiFailure> {
        self.kube.read(self.api(name.namespace()).get_opt(name.name())).await
    }

    /// Creates or updates the endpoint so that it says what the record says. Not concurrently for one pod. A virtual machine's
    /// and a pod's of the same name stay each what they are: the addresses are right without it.
    pub async fn write(&self, record: &Record) -> Result<(), ApiFailure> {
        match self.create(record).await {
            Err(failure) if failure.is_already_exists() => {}
            other => return other,
        }
        let Some(found) = self.get(record.name()).await? else { return self.create(record).await };
        let known = found.status.as_ref().filter(|status| status.current.uid == record.pod().uid.as_str());
        let Some(known) = known else {
            let pod = record.pod();
            if record.is_barred_by(&found) {
                leave(record.name(), pod);
                return Ok(());
            }
            if !self.still_has_name(record).await? {
                info!(%pod, "another pod has the name now, no endpoint is written");
                return Ok(());
            }
            let meta = &found.metadata;
            // Of one that was made to outlive its pod, what is left goes on.
            let outlives = meta.owner_references.as_ref().is_none_or(Vec::is_empty);
            if record.lifetime() == Lifetime::Name && outlives && meta.deletion_timestamp.is_none() {
                return self.replace(record.name(), &record.after(&found)).await;
            }
            info!(%pod, "removing the endpoint of an older pod with this name");
            self.delete(&found).await?;
            return self.create(record).await;
        };
        match record.over(&found, known) {
            Some(desired) => self.replace(record.name(), &desired).await,
            None => Ok(()),
        }
    }

    async fn replace(&self, name: &PodName, desired: &SpiderEndpoint) -> Result<(), ApiFailure> {
        let api = self.api(name.namespace());
        self.kube.write(api.replace(name.name(), &PostParams::default(), desired)).await.map(|_| ())
    }

    /// Has the endpoint of this name say no more of this pod that it has these addresses. Another pod's stays.
    pub async fn forget(
        &self,
        name: &PodName,
        pod: &PodIdentity,
        freed: &[Holding],
    ) -> Result<(), ApiFailure> {
        let Some(mut found) = self.get(name).await? else { return Ok(()) };
        let Some(status) = found.status.as_mut().filter(|status| status.current.uid == pod.uid.as_str())
        else {
            return Ok(());
        };
        let left = endpoint::without(status.current.ips.clone(), freed);
        if left == status.current.ips {
            return Ok(());
        }
        status.current.ips = left;
        self.replace(name, &found).await
    }

    /// Has the endpoint of a pod that has ended name what it leaves to the next one of its name, on whatever node. `node` is
    /// the agent's own; of the leader, which is bound to none, empty.
    pub async fn hand_on<H: AsRef<Holding>>(
        &self,
        owner: &Owner,
        node: &str,
        kept: &[H],
    ) -> Result<(), ApiFailure> {
        let name = owner.endpoint_name();
        let api = self.api(name.namespace());
        let found = if let Some(found) = self.get(&name).await? {
            found
        } else {
            let object = Record::kept(owner, node, kept).object();
            self.kube.write(api.create(&PostParams::default(), &object)).await?
        };
        if endpoint::is_of_other_kind(&found, &owner.pod.uid, owner.virtual_machine.is_some()) {
            leave(&name, &owner.pod);
            return Ok(());
        }
        let Some(desired) = endpoint::handed_on(&found, &owner.pod, kept) else { return Ok(()) };
        self.replace(&name, &desired).await
    }

    /// Has the endpoint of a name name these addresses no more, which were kept and nobody claims. It goes if it says nothing
    /// else, and is not that of a newer pod.
    pub async fn forget_kept(&self, name: &PodName, freed: &[Holding]) -> Result<(), ApiFailure> {
        let Some(found) = self.get(name).await? else { return Ok(()) };
        match endpoint::unclaimed(found.clone(), freed) {
            None => self.delete(&found).await,
            Some(desired) if desired == found => Ok(()),
            Some(desired) => self.replace(name, &desired).await,
        }
    }

    /// Whether the record's pod still has its name: a newer one may live on another node.
    async fn still_has_name(&self, record: &Record) -> Result<bool, ApiFailure> {
        let name = &record.pod().name;
        let pods = Api::<PodObject>::namespaced(self.kube.client(), name.namespace());
        let found = self.kube.read(pods.get_opt(name.name())).await?;
        Ok(found.is_some_and(|found| pod::uid(&found.metadata) == record.pod().uid.as_str()))
    }

    async fn create(&self, record: &Record) -> Result<(), ApiFailure> {
        let api = self.api(record.name().namespace());
        self.kube.write(api.create(&PostParams::default(), &record.object())).await.map(|_| ())
    }

    /// Removes the endpoint of this name if it is this pod's. Another pod's stays.
    pub async fn remove(&self, name: &PodName, pod: &PodIdentity) -> Result<(), ApiFailure> {
        let found = self.get(name).await?;
        let is_of_pod = |found: &SpiderEndpoint| {
            found.status.as_ref().is_some_and(|status| status.current.uid == pod.uid.as_str())
        };
        match found.filter(is_of_pod) {
            Some(found) => self.delete(&found).await,
            None => Ok(()),
        }
    }

    /// Removes the finalizer and then the object, in this order: interrupted in between, it leaves nothing that cannot be
    /// deleted. Another object with its name stays.
    pub async fn delete(&self, endpoint: &SpiderEndpoint) -> Result<(), ApiFailure> {
        let meta = &endpoint.metadata;
        let Some(namespace) = &meta.namespace else { return Ok(()) };
        let api = self.api(namespace);
        self.kube.remove_finalizer(&api, meta, FINALIZER, &PatchParams::default()).await?;
        self.kube.delete(&api, &Preconditions::from_meta(meta).at_any_version()).await.map(|_| ())
    }
}

fn leave(name: &PodName, pod: &PodIdentity) {
    warn!(
        endpoint = %name, %pod, uid = %pod.uid,
        "a pod and a virtual machine have the same name, and the endpoint is the other one's: none is written; rename one of them"
    );
}
