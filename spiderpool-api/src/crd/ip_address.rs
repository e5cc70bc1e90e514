//! SpiderIPAddress: one address in use. Creating it is the allocation, deleting it the release.

use std::ops::Not;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spiderpool_core::ipam;
pub use spiderpool_core::ipam::AddressState;
use spiderpool_core::ipam::address_name::{label_value, object_name};
use spiderpool_core::ipam::{Holding, Owner, Workload};
use spiderpool_core::names::{NameError, PodIdentity, PodName};
use thiserror::Error;

use crate::labels;

/// One address in use. The object's name is the address, so that no address is handed out twice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderIPAddress",
    plural = "spideripaddresses",
    shortname = "sip",
    category = "spiderpool",
    derive = "PartialEq",
    doc = "One address in use. Its name is the address: creating it is the allocation.",
    printcolumn = r#"{"name": "POOL", "type": "string", "jsonPath": ".spec.pool", "description": "pool"}"#,
    printcolumn = r#"{"name": "POD", "type": "string", "jsonPath": ".spec.podName", "description": "pod"}"#,
    printcolumn = r#"{"name": "NAMESPACE", "type": "string", "jsonPath": ".spec.podNamespace", "description": "the pod's namespace", "priority": 10}"#,
    printcolumn = r#"{"name": "INTERFACE", "type": "string", "jsonPath": ".spec.interface", "description": "NIC"}"#,
    printcolumn = r#"{"name": "NODE", "type": "string", "jsonPath": ".spec.node", "description": "node"}"#,
    printcolumn = r#"{"name": "STATE", "type": "string", "jsonPath": ".spec.state", "description": "bound, kept or quarantined"}"#,
    printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderIPAddressSpec {
    /// The address with the prefix length of its subnet, `10.6.212.145/16`.
    pub address: String,
    /// The pool that it was taken from.
    pub pool: String,
    /// The node whose agent holds it. Absent for an address that is kept without a running pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pod's NIC that has it.
    pub interface: String,
    /// The pod sandbox. Absent while none is known to use the address: the pod waits for its next one, its NIC was
    /// unplugged, or the object was lost and written again.
    #[serde(default, rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// A DEL has detached the NIC while the pod was alive. The next ADD takes it back; without one, the address is freed
    /// after a minute if a container of the pod runs.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub detached: bool,
    /// The CNI network's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Kind of the workload at the top of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner_kind: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner_name: String,
    /// The VirtualMachineInstance that the address stays with, in the pod's namespace. Its SpiderEndpoint has this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<String>,
    /// The pod's grace period. While its node answers, nobody frees the address before it is over when the pod's object is gone and nobody has seen
    /// its sandbox end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
    /// Why the address is held.
    #[serde(default)]
    #[schemars(schema_with = "state")]
    pub state: AddressState,
    /// Who was seen using a quarantined address, and until when nobody gets it; without it, until the object is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// Why and until when an address is not handed out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantine {
    /// The MAC address that answered for it.
    pub by: String,
    /// When it may be used again.
    pub until: Time,
}

/// The schema of [`AddressState`].
fn state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["bound", "kept", "quarantined"], "description": "Why the address is held." })
}

/// A SpiderIPAddress that does not say what a holding says: its address is in use, nobody knows by whom.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("SpiderIPAddress {object} is unreadable and stays in use: {fault}")]
pub struct HoldingError {
    /// The object's name.
    pub object: String,
    /// What is wrong.
    pub fault: HoldingFault,
}

/// What is wrong with a SpiderIPAddress.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HoldingFault {
    /// Its address does not parse.
    #[error("spec.address {0:?} is not an address with a prefix length")]
    Address(String),
    /// Its address is not the one that it is named by.
    #[error("spec.address {0:?} is not the address that it is named by")]
    OtherAddress(String),
    /// Nobody has such a MAC address.
    #[error("spec.quarantine.by {0:?} is not a MAC address")]
    Claimant(String),
    /// A name in it is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl TryFrom<&SpiderIPAddress> for Holding {
    type Error = HoldingError;

    fn try_from(object: &SpiderIPAddress) -> Result<Self, HoldingError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        parse(name, &object.spec).map_err(|fault| HoldingError { object: name.to_owned(), fault })
    }
}

