//! The flow matrix: every flow that must work for a pod with an overlay eth0 and an underlay net1.
//!
//! To add a flow, add a line to [`Hosts::flows`].

use std::net::IpAddr;

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use crate::dual::Dual;
use crate::flow::{Expected, Flow};
use crate::namespaces::Namespaces;
use crate::probe::{Probe, Protocol};
use crate::topology::addresses;

use Protocol::{Ping, Tcp, Udp};

/// Which NIC keeps the pod's default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultRoute {
    /// The overlay NIC.
    Eth0,
    /// The underlay NIC.
    Net1,
}

impl DefaultRoute {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Eth0, Self::Net1];

    /// The NIC's name.
    pub fn nic(self) -> &'static str {
        match self {
            Self::Eth0 => "eth0",
            Self::Net1 => "net1",
        }
    }
}

/// Why rules cannot serve a flow that programs serve: they choose a route, and translate nothing. The only list of
/// these flows.
pub fn beyond_policy(name: &str, protocol: Protocol, default_route: DefaultRoute) -> Option<&'static str> {
    let answers_by_route = match name {
        "node to net1" | "neighbor pod to net1" => true,
        "outside to net1" => default_route == DefaultRoute::Eth0,
        _ => false,
    };
    match (name, protocol) {
        ("net1 socket to remote pod", Tcp) => Some(
            "the answer comes straight to net1, so that the node sees one direction of the connection and drops the \
             rest of it as invalid",
        ),
        (_, Udp) if answers_by_route => {
            Some("a server on the wildcard address answers with the source of the route back, eth0's")
        }
        _ => None,
    }
}

/// A pod, node or other host of the matrix.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where it sends from.
    pub namespaces: Namespaces,
    /// The overlay address of a pod, the node IP of a node.
    pub main: Dual,
    /// The address in the underlay.
    pub underlay: Dual,
}

/// Who takes part.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The pod whose flows are tested.
    pub pod: Host,
    /// What steers its packets.
    pub dataplane: Dataplane,
    /// Where its default route is.
    pub default_route: DefaultRoute,
    /// Its node.
    pub node: Host,
    /// The node's address among its overlay pods, if it has one: which one it comes to eth0 by is the default network's
    /// choice.
    pub node_router: Dual,
    /// Another node.
    pub other_node: Host,
    /// A pod on the same node that has eth0 only.
    pub neighbor: (Namespaces, Dual),
    /// A pod on the other node that has eth0 only; an endpoint of the Service.
    pub overlay_pod: (Namespaces, Dual),
    /// A pod on the other node with net1, whose net1 address is an endpoint of the Service.
    pub underlay_pod: Host,
    /// A client behind the underlay's gateway.
    pub outside: Namespaces,
    /// The Service of both pods.
    pub cluster_ip: Dual,
}

impl Hosts {
    /// All flows of one family that the pod's dataplane serves.
    pub fn flows(&self, family: Family) -> Vec<Flow> {
        let mut flows = self.all_flows(family);
        flows.retain(|flow| !self.is_beyond(flow));
        flows
    }

    /// Those that it does not serve.
    pub fn flows_beyond(&self, family: Family) -> Vec<Flow> {
        let mut flows = self.all_flows(family);
        flows.retain(|flow| self.is_beyond(flow));
        flows
    }

    fn is_beyond(&self, flow: &Flow) -> bool {
        self.dataplane == Dataplane::Policy
            && beyond_policy(&flow.name, flow.probe.protocol, self.default_route).is_some()
    }

