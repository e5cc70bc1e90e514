//! The workload at the top of a pod, looked up once per owner.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use spiderpool_api::pod::controller;
use spiderpool_core::ipam::owner::{OwnerRef, OwnerStep, above, of_pod};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};

use crate::watches::Pod;

/// Remembered owners; a ReplicaSet's Deployment does not change.
const CACHED_OWNERS: usize = 4096;

/// Looks workloads up.
pub(super) struct Workloads {
    kube: Kubernetes,
    known: Mutex<HashMap<String, OwnerRef>>,
}

impl Workloads {
    /// By this connection.
    pub(super) fn new(kube: Kubernetes) -> Self {
        Self { kube, known: Mutex::default() }
    }

    /// The workload at the top of the pod.
    pub(super) async fn top(&self, pod: &Pod) -> Result<OwnerRef, ApiFailure> {
        let identity = &pod.identity;
        let owner = match of_pod(identity.name.name(), identity.uid.as_str(), pod.owner.clone()) {
            OwnerStep::Top(top) => return Ok(top),
            OwnerStep::Fetch(owner) => owner,
        };
        if let Some(known) = self.with(|known| known.get(&owner.uid).cloned()) {
            return Ok(known);
        }
        let controller = if owner.kind == "Job" {
            self.controller::<Job>(pod, &owner.name).await?
        } else {
            self.controller::<ReplicaSet>(pod, &owner.name).await?
        };
        let uid = owner.uid.clone();
        let top = above(owner, controller);
        self.with(|known| {
            if known.len() >= CACHED_OWNERS {
                known.clear();
            }
            known.insert(uid, top.clone());
        });
        Ok(top)
    }

    /// What controls the named object, which may be gone already.
    async fn controller<K>(&self, pod: &Pod, name: &str) -> Result<Option<OwnerRef>, ApiFailure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api = Api::<K>::namespaced(self.kube.client(), pod.identity.name.namespace());
        let object = self.kube.read(api.get_metadata_opt(name)).await?;
        Ok(object.and_then(|object| controller(&object.metadata)))
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<String, OwnerRef>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
