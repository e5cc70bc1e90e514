//! An address in use: what its SpiderIPAddress says, parsed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::quarantine::Quarantine;
use crate::ip::Family;
use crate::names::{ContainerId, IfName, NodeName, PodIdentity, PodName, PoolName};

/// One address in use. Its texts, and the owner of several addresses of one pod, may be shared: an index of all
/// addresses of a cluster holds each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The pool that it was taken from.
    pub pool: PoolName,
    /// The NIC that has it.
    pub nic: IfName,
    /// The pod that has it, or had it last.
    pub owner: Arc<Owner>,
    /// The node whose agent holds it; `None` if none does.
    pub node: Option<NodeName>,
    /// The sandbox that uses it; `None` if the object names none, and in an index that has no use for it.
    pub container_id: Option<ContainerId>,
    /// A DEL has detached the NIC of a pod that was alive, and no ADD has followed. An object that names no sandbox says
    /// that only with this: one that was written again for a running pod names none either.
    pub is_detached: bool,
    /// The CNI network's name; `None` as for the sandbox.
    pub network: Option<Arc<str>>,
    /// The pod's grace period, if the object says it.
    pub grace: Option<Duration>,
    /// Why it is held.
    pub state: AddressState,
    /// Of a quarantined address; `None` where nobody has said when that ends: it does not by itself.
    pub quarantine: Option<Box<Quarantine>>,
}

impl Holding {
    /// The address alone.
    pub fn ip(&self) -> IpAddr {
        self.address.addr()
    }

    /// The address's family.
    pub fn family(&self) -> Family {
        Family::of_net(&self.address)
    }

    /// Whether it was quarantined until a time that has passed.
    pub fn is_quarantine_over(&self, now: SystemTime) -> bool {
        self.quarantine.as_ref().is_some_and(|quarantine| quarantine.until <= now)
    }

    /// Whether this is the same pod's address for the same NIC and family, given by the same node's agent: then it
    /// is what one request has written, or would have.
    pub fn serves_as(&self, other: &Self) -> bool {
        let purpose = |holding: &Self| (holding.nic.clone(), holding.node.clone(), holding.family());
        self.owner.pod.uid == other.owner.pod.uid && purpose(self) == purpose(other)
    }
}

impl AsRef<Self> for Holding {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The pod.
    pub pod: PodIdentity,
    /// The workload at the top of the pod, if the object names one.
    pub workload: Option<Workload>,
    /// The VirtualMachineInstance, by its name in the pod's namespace, that the pod's addresses stay with. Written by the
    /// agent that has asked the API server for it: what a pod says of its owner alone does not make it one's.
    pub virtual_machine: Option<Arc<str>>,
}

impl Owner {
    /// Whether the kubelet runs the pod from a manifest of its own: then its Node owns it, and the pod on the API
    /// server is a mirror.
    pub fn is_static(&self) -> bool {
        self.workload.as_ref().is_some_and(|workload| &*workload.kind == "Node")
    }

    /// The name of the SpiderEndpoint that says what the pod has: the pod's, or that of its virtual machine, whose pods
    /// have other names each time.
    pub fn endpoint_name(&self) -> PodName {
        let of_machine = self.virtual_machine.as_ref();
        let of_machine = of_machine.and_then(|machine| self.pod.name.sibling(Arc::clone(machine)).ok());
        of_machine.unwrap_or_else(|| self.pod.name.clone())
    }
}

/// The workload at the top of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `Deployment`; `Pod` for a pod that nothing controls.
    pub kind: Arc<str>,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// Why an address is held; `spec.state` of its object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// A pod has it.
    #[default]
    Bound,
    /// Waits for the next pod of the same name (StatefulSet, VM).
    Kept,
    /// Somebody else was seen using it on the wire.
    Quarantined,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An address of pod `ns/pod`.
    pub(crate) fn holding(nic: &str, address: &str, pool: &str, uid: &str) -> Holding {
        Holding {
            address: address.parse().unwrap(),
            pool: pool.parse().unwrap(),
            nic: nic.parse().unwrap(),
            owner: Arc::new(owner(uid, "Deployment")),
            node: Some("n1".parse().unwrap()),
            container_id: None,
            is_detached: false,
            network: None,
            grace: None,
            state: AddressState::Bound,
            quarantine: None,
        }
    }

    pub(crate) fn owner(uid: &str, kind: &str) -> Owner {
        let pod = PodIdentity { name: PodName::new("ns", "pod").unwrap(), uid: uid.parse().unwrap() };
        let workload = Some(Workload { kind: kind.into(), name: "web".into() });
        Owner { pod, workload, virtual_machine: None }
    }

    #[test]
    fn an_answer_that_was_lost_is_recognised() {
        let ours = holding("eth0", "10.6.0.9/16", "p", "u");
        assert!(ours.serves_as(&Holding { pool: "q".parse().unwrap(), ..ours.clone() }));
        for other in [
            holding("net1", "10.6.0.9/16", "p", "u"),
            holding("eth0", "fd00::9/64", "p", "u"),
            holding("eth0", "10.6.0.9/16", "p", "other"),
            Holding { node: None, ..ours.clone() },
        ] {
            assert!(!ours.serves_as(&other), "{other:?}");
        }
    }

    #[test]
    fn the_endpoint_of_a_virtual_machine_has_its_name() {
        let pod = owner("u", "VirtualMachineInstance");
        assert_eq!(pod.endpoint_name(), pod.pod.name);
        let of_machine = Owner { virtual_machine: Some("db".into()), ..pod };
        assert_eq!(of_machine.endpoint_name().to_string(), "ns/db");
    }

    #[test]
    fn a_static_pod_is_its_nodes() {
        assert!(owner("u", "Node").is_static() && !owner("u", "DaemonSet").is_static());
    }
}