    fn all_flows(&self, family: Family) -> Vec<Flow> {
        let address = |dual: &Dual| dual.get(family);
        let (eth0, net1) = (address(&self.pod.main), address(&self.pod.underlay));
        let (pod, node, other) = (&self.pod.namespaces, &self.node, &self.other_node);
        let (node_ip, node_net1) = (address(&node.main), address(&node.underlay));
        let (remote, remote_ip) = (&self.overlay_pod.0, address(&self.overlay_pod.1));
        let outside_ip = address(&addresses::OUTSIDE);
        let outward = match self.default_route {
            DefaultRoute::Eth0 => node_ip,
            DefaultRoute::Net1 => net1,
        };
        // Rules translate nothing: what a socket sends that is bound to net1's address keeps it.
        let (by_cluster_nic, from_node_by) = match self.dataplane {
            Dataplane::Ebpf => (eth0, "sp0"),
            Dataplane::Policy => (net1, "eth0"),
        };
        let mut list = self.services(family);
        let mut add = |flows: Vec<Flow>| list.extend(flows);

        add(flow("pod to own node", pod, node_ip).seen_by(&node.namespaces, &[eth0]).by(&[Tcp, Udp, Ping]));
        add(flow("net1 socket to own node", pod, node_ip)
            .bound(net1)
            .seen_by(&node.namespaces, &[by_cluster_nic])
            .by(&[Tcp, Udp, Ping]));
        add(flow("pod to own node's underlay address", pod, node_net1)
            .seen_by(&node.namespaces, &[eth0])
            .by(&[Tcp, Udp, Ping]));
        add(flow("pod to remote pod", pod, remote_ip).seen_by(remote, &[eth0]).by(&[Tcp, Udp, Ping]));
        add(flow("net1 socket to remote pod", pod, remote_ip)
            .bound(net1)
            .seen_by(remote, &[by_cluster_nic])
            .by(&[Tcp, Udp, Ping]));
        add(flow("pod to outside", pod, outside_ip).seen_by(&self.outside, &[outward]).by(&[Tcp, Udp, Ping]));
        add(flow("net1 socket to outside", pod, outside_ip)
            .bound(net1)
            .seen_by(&self.outside, &[net1])
            .by(&[Tcp, Udp, Ping]));

        let node_ips = [node_ip, node_net1];
        let to_eth0 = [node_ip, node_net1, address(&self.node_router)];
        add(flow("node to eth0", &node.namespaces, eth0)
            .seen_by(pod, &to_eth0)
            .replies(pod, "eth0")
            .by(&[Tcp, Ping]));
        add(flow("node to net1", &node.namespaces, net1)
            .seen_by(pod, &node_ips)
            .replies(pod, from_node_by)
            .by(&[Tcp, Udp, Ping]));
        add(flow("neighbor pod to net1", &self.neighbor.0, net1)
            .seen_by(pod, &node_ips)
            .replies(pod, from_node_by)
            .by(&[Tcp, Udp, Ping]));
        add(flow("other node to net1", &other.namespaces, net1)
            .seen_by(pod, &[address(&other.underlay)])
            .replies(pod, "net1")
            .by(&[Tcp, Udp, Ping]));
        add(flow("remote pod to eth0", remote, eth0)
            .seen_by(pod, &[remote_ip])
            .replies(pod, "eth0")
            .by(&[Tcp, Udp, Ping]));
        let underlay_ip = address(&self.underlay_pod.underlay);
        add(flow("remote net1 to net1", &self.underlay_pod.namespaces, net1)
            .bound(underlay_ip)
            .seen_by(pod, &[underlay_ip])
            .replies(pod, "net1")
            .by(&[Tcp, Udp, Ping]));
        add(flow("outside to net1", &self.outside, net1)
            .seen_by(pod, &[outside_ip])
            .replies(pod, "net1")
            .by(&[Tcp, Udp, Ping]));
        list
    }

    /// The flows to the Service: what leaves the overlay for its underlay endpoint carries the node's address.
    fn services(&self, family: Family) -> Vec<Flow> {
        let (eth0, net1) = (self.pod.main.get(family), self.pod.underlay.get(family));
        let masqueraded = self.node.underlay.get(family);
        let (pod, service) = (&self.pod.namespaces, self.cluster_ip.get(family));
        let to_service = |name: &str, source| {
            flow(name, pod, service)
                .seen_by(&self.overlay_pod.0, &[source])
                .seen_by(&self.underlay_pod.namespaces, &[masqueraded])
        };
        // What does not come from a pod CIDR, kube-proxy masquerades.
        let of_net1 = match self.dataplane {
            Dataplane::Ebpf => eth0,
            Dataplane::Policy => self.node.main.get(family),
        };
        [
            to_service("pod to ClusterIP", eth0).by(&[Tcp, Udp]),
            to_service("net1 socket to ClusterIP", of_net1).bound(net1).by(&[Tcp, Udp]),
        ]
        .concat()
    }

    /// The flows that need no underlay gateway, for when it is dead.
    pub fn flows_without_gateway(&self, family: Family) -> Vec<Flow> {
        let kept = ["pod to ClusterIP", "pod to own node", "pod to remote pod", "node to net1"];
        let mut flows = self.flows(family);
        flows.retain(|flow| kept.contains(&flow.name.as_str()));
        for flow in &mut flows {
            flow.name.push_str(", underlay gateway dead");
        }
        flows
    }
}

/// A flow in the making, for one protocol after the other.
pub(crate) struct FlowBuilder(Flow);

pub(crate) fn flow(name: &str, from: &Namespaces, to: IpAddr) -> FlowBuilder {
    FlowBuilder(Flow {
        name: name.to_owned(),
        from: from.clone(),
        probe: Probe { protocol: Tcp, to, bound: None },
        servers: Vec::new(),
        replies: None,
    })
}

impl FlowBuilder {
    pub(crate) fn bound(mut self, address: IpAddr) -> Self {
        self.0.probe.bound = Some(address);
        self
    }

    pub(crate) fn seen_by(mut self, server: &Namespaces, sources: &[IpAddr]) -> Self {
        self.0.servers.push(Expected { server: server.name.clone(), sources: sources.to_vec() });
        self
    }

    /// The pod's answers must leave by `nic`. The pod is who answers.
    pub(crate) fn replies(mut self, pod: &Namespaces, nic: &'static str) -> Self {
        self.0.replies = Some((pod.clone(), nic));
        self
    }

    pub(crate) fn by(self, protocols: &[Protocol]) -> Vec<Flow> {
        protocols
            .iter()
            .map(|protocol| {
                let mut flow = self.0.clone();
                flow.probe.protocol = *protocol;
                if *protocol == Ping {
                    flow.servers.clear();
                }
                flow
            })
            .collect()
    }
}
