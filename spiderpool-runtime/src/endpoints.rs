//! SpiderEndpoints on the API server, as agent and controller write and remove them.

use kube::Api;
use kube::api::{PatchParams, PostParams};
use spiderpool_api::crd::{FINALIZER, SpiderEndpoint};
use spiderpool_api::endpoint::{self, Record};
use spiderpool_api::pod::{self, PodObject};
use spiderpool_core::ipam::Holding;
use spiderpool_core::names::{PodIdentity, PodName};
use tracing::info;

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

    /// The recorded endpoint of a pod.
    pub async fn get(&self, pod: &PodName) -> Result<Option<SpiderEndpoint>, ApiFailure> {
        self.kube.read(self.api(pod.namespace()).get_opt(pod.name())).await
    }

    /// Creates or updates the endpoint so that it says what the record says. Not concurrently for one pod.
    pub async fn write(&self, record: &Record) -> Result<(), ApiFailure> {
        let api = self.api(record.pod().name.namespace());
        match self.create(record).await {
            Err(failure) if failure.is_already_exists() => {}
            other => return other,
        }
        let Some(found) = self.kube.read(api.get_opt(record.pod().name.name())).await? else {
            return self.create(record).await;
        };
        let known = found.status.as_ref().filter(|status| status.current.uid == record.pod().uid.as_str());
        let Some(known) = known else {
            let pod = record.pod();
            if !self.still_has_name(record).await? {
                info!(%pod, "another pod has the name now, no endpoint is written");
                return Ok(());
            }
            info!(%pod, "removing the endpoint of an older pod with this name");
            self.delete(&found).await?;
            return self.create(record).await;
        };
        match record.over(&found, known) {
            Some(desired) => self
                .kube
                .write(api.replace(record.pod().name.name(), &PostParams::default(), &desired))
                .await
                .map(|_| ()),
            None => Ok(()),
        }
    }

    /// Has the endpoint of this pod name these addresses no more. Another pod's stays.
    pub async fn forget(&self, pod: &PodIdentity, freed: &[Holding]) -> Result<(), ApiFailure> {
        let Some(mut found) = self.get(&pod.name).await? else { return Ok(()) };
        let Some(status) = found.status.as_mut().filter(|status| status.current.uid == pod.uid.as_str())
        else {
            return Ok(());
        };
        let left = endpoint::without(status.current.ips.clone(), freed);
        if left == status.current.ips {
            return Ok(());
        }
        status.current.ips = left;
        let api = self.api(pod.name.namespace());
        self.kube.write(api.replace(pod.name.name(), &PostParams::default(), &found)).await.map(|_| ())
    }

    /// Whether the record's pod still has its name: a newer one may live on another node.
    async fn still_has_name(&self, record: &Record) -> Result<bool, ApiFailure> {
        let name = &record.pod().name;
        let pods = Api::<PodObject>::namespaced(self.kube.client(), name.namespace());
        let found = self.kube.read(pods.get_opt(name.name())).await?;
        Ok(found.is_some_and(|found| pod::uid(&found.metadata) == record.pod().uid.as_str()))
    }

    async fn create(&self, record: &Record) -> Result<(), ApiFailure> {
        let api = self.api(record.pod().name.namespace());
        self.kube.write(api.create(&PostParams::default(), &record.object())).await.map(|_| ())
    }

    /// Removes the endpoint of this pod. Another pod's stays.
    pub async fn remove(&self, pod: &PodIdentity) -> Result<(), ApiFailure> {
        let found = self.get(&pod.name).await?;
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
