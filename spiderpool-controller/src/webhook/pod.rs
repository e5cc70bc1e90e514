//! Pods that ask for networks by an annotation, their own or their namespace's: they get the networks, and the resources
//! that these need. What they get is decided in `spiderpool_core::multus`; here are the pod's JSON and what is known of
//! other objects.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::core::admission::{AdmissionResponse, Operation};
use serde_json::{Map, Value, json};
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_core::ipam::annotation_key::MULTUS_NETWORKS;
use spiderpool_core::multus::{Injection, Wanted, plan_injection};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::watch::Shared;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::known::{KnownObjects, injectable};
use super::response::{Request, ReviewError, Verdict, of_error, of_mutation, of_verdict};

/// How long a look for what no watch has brought may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Looks at a time: whoever reaches the port may have us look.
const LOOKS: usize = 4;

type Annotations = BTreeMap<String, String>;

/// What the decision about a pod needs.
pub(super) struct PodInjector {
    kube: Kubernetes,
    known: Shared<KnownObjects>,
    looks: Semaphore,
}

impl PodInjector {
    pub(super) fn new(kube: Kubernetes, known: Shared<KnownObjects>) -> Self {
        Self { kube, known, looks: Semaphore::new(LOOKS) }
    }

    /// The pod with what it asks for, or all that keeps it from getting that.
    pub(super) async fn review(&self, request: Request) -> AdmissionResponse {
        match self.plan(&request).await {
            Ok(None) => AdmissionResponse::from(&request),
            Ok(Some(Ok(injection))) => inject(request, &injection),
            Ok(Some(Err(verdict))) => {
                let response = of_verdict(&request, verdict);
                info!(namespace = request.namespace, reason = response.result.message, "pod refused");
                response
            }
            Err(error) => {
                warn!(%error, namespace = request.namespace, "pod not checked");
                of_error(&request, &error)
            }
        }
    }

    /// `None` for a pod that asks for nothing.
    async fn plan(&self, request: &Request) -> Result<Option<Result<Injection, Verdict>>, ReviewError> {
        let Some(pod) = request.object.as_ref().filter(|_| request.operation == Operation::Create) else {
            return Ok(None);
        };
        // Multus makes no NIC for it, and so it needs no device.
        if pod.data.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
            return Ok(None);
        }
        let annotations = pod.metadata.annotations.as_ref();
        let of_namespace = if Wanted::depends_on_namespace(annotations) {
            self.of_namespace(request.namespace.as_deref().unwrap_or_default()).await?
        } else {
            None
        };
        let wanted = Wanted::of(annotations, of_namespace.as_ref());
        let Some(wanted) = wanted else { return Ok(None) };
        if let Ok(injection) = self.known.read(|known| plan_injection(&wanted, known.injectable())) {
            return Ok(Some(Ok(injection)));
        }
        // What is wrong may have been corrected, or come, a moment ago.
        let api = Api::<SpiderMultusConfig>::all(self.kube.client());
        let listing = self.kube.pages(&api, |network| injectable(&network));
        let networks = self.look("SpiderMultusConfigs", listing).await?;
        Ok(Some(plan_injection(&wanted, networks.iter().flatten()).map_err(Verdict::from)))
    }

    /// The annotations of a namespace by which its pods ask for networks.
    async fn of_namespace(&self, name: &str) -> Result<Option<Annotations>, ReviewError> {
        if let Some(known) = self.known.read(|known| known.annotations_of(name).cloned()) {
            return Ok(Some(known));
        }
        let api = Api::<Namespace>::all(self.kube.client());
        let found = self.look("the Namespace", self.kube.read(api.get_metadata_opt(name))).await?;
        Ok(found.and_then(|found| found.metadata.annotations))
    }

    async fn look<T>(
        &self,
        what: &'static str,
        reading: impl Future<Output = Result<T, ApiFailure>>,
    ) -> Result<T, ReviewError> {
        let look = async {
            // The semaphore is never closed.
            let _place = self.looks.acquire().await;
            reading.await
        };
        match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(found) => found.map_err(|source| ReviewError::Networks { what, source }),
            Err(_) => Err(ReviewError::Networks { what, source: ApiFailure::Timeout(LOOK_LIMIT) }),
        }
    }
}

/// Writes the networks over those that the pod names, as upstream does, and has one container ask for the resources.
fn inject(request: Request, injection: &Injection) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(&request);
    let Some(before) = request.object.and_then(|pod| serde_json::to_value(pod).ok()) else {
        return response;
    };
    let mut after = before.clone();
    let Some(annotations) = object_at(&mut after, &["metadata", "annotations"]) else { return response };
    let replaced = annotations.insert(MULTUS_NETWORKS.to_owned(), json!(injection.networks));
    if let Some(replaced) = replaced.filter(|replaced| *replaced != json!(injection.networks)) {
        let warning =
            format!("annotation {MULTUS_NETWORKS} {replaced} is replaced by {:?}", injection.networks);
        response.warnings = Some(vec![warning]);
    }
    add_resources(&mut after, &injection.resources);
    of_mutation(response, &before, &after)
}

/// Has the first container ask for what none asks for. The API server makes requests of the limits.
fn add_resources(pod: &mut Value, resources: &BTreeMap<String, u32>) {
    let Some(containers) = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut) else { return };
    for (resource, units) in resources {
        let limit = |container: &Value| container.pointer("/resources/limits")?.get(resource).cloned();
        if containers.iter().any(|container| limit(container).is_some()) {
            continue;
        }
        let first = containers.first_mut();
        if let Some(limits) = first.and_then(|first| object_at(first, &["resources", "limits"])) {
            limits.insert(resource.clone(), json!(units.to_string()));
        }
    }
}

/// The object at this path of members, made where there is none; `None` if something else is there.
fn object_at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut at = value;
    for name in path {
        at = made(at)?.entry(*name).or_insert(Value::Null);
    }
    made(at)
}

fn made(value: &mut Value) -> Option<&mut Map<String, Value>> {
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}
