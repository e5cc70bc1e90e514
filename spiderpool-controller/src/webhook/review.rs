//! From a request to what is decided about its object, by kind.

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, Operation};
use serde::de::DeserializeOwned;
use serde_json::Value;
use spiderpool_core::field_error::FieldError;

use super::ip_pool::PoolValidator;
use super::kind::Kind;
use super::multus_config::NetworkValidator;
use super::pod::PodInjector;
use super::response::{Request, ReviewError, Verdict, of_mutation};
use super::subnet::SubnetValidator;
use super::{coordinator, ip_pool, multus_config, reserved_ip, subnet};

/// What the decisions need beside the object.
pub(super) struct Validators {
    pub(super) pools: PoolValidator,
    pub(super) subnets: SubnetValidator,
    pub(super) networks: NetworkValidator,
    /// Where pods get networks by an annotation.
    pub(super) pods: Option<PodInjector>,
}

/// What the object alone says.
fn complete(kind: Kind, object: &mut Value) {
    match kind {
        Kind::IpPool => ip_pool::mutate(object),
        Kind::Subnet => subnet::mutate(object),
        Kind::ReservedIp => reserved_ip::mutate(object),
        Kind::Coordinator => coordinator::mutate(object),
        Kind::MultusConfig => multus_config::mutate(object),
    }
}

impl Validators {
    /// Never refuses: what cannot be completed is refused when it is validated.
    pub(super) fn mutate(&self, kind: Kind, request: Request) -> AdmissionResponse {
        let response = AdmissionResponse::from(&request);
        // The rest of the request, with the old object, is not held any longer.
        let object = request.object.filter(|object| object.metadata.deletion_timestamp.is_none());
        let Some(before) = object.and_then(|object| serde_json::to_value(object).ok()) else {
            return response;
        };
        let mut after = before.clone();
        complete(kind, &mut after);
        if kind == Kind::IpPool {
            self.pools.complete_membership(&mut after);
        }
        of_mutation(response, &before, &after)
    }

    pub(super) async fn validate(&self, kind: Kind, request: &Request) -> Result<Verdict, ReviewError> {
        let old = request.old_object.as_ref();
        if request.operation == Operation::Delete {
            return match kind {
                Kind::IpPool => {
                    let uid = old.and_then(|old| old.metadata.uid.as_deref());
                    self.pools.validate_deletion(deleted_name(request), uid).await
                }
                Kind::Subnet => {
                    let subnet = old.and_then(|old| serde_json::to_value(old).ok());
                    let subnet = of_type(subnet);
                    Ok(subnet.map(|subnet| self.subnets.validate_deletion(&subnet)).unwrap_or_default())
                }
                Kind::ReservedIp | Kind::Coordinator | Kind::MultusConfig => Ok(Verdict::default()),
            };
        }
        let Some(new) = &request.object else { return Ok(Verdict::default()) };
        // Labels, finalizers and marks change also where the spec has faults that are older than this webhook.
        if old.is_some_and(|old| is_unchanged(kind, new, old)) {
            return Ok(Verdict::default());
        }
        let old = old.and_then(|old| serde_json::to_value(old).ok());
        self.validate_change(kind, new, old).await
    }

    async fn validate_change(
        &self,
        kind: Kind,
        new: &DynamicObject,
        old: Option<Value>,
    ) -> Result<Verdict, ReviewError> {
        match kind {
            Kind::IpPool => match typed(new) {
                Ok(new) => self.pools.validate(&new, old.as_ref()).await,
                Err(verdict) => Ok(verdict),
            },
            Kind::Subnet => Ok(match typed(new) {
                Ok(new) => self.subnets.validate(&new, of_type(old).as_ref()),
                Err(verdict) => verdict,
            }),
            Kind::ReservedIp => Ok(match typed(new) {
                Ok(new) => reserved_ip::validate(&new, of_type(old).as_ref(), self.pools.families),
                Err(verdict) => verdict,
            }),
            Kind::Coordinator => Ok(match typed(new) {
                Ok(new) => coordinator::validate(&new),
                Err(verdict) => verdict,
            }),
            Kind::MultusConfig => Ok(match typed(new) {
                Ok(new) => self.networks.validate(&new, of_type(old).as_ref()).await,
                Err(verdict) => verdict,
            }),
        }
    }
}

/// A deletion of many objects (DELETECOLLECTION) comes for each of them, without its name.
fn deleted_name(request: &Request) -> &str {
    let old = request.old_object.as_ref();
    old.and_then(|old| old.metadata.name.as_deref()).unwrap_or(&request.name)
}

fn of_type<K: DeserializeOwned>(old: Option<Value>) -> Option<K> {
    serde_json::from_value(old?).ok()
}

/// The CRD's schema has refused what does not fit, so this is about a CRD of another version.
fn typed<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, Verdict> {
    let value = serde_json::to_value(object).and_then(serde_json::from_value);
    value.map_err(|error| {
        vec![FieldError::invalid("spec", "", format!("does not fit the CRD: {error}"))].into()
    })
}

/// The version that the leader fills in is no change of the spec. Annotations of a network name its
/// NetworkAttachmentDefinition.
fn is_unchanged(kind: Kind, new: &DynamicObject, old: &DynamicObject) -> bool {
    if kind == Kind::MultusConfig && new.metadata.annotations != old.metadata.annotations {
        return false;
    }
    let spec = |object: &DynamicObject| object.data.get("spec").cloned().unwrap_or_default();
    let (new, before) = (spec(new), spec(old));
    new == before || with_version(kind, old, before).is_some_and(|filled| new == filled)
}

/// The spec with the version that is filled in, if it has none.
fn with_version(kind: Kind, object: &DynamicObject, mut spec: Value) -> Option<Value> {
    const FIELD: &str = "ipVersion";
    if spec.get(FIELD).is_some() {
        return None;
    }
    let mut completed = serde_json::to_value(object).ok()?;
    complete(kind, &mut completed);
    let version = completed.get("spec")?.get(FIELD)?.clone();
    spec.as_object_mut()?.insert(FIELD.to_owned(), version);
    Some(spec)
}
