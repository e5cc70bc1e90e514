//! Objects reduced to the fields that the leader keeps, while they are decoded.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use kube::core::ObjectMeta;
use spiderpool_api::annotations::MIGRATION;
use spiderpool_api::crd::{FINALIZER, SpiderEndpoint, SpiderIPAddress};
use spiderpool_api::endpoint;
use spiderpool_api::node::{NodeObject, NodeReadiness};
use spiderpool_api::pod::{self, PodObject};
use spiderpool_api::workload::SubnetApplication;
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::address_name::parse_object_name;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{NodeName, PodIdentity, PodName, PodUid};
use tracing::warn;

use super::third_parties::SaidByPod;

/// A pod as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimPod {
    /// `None` if its names are invalid: nothing is done about it by the watch.
    pub(super) identity: Option<PodIdentity>,
    /// The node that it is bound to.
    pub(super) node: Option<NodeName>,
    pub(super) stage: PodStage,
    pub(super) has_stopped: bool,
    /// The grace period that it was deleted with.
    pub(super) deletion: Option<Duration>,
    /// How long its kubelet may take to stop it.
    pub(super) stops_within: Duration,
    /// How long its containers may run on after its object is deleted.
    pub(super) may_run_for: Option<Duration>,
    /// The third party that controls it, if that wants pools of SpiderSubnets.
    pub(super) third_party: Option<SaidByPod>,
    /// The virtual machine that it says moves to it, or has moved.
    pub(super) moved_machine: Option<PodName>,
}

impl From<PodObject> for SlimPod {
    fn from(pod: PodObject) -> Self {
        Self {
            node: pod.node().parse().ok(),
            stage: pod.stage(),
            has_stopped: pod.has_stopped(),
            deletion: pod.deletion(),
            stops_within: pod.stops_within(),
            may_run_for: pod.may_run_for(),
            third_party: third_party(&pod.metadata),
            moved_machine: moved_machine(&pod.metadata),
            identity: identity(&pod.metadata, pod::uid(&pod.metadata)),
        }
    }
}

fn third_party(meta: &ObjectMeta) -> Option<SaidByPod> {
    let (owner, namespace, annotations) =
        (pod::controller(meta)?, meta.namespace.as_deref()?, meta.annotations.as_ref()?);
    let application = SubnetApplication::of_third_party(&owner, namespace, annotations).map(Arc::new)?;
    Some(SaidByPod { application, created: meta.creation_timestamp.as_ref().map(|at| at.0) })
}

fn moved_machine(meta: &ObjectMeta) -> Option<PodName> {
    meta.annotations.as_ref()?.get(MIGRATION)?;
    let owner = pod::controller(meta).filter(OwnerRef::is_virtual_machine_instance)?;
    PodName::new(meta.namespace.as_deref()?, owner.name).ok()
}

/// The name of this metadata.
fn object_name(meta: &ObjectMeta) -> Option<PodName> {
    let name = PodName::new(meta.namespace.as_deref()?, meta.name.as_deref()?);
    name.inspect_err(|error| warn!(%error, "object cannot be parsed, ignored")).ok()
}

/// The pod of this metadata's name.
fn identity(meta: &ObjectMeta, uid: &str) -> Option<PodIdentity> {
    let name = PodName::new(meta.namespace.as_deref()?, meta.name.as_deref()?);
    let identity = name.and_then(|name| Ok(PodIdentity { name, uid: uid.parse()? }));
    identity.inspect_err(|error| warn!(%error, "object cannot be parsed, ignored")).ok()
}

/// A node as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimNode {
    pub(super) name: String,
    pub(super) readiness: NodeReadiness,
    pub(super) pod_cidrs: Box<[IpNet]>,
}

impl SlimNode {
    /// Whether it answers.
    pub(crate) fn readiness(&self) -> NodeReadiness {
        self.readiness
    }
}

impl From<NodeObject> for SlimNode {
    fn from(node: NodeObject) -> Self {
        let readiness = NodeReadiness::from(&node);
        // The API server has checked them.
        let pod_cidrs = node.spec.pod_cidrs().filter_map(|cidr| cidr.parse().ok()).collect();
        Self { name: node.metadata.name.unwrap_or_default(), readiness, pod_cidrs }
    }
}

/// An address as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimAddress {
    /// By the object's name; `None` if that is invalid.
    pub(super) ip: Option<IpAddr>,
    /// The pool, as the object names it.
    pub(super) pool: String,
    /// `None` if the object is unreadable: then the address is in use by an unknown pod.
    pub(super) holding: Option<Holding>,
}

impl From<SpiderIPAddress> for SlimAddress {
    fn from(address: SpiderIPAddress) -> Self {
        let holding = Holding::try_from(&address);
        Self {
            holding: holding.inspect_err(|error| warn!(%error, "SpiderIPAddress cannot be parsed, its address is treated as in use")).ok(),
            ip: address.metadata.name.and_then(|name| parse_object_name(&name).ok()),
            pool: address.spec.pool,
        }
    }
}

/// An endpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimEndpoint {
    /// Its name: the pod's, or that of its virtual machine; `None` if it is invalid.
    pub(super) name: Option<PodName>,
    /// The pod's name, if it is another one.
    pub(super) pod: Option<PodName>,
    /// Whether it is a virtual machine's.
    pub(super) is_of_machine: bool,
    /// `None` if it names no pod.
    pub(super) uid: Option<PodUid>,
    /// Whether the pod owns it. One that was made to outlive its pod has no such owner.
    pub(super) is_owned: bool,
    /// Whether it is being deleted and has our finalizer.
    pub(super) is_finalizing: bool,
    /// NICs and their addresses.
    pub(super) entries: Vec<(String, IpNet)>,
}

impl From<SpiderEndpoint> for SlimEndpoint {
    fn from(endpoint: SpiderEndpoint) -> Self {
        let is_of_machine = endpoint::is_of_machine(&endpoint);
        let meta = endpoint.metadata;
        let current = endpoint.status.map(|status| status.current).unwrap_or_default();
        let entries = current.ips.iter().flat_map(|ip| {
            let texts = [&ip.ipv4, &ip.ipv6].into_iter().flatten();
            texts.filter_map(|text| Some((ip.interface.clone(), text.parse().ok()?)))
        });
        Self {
            entries: entries.collect(),
            is_owned: meta.owner_references.iter().flatten().any(|owner| owner.kind == "Pod"),
            is_finalizing: is_finalizing(&meta),
            is_of_machine,
            pod: endpoint::pod_name(&meta).filter(|pod| Some(pod.name()) != meta.name.as_deref()),
            name: object_name(&meta),
            uid: current.uid.parse().ok(),
        }
    }
}

/// Whether an object of this metadata is being deleted and has our finalizer.
pub(crate) fn is_finalizing(meta: &ObjectMeta) -> bool {
    let has_finalizer = || meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    meta.deletion_timestamp.is_some() && has_finalizer()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_reduced_to_identity_node_and_stage() {
        let wire: PodObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "n", "name": "p", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:30Z",
                "annotations": {"kubernetes.io/config.mirror": "d41d8cd9"},
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}], "restartPolicy": "Always"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        }))
        .unwrap();
        let pod = SlimPod::from(wire);
        let (uid, node) = (pod.identity.unwrap().uid, pod.node.unwrap());
        assert_eq!((uid.as_str(), node.as_str(), pod.stage), ("d41d8cd9", "n1", PodStage::Terminating));
        assert!(!pod.has_stopped && pod.deletion.is_some());
    }
}
