//! The Lease by which an agent says that its node's pods run although the API server takes the node for dead: its kubelet
//! may have stopped while the containers go on; or that a pod runs on after it should have ended. It is renewed only while
//! that is so. Without it nothing is known: a node may be cut off from the API server while its pods answer on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_core::names::{NodeName, PodUid};

use crate::labels;

/// A Lease that has not been renewed for so long says nothing any more.
pub const DURATION: Duration = Duration::from_secs(40);
/// How often it is renewed.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// Annotation: the UIDs of the pods that have live processes, with commas between them.
pub const RUNNING_PODS: &str = "ipam.spidernet.io/running-pods";

/// The name of a node's Lease, in the namespace of the agents. An admission policy binds it to the node of the agent's
/// token.
pub fn name(node: &NodeName) -> String {
    format!("spiderpool-agent.{node}")
}

/// The Lease of a node on which these pods run. It is deleted with its Node.
pub fn lease(node: &NodeName, node_uid: &str, running: &BTreeSet<PodUid>, now: Timestamp) -> Lease {
    let uids: Vec<&str> = running.iter().map(PodUid::as_str).collect();
    Lease {
        metadata: ObjectMeta {
            name: Some(name(node)),
            labels: Some([(labels::NODE.to_owned(), label_value(node.as_str()))].into()),
            annotations: Some([(RUNNING_PODS.to_owned(), uids.join(","))].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.as_str().to_owned(),
                uid: node_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.as_str().to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// The node that a Lease is of; `None` if it is no Lease of an agent.
pub fn node(lease: &Lease) -> Option<NodeName> {
    let node: NodeName = lease.spec.as_ref()?.holder_identity.as_deref()?.parse().ok()?;
    // The policy looks at the name.
    (lease.metadata.name.as_deref() == Some(name(&node).as_str())).then_some(node)
}

/// The pods that a Lease says run.
pub fn running_pods(lease: &Lease) -> impl Iterator<Item = PodUid> + '_ {
    let listed = lease.metadata.annotations.as_ref().and_then(|all| all.get(RUNNING_PODS));
    listed.into_iter().flat_map(|uids| uids.split(',')).filter_map(|uid| uid.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_as_it_was_written() {
        let (node_name, uid) = ("worker-1".parse().unwrap(), |uid: &str| uid.parse::<PodUid>().unwrap());
        let running: BTreeSet<PodUid> = [uid("u1"), uid("u2")].into();
        let written = lease(&node_name, "n", &running, Timestamp::UNIX_EPOCH);
        assert_eq!(node(&written), Some(node_name.clone()));
        assert_eq!(running_pods(&written).collect::<BTreeSet<_>>(), running);
        let none = lease(&node_name, "n", &BTreeSet::new(), Timestamp::UNIX_EPOCH);
        assert_eq!(running_pods(&none).count(), 0);
    }

    /// The name alone is bound to a node by the admission policy.
    #[test]
    fn a_lease_that_names_another_node_is_none() {
        let mut forged = lease(&"worker-1".parse().unwrap(), "n", &BTreeSet::new(), Timestamp::UNIX_EPOCH);
        forged.spec.as_mut().unwrap().holder_identity = Some("worker-2".to_owned());
        assert_eq!(node(&forged), None);
    }
}
