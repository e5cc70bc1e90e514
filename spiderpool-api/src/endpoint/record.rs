//! What is to be written of a pod, and over what is there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use spiderpool_core::ipam::{Holding, Owner};
use spiderpool_core::names::{PodIdentity, PodName};

use super::entries::{merge, without};
use super::kept::{annotate, annotated, waiting_for, with_kept};
use super::whose::{is_of_other_kind, name_pod};
use crate::crd::{EndpointAllocation, EndpointIp, FINALIZER, NoSpec, SpiderEndpoint, SpiderEndpointStatus};
use crate::pod::Pod;

/// How long an endpoint stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until its pod is gone, which owns it.
    Pod,
    /// Until no other pod will come that is to have the addresses: it names those that are kept for it.
    Name,
}

/// What an endpoint should say of some NICs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub(super) lifetime: Lifetime,
    /// The endpoint's.
    name: PodName,
    pod: PodIdentity,
    /// Whether it is a virtual machine's, and not the pod's alone.
    of_machine: bool,
    /// The UID of the pod's object, which is not that of a static pod.
    object_uid: String,
    pub(super) status: SpiderEndpointStatus,
}

impl Record {
    /// For a pod that has its addresses as this owner.
    pub fn new(pod: &Pod, owner: &Owner, ips: Vec<EndpointIp>, lifetime: Lifetime) -> Self {
        let node = pod.node.as_ref().map(ToString::to_string).unwrap_or_default();
        let object_uid = pod.object_uid.clone();
        Self { object_uid, ..Self::of(owner, &node, ips, lifetime) }
    }

    /// For what a pod that has ended leaves to the next one of its name; `node` is the node that may write it, or none.
    pub fn kept<H: AsRef<Holding>>(owner: &Owner, node: &str, kept: &[H]) -> Self {
        Self::of(owner, node, with_kept(Vec::new(), kept), Lifetime::Name)
    }

    fn of(owner: &Owner, node: &str, ips: Vec<EndpointIp>, lifetime: Lifetime) -> Self {
        let workload = owner.workload.as_ref();
        Self {
            lifetime,
            name: owner.endpoint_name(),
            pod: owner.pod.clone(),
            of_machine: owner.virtual_machine.is_some(),
            object_uid: owner.pod.uid.to_string(),
            status: SpiderEndpointStatus {
                current: EndpointAllocation { uid: owner.pod.uid.to_string(), node: node.to_owned(), ips },
                owner_controller_type: workload.map(|top| top.kind.to_string()).unwrap_or_default(),
                owner_controller_name: workload.map(|top| top.name.to_string()).unwrap_or_default(),
            },
        }
    }

    /// How long the endpoint stays.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// The endpoint's name.
    pub fn name(&self) -> &PodName {
        &self.name
    }

    /// The pod.
    pub fn pod(&self) -> &PodIdentity {
        &self.pod
    }

    /// Whether the endpoint of this name is another one's that the record may neither replace nor remove: a virtual machine's
    /// where this is a pod's, or the other way round.
    pub fn is_barred_by(&self, found: &SpiderEndpoint) -> bool {
        is_of_other_kind(found, &self.pod.uid, self.of_machine)
    }

    /// With what a newer record says of further NICs. One of another pod replaces it.
    #[must_use]
    pub fn joined_by(self, mut newer: Self) -> Self {
        if self.pod == newer.pod {
            newer.status.current.ips = merge(self.status.current.ips, &newer.status.current.ips);
        }
        newer
    }

    /// Without what it says of these addresses.
    #[must_use]
    pub fn without(mut self, freed: &[Holding]) -> Self {
        self.status.current.ips = without(self.status.current.ips, freed);
        self
    }

    /// The object to create.
    pub fn object(&self) -> SpiderEndpoint {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.pod.name.name().to_owned(),
            uid: self.object_uid.clone(),
            controller: None,
            block_owner_deletion: None,
        };
        let mut metadata = ObjectMeta {
            name: Some(self.name.name().to_owned()),
            namespace: Some(self.name.namespace().to_owned()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: (self.lifetime == Lifetime::Pod).then(|| vec![owner]),
            ..ObjectMeta::default()
        };
        name_pod(&mut metadata, &self.pod.name);
        SpiderEndpoint { metadata, spec: NoSpec {}, status: Some(self.status.clone()) }
    }

    /// What to write over the endpoint that is there, if it is the same pod's: it keeps what this record does not
    /// speak of. `None`: it says it all already.
    pub fn over(&self, found: &SpiderEndpoint, known: &SpiderEndpointStatus) -> Option<SpiderEndpoint> {
        let mut wanted = self.object();
        if let Some(status) = &mut wanted.status {
            status.current.ips = merge(known.current.ips.clone(), &status.current.ips);
        }
        let waiting = self.still_waiting(annotated(found));
        let desired = SpiderEndpoint { metadata: self.metadata(found, &waiting), ..wanted };
        (desired != *found).then_some(desired)
    }

    /// What to write over the endpoint of an earlier pod of the name: what that has left for NICs that this record does not
    /// speak of goes on waiting.
    pub fn after(&self, found: &SpiderEndpoint) -> SpiderEndpoint {
        let waiting = self.still_waiting(waiting_for(found, &self.pod.uid));
        SpiderEndpoint { metadata: self.metadata(found, &waiting), ..self.object() }
    }

    fn still_waiting(&self, mut waiting: Vec<EndpointIp>) -> Vec<EndpointIp> {
        let spoken_of =
            |entry: &EndpointIp| self.status.current.ips.iter().any(|ip| ip.interface == entry.interface);
        waiting.retain(|entry| !spoken_of(entry));
        waiting
    }

    fn metadata(&self, found: &SpiderEndpoint, waiting: &[EndpointIp]) -> ObjectMeta {
        let mut metadata = found.metadata.clone();
        if self.lifetime == Lifetime::Name {
            metadata.owner_references = None;
        }
        annotate(&mut metadata, waiting);
        name_pod(&mut metadata, &self.pod.name);
        metadata
    }
}
