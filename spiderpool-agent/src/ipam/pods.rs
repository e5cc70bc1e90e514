//! Pods, from the watch of this node's pods or from the API server.

use std::sync::Arc;

use kube::Api;
use spiderpool_api::pod::PodObject;
use spiderpool_core::names::{PodIdentity, PodName};
use spiderpool_runtime::kubernetes::Kubernetes;

use super::error::PodError;
use crate::watches::{LocalPodIndex, Pod, Shared};

/// Finds pods. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pods {
    kube: Kubernetes,
    watched: Shared<LocalPodIndex>,
}

impl Pods {
    /// By this connection and watch.
    pub(super) fn new(kube: Kubernetes, watched: Shared<LocalPodIndex>) -> Self {
        Self { kube, watched }
    }

    /// The watch, which may be behind.
    pub(super) fn watched(&self) -> &Shared<LocalPodIndex> {
        &self.watched
    }

    /// The pod of this name as the watch knows it.
    pub(super) fn known(&self, name: &PodName) -> Option<Arc<Pod>> {
        self.watched.read(|pods| pods.get(name))
    }

    /// The pod of this name as the API server has it now; `None` if there is none. A pod that cannot be understood is
    /// an error: it may be using addresses.
    pub(super) async fn read(&self, name: &PodName) -> Result<Option<Arc<Pod>>, PodError> {
        let api = Api::<PodObject>::namespaced(self.kube.client(), name.namespace());
        let found = self.kube.read(api.get_opt(name.name())).await.map_err(PodError::Unread)?;
        Ok(found.map(Pod::try_from).transpose()?.map(Arc::new))
    }

    /// The pod as the watch knows it, else as the API server does.
    pub(super) async fn find(&self, name: &PodName) -> Result<Arc<Pod>, PodError> {
        match self.known(name) {
            Some(pod) => Ok(pod),
            None => self.read(name).await?.ok_or(PodError::Missing),
        }
    }

    /// Until when something of the finished pod may run, if the watch has seen it finish.
    pub(super) fn finishes_at(&self, pod: &PodIdentity) -> Option<std::time::Instant> {
        self.watched.read(|pods| pods.finishes_at(&pod.uid))
    }

    /// Until when the pod may run although the API server does not have it any more.
    pub(super) fn may_run_until(
        &self,
        pod: &PodIdentity,
        grace: Option<std::time::Duration>,
    ) -> Option<std::time::Instant> {
        self.watched.read(|pods| pods.may_run_until(pod, grace))
    }
}