fn parse(name: &str, spec: &SpiderIPAddressSpec) -> Result<Holding, HoldingFault> {
    let address: ipnet::IpNet =
        spec.address.parse().map_err(|_| HoldingFault::Address(spec.address.clone()))?;
    if object_name(address.addr()) != name {
        return Err(HoldingFault::OtherAddress(spec.address.clone()));
    }
    let name = PodName::new(spec.pod_namespace.as_str(), spec.pod_name.as_str())?;
    let workload = (!spec.owner_kind.is_empty())
        .then(|| Workload { kind: spec.owner_kind.as_str().into(), name: spec.owner_name.as_str().into() });
    let virtual_machine = spec.virtual_machine.as_deref().filter(|machine| !machine.is_empty());
    if let Some(machine) = virtual_machine {
        name.sibling(machine)?;
    }
    Ok(Holding {
        address,
        pool: spec.pool.parse()?,
        nic: spec.interface.parse()?,
        owner: Arc::new(Owner {
            pod: PodIdentity { name, uid: spec.pod_uid.parse()? },
            workload,
            virtual_machine: virtual_machine.map(Into::into),
        }),
        node: spec.node.as_deref().filter(|node| !node.is_empty()).map(str::parse).transpose()?,
        container_id: Some(&spec.container_id)
            .filter(|id| !id.is_empty())
            .map(|id| id.parse())
            .transpose()?,
        // An agent that does not know the member has not taken it back.
        is_detached: spec.detached && spec.container_id.is_empty(),
        network: Some(&spec.network)
            .filter(|network| !network.is_empty())
            .map(|network| network.as_str().into()),
        grace: spec
            .termination_grace_period_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        state: spec.state,
        quarantine: read_quarantine(spec)?,
    })
}

/// Of an address that is quarantined now.
fn read_quarantine(spec: &SpiderIPAddressSpec) -> Result<Option<Box<ipam::Quarantine>>, HoldingFault> {
    let quarantine = spec.quarantine.as_ref().filter(|_| spec.state == AddressState::Quarantined);
    let Some(Quarantine { by, until }) = quarantine else { return Ok(None) };
    let by = by.parse().map_err(|_| HoldingFault::Claimant(by.clone()))?;
    Ok(Some(Box::new(ipam::Quarantine { by, until: SystemTime::from(until.0) })))
}

impl From<&ipam::Quarantine> for Quarantine {
    fn from(quarantine: &ipam::Quarantine) -> Self {
        let until = Timestamp::try_from(quarantine.until).unwrap_or(Timestamp::MAX);
        // It is written in whole seconds; nobody gets the address sooner.
        let until = Timestamp::from_second(until.as_second().saturating_add(1)).unwrap_or(Timestamp::MAX);
        Self { by: quarantine.by.to_string(), until: Time(until) }
    }
}

impl SpiderIPAddress {
    /// The merge patch that makes an address wait for the next pod of its owner's name, on whatever node, unless the object
    /// has changed meanwhile.
    pub fn keeping_patch(&self) -> Value {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        keeping_patch(&text(&self.metadata.uid), &text(&self.metadata.resource_version))
    }
}

/// The same for an object of this UID and resourceVersion.
pub fn keeping_patch(uid: &str, version: &str) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": version, "labels": {labels::NODE: label_value("")}},
        "spec": {"state": AddressState::Kept, "node": null, "containerID": null, "detached": null},
    })
}

/// The merge patch that makes an address which was kept, and whose object has this UID and resourceVersion, that of another pod,
/// as `holding` says.
pub fn taking_patch(uid: &str, version: &str, holding: &Holding) -> Value {
    let SpiderIPAddress { metadata, spec } = SpiderIPAddress::from(holding);
    let mut spec = serde_json::to_value(spec).unwrap_or_default();
    // What is not written is left as it was.
    spec["detached"] = Value::Null;
    if holding.owner.virtual_machine.is_none() {
        spec["virtualMachine"] = Value::Null;
    }
    json!({"metadata": {"uid": uid, "resourceVersion": version, "labels": metadata.labels}, "spec": spec})
}

