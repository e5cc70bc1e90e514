//! The flows of a pod whose first NIC is on the underlay: the measured matrix of upstream's underlay mode.

use std::net::IpAddr;

use spiderpool_core::ip::Family;

use crate::dual::Dual;
use crate::flow::Flow;
use crate::matrix::{Host, flow};
use crate::namespaces::Namespaces;
use crate::probe::Protocol::{Ping, Tcp, Udp};
use crate::topology::addresses;

/// Who takes part.
#[derive(Debug, Clone)]
pub struct UnderlayHosts {
    /// The pod whose flows are tested.
    pub pod: (Namespaces, Dual),
    /// Its node.
    pub node: Host,
    /// Another node.
    pub other_node: Host,
    /// Another such pod on the same node.
    pub sibling: (Namespaces, Dual),
    /// Another such pod on the other node; an endpoint of the Service.
    pub remote: (Namespaces, Dual),
    /// An overlay pod on the same node.
    pub neighbor: (Namespaces, Dual),
    /// An overlay pod on the other node; an endpoint of the Service.
    pub overlay_pod: (Namespaces, Dual),
    /// A client behind the underlay's gateway.
    pub outside: Namespaces,
    /// The Service of both.
    pub cluster_ip: Dual,
}

impl UnderlayHosts {
    /// All flows of one family. Not among them is TCP to a pod of another node's overlay: its answers come straight to
    /// eth0, so that the node sees one direction of the connection alone and drops the rest of it as invalid.
    pub fn flows(&self, family: Family) -> Vec<Flow> {
        let address = |dual: &Dual| dual.get(family);
        let (pod, own) = (&self.pod.0, address(&self.pod.1));
        let (node_ip, node_underlay) = (address(&self.node.main), address(&self.node.underlay));
        let of_node = [node_ip, node_underlay];
        let other = address(&self.other_node.underlay);
        let outside = address(&addresses::OUTSIDE);
        let mut list = Vec::new();
        let mut add = |flows: Vec<Flow>| list.extend(flows);

        for (name, to) in [("own node", node_ip), ("own node's underlay address", node_underlay)] {
            let name = format!("pod to {name}");
            add(flow(&name, pod, pod, to).seen_by(&self.node.namespaces, &[own]).by(&[Tcp, Udp, Ping]));
        }
        add(flow("node to pod", pod, &self.node.namespaces, own)
            .seen_by(pod, &of_node)
            .comes_by("veth0", own)
            .by(&[Tcp, Udp, Ping]));
        add(flow("pod to other node", pod, pod, other)
            .seen_by(&self.other_node.namespaces, &[own])
            .by(&[Tcp, Udp, Ping]));
        let mut direct = |name: &str, from: &Namespaces, source: IpAddr| {
            add(flow(&format!("{name} to pod"), pod, from, own)
                .seen_by(pod, &[source])
                .comes_by("eth0", own)
                .by(&[Tcp, Udp, Ping]));
        };
        direct("other node", &self.other_node.namespaces, other);
        direct("pod of the same node", &self.sibling.0, address(&self.sibling.1));
        direct("pod of the other node", &self.remote.0, address(&self.remote.1));
        direct("outside", &self.outside, outside);
        for (name, (server, to)) in [("the same node", &self.sibling), ("the other node", &self.remote)] {
            let name = format!("pod to pod of {name}");
            add(flow(&name, pod, pod, address(to)).seen_by(server, &[own]).by(&[Tcp, Udp, Ping]));
        }
        add(flow("pod to outside", pod, pod, outside).seen_by(&self.outside, &[own]).by(&[Tcp, Udp, Ping]));
        add(flow("overlay pod of the same node to pod", pod, &self.neighbor.0, own)
            .seen_by(pod, &of_node)
            .comes_by("veth0", own)
            .by(&[Tcp, Udp, Ping]));
        add(flow("pod to overlay pod of the same node", pod, pod, address(&self.neighbor.1))
            .seen_by(&self.neighbor.0, &[own])
            .by(&[Tcp, Udp, Ping]));
        // What does not come from a pod CIDR, kube-proxy masquerades.
        add(flow("pod to ClusterIP", pod, pod, address(&self.cluster_ip))
            .seen_by(&self.overlay_pod.0, &[node_ip])
            .seen_by(&self.remote.0, &[node_underlay])
            .by(&[Tcp, Udp]));
        list
    }
}
