//! The end of SpiderSubnets where they are switched off: nothing is made of them any more, and nobody waits for their pools, which
//! the API server deletes with them.

use std::time::Duration;

use kube::Api;
use spiderpool_api::crd::{FINALIZER, SpiderSubnet};
use spiderpool_core::names::PoolName;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{Action, Reconciler};
use tokio::time::Instant;
use tracing::{info, warn};

use super::known::SubnetIndex;
use crate::patch_parameters;

/// Removes our finalizer, which is from when they were switched on, from subnets that are being deleted.
pub(super) struct SubnetFinalizer {
    kube: Kubernetes,
    subnets: Api<SpiderSubnet>,
    index: Shared<SubnetIndex>,
}

impl SubnetFinalizer {
    pub(super) fn new(kube: Kubernetes, index: Shared<SubnetIndex>) -> Self {
        Self { subnets: Api::all(kube.client()), kube, index }
    }
}

impl Reconciler<PoolName> for SubnetFinalizer {
    type Error = ApiFailure;

    async fn reconcile(&self, name: &PoolName, _since: Instant) -> Result<Action, ApiFailure> {
        let found = self.index.read(|index| index.get(name));
        let is_finalizing = |object: &SpiderSubnet| {
            let meta = &object.metadata;
            let has_finalizer = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
            meta.deletion_timestamp.is_some() && has_finalizer
        };
        if let Some(object) = found.filter(|object| is_finalizing(object)) {
            let parameters = patch_parameters();
            self.kube.remove_finalizer(&self.subnets, &object.metadata, FINALIZER, &parameters).await?;
            info!(subnet = %name, "SpiderSubnets are switched off, finalizer removed");
        }
        Ok(Action::await_change())
    }

    fn failed(&self, name: &PoolName, error: &ApiFailure, pause: Duration) {
        warn!(subnet = %name, %error, ?pause, "finalizer of the SpiderSubnet not removed, trying again");
    }
}