/// The merge patch by which nobody gets an address whose object has this UID and resourceVersion: it is no node's and no
/// sandbox's from then on.
pub fn quarantining_patch(uid: &str, version: &str, quarantine: &ipam::Quarantine) -> Value {
    let labels = json!({
        labels::NODE: label_value(""), labels::ADDRESS_POD_UID: label_value(""), labels::ADDRESS_QUARANTINED: "true",
    });
    json!({
        "metadata": {"uid": uid, "resourceVersion": version, "labels": labels},
        "spec": {
            "state": AddressState::Quarantined, "node": null, "containerID": null, "detached": null,
            "quarantine": Quarantine::from(quarantine),
        },
    })
}

/// The object to create: its name is the address, its labels are for selecting.
impl From<&Holding> for SpiderIPAddress {
    fn from(holding: &Holding) -> Self {
        let Owner { pod, workload, virtual_machine } = &*holding.owner;
        let (owner_kind, owner_name) =
            workload.as_ref().map_or(("", ""), |workload| (&*workload.kind, &*workload.name));
        let node = holding.node.as_ref().map(|node| node.as_str().to_owned());
        let labels = [
            (labels::ADDRESS_POOL, holding.pool.as_str()),
            (labels::ADDRESS_POD_UID, pod.uid.as_str()),
            (labels::NODE, node.as_deref().unwrap_or_default()),
        ];
        let labels = labels.map(|(key, name)| (key.to_owned(), label_value(name)));
        let spec = SpiderIPAddressSpec {
            address: holding.address.to_string(),
            pool: holding.pool.to_string(),
            node,
            interface: holding.nic.to_string(),
            container_id: holding.container_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            detached: holding.is_detached,
            network: holding.network.as_deref().unwrap_or_default().to_owned(),
            pod_namespace: pod.name.namespace().to_owned(),
            pod_name: pod.name.name().to_owned(),
            pod_uid: pod.uid.to_string(),
            owner_kind: owner_kind.to_owned(),
            owner_name: owner_name.to_owned(),
            virtual_machine: virtual_machine.as_deref().map(ToOwned::to_owned),
            termination_grace_period_seconds: holding
                .grace
                .and_then(|grace| i64::try_from(grace.as_secs()).ok()),
            state: holding.state,
            quarantine: holding.quarantine.as_deref().map(Quarantine::from),
        };
        let mut object = Self::new(&object_name(holding.ip()), spec);
        object.metadata.labels = Some(labels.into());
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Value {
        json!({
            "address": "10.6.0.9/16", "pool": "p", "node": "n1", "interface": "net1", "containerID": "c0ffee",
            "network": "macvlan", "podNamespace": "ns", "podName": "web-0", "podUID": "u",
            "ownerKind": "StatefulSet", "ownerName": "web", "terminationGracePeriodSeconds": 600, "state": "bound",
        })
    }

    fn object(spec: &Value) -> SpiderIPAddress {
        serde_json::from_value(json!({"metadata": {"name": "10.6.0.9"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_holding_survives_the_api_server() {
        let holding = Holding::try_from(&object(&spec())).unwrap();
        let written = SpiderIPAddress::from(&holding);
        assert_eq!(serde_json::to_value(&written.spec).unwrap(), spec());
        assert_eq!(Holding::try_from(&written).unwrap(), holding);
        let labels = written.metadata.labels.unwrap();
        assert_eq!(
            (&labels[labels::ADDRESS_POOL], &labels[labels::ADDRESS_POD_UID]),
            (&"p".into(), &"u".into())
        );
        assert_eq!(labels[labels::NODE], "n1");
    }

    #[test]
    fn an_address_says_with_which_virtual_machine_it_stays() {
        let mut spec = spec();
        assert_eq!(Holding::try_from(&object(&spec)).unwrap().owner.virtual_machine, None);
        spec["virtualMachine"] = json!("db");
        let holding = Holding::try_from(&object(&spec)).unwrap();
        assert_eq!(holding.owner.endpoint_name().to_string(), "ns/db");
        assert_eq!(serde_json::to_value(&SpiderIPAddress::from(&holding).spec).unwrap(), spec);
    }

    #[test]
    fn what_is_taken_over_is_the_takers_virtual_machines_or_none() {
        let mut spec = spec();
        let machine = |spec: &Value| {
            let holding = Holding::try_from(&object(spec)).unwrap();
            taking_patch("u", "1", &holding)["spec"].get("virtualMachine").cloned()
        };
        assert_eq!(machine(&spec), Some(Value::Null), "a merge patch leaves what it does not name");
        spec["virtualMachine"] = json!("db");
        assert_eq!(machine(&spec), Some(json!("db")));
    }

    #[test]
    fn what_an_object_may_leave_out_is_none() {
        let mut spec = spec();
        for member in [
            "node",
            "containerID",
            "network",
            "ownerKind",
            "ownerName",
            "terminationGracePeriodSeconds",
            "state",
        ] {
            spec.as_object_mut().unwrap().remove(member);
        }
        let holding = Holding::try_from(&object(&spec)).unwrap();
        assert_eq!((holding.node, holding.container_id, holding.network), (None, None, None));
        assert_eq!(holding.grace, None);
        assert_eq!((&holding.owner.workload, holding.state), (&None, AddressState::Bound));
    }

    #[test]
    fn an_address_is_detached_only_if_its_object_says_so_and_names_no_sandbox() {
        let mut spec = spec();
        let is_detached = |spec: &Value| Holding::try_from(&object(spec)).unwrap().is_detached;
        spec["detached"] = json!(true);
        assert!(!is_detached(&spec), "an ADD has followed");
        spec.as_object_mut().unwrap().remove("containerID");
        assert!(is_detached(&spec));
        let holding = Holding::try_from(&object(&spec)).unwrap();
        assert_eq!(serde_json::to_value(&SpiderIPAddress::from(&holding).spec).unwrap(), spec);
        spec.as_object_mut().unwrap().remove("detached");
        assert!(!is_detached(&spec), "written again for a running pod");
    }

    #[test]
    fn a_quarantined_address_says_by_whom_and_until_when() {
        let until = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500);
        let quarantine = ipam::Quarantine { by: "02:00:00:00:00:07".parse().unwrap(), until };
        let patch = quarantining_patch("u", "1", &quarantine);
        assert_eq!(
            patch["spec"]["quarantine"],
            json!({"by": "02:00:00:00:00:07", "until": "2027-01-15T08:00:01Z"}),
            "in whole seconds, and not before the time is over"
        );
        let mut object = spec();
        object["quarantine"] = patch["spec"]["quarantine"].clone();
        assert_eq!(Holding::try_from(&self::object(&object)).unwrap().quarantine, None, "that is over");
        object["state"] = json!("quarantined");
        let holding = Holding::try_from(&self::object(&object)).unwrap();
        let read = holding.quarantine.as_ref().unwrap();
        assert!(read.by == quarantine.by && read.until >= until, "{read:?}");
        assert_eq!(holding.state, AddressState::Quarantined);
        object.as_object_mut().unwrap().remove("quarantine");
        assert_eq!(Holding::try_from(&self::object(&object)).unwrap().quarantine, None);
        object["quarantine"] = json!({"by": "somebody", "until": "2027-01-15T08:00:01Z"});
        let error = Holding::try_from(&self::object(&object)).unwrap_err().to_string();
        assert!(error.contains("spec.quarantine.by \"somebody\" is not a MAC address"), "{error}");
    }

    #[test]
    fn an_object_that_makes_no_sense_says_what_is_wrong() {
        for (member, value, part) in [
            ("address", "10.6.0.9", "not an address with a prefix length"),
            ("address", "10.6.0.8/16", "not the address that it is named by"),
            ("pool", "", "IPPool name"),
            ("interface", "a/b", "interface name"),
            ("podName", "", "pod name"),
            ("podUID", "", "pod UID"),
            ("containerID", "../a", "container ID"),
            ("node", "Upper", "node name"),
            ("virtualMachine", "../a", "pod name"),
        ] {
            let mut spec = spec();
            spec[member] = json!(value);
            let error = Holding::try_from(&object(&spec)).unwrap_err().to_string();
            assert!(
                error.starts_with("SpiderIPAddress 10.6.0.9 is unreadable") && error.contains(part),
                "{error}"
            );
        }
    }
}
