//! What is different where rules steer packets (`dataplane: policy`): they choose a route, and translate nothing.

use std::net::IpAddr;

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::{DefaultRoute, Hosts};
use crate::flow::Flow;
use crate::probe::Protocol::{self, Tcp, Udp};

/// Why rules cannot serve a flow that programs serve. The only list of these flows.
pub fn beyond_policy(name: &str, protocol: Protocol, default_route: DefaultRoute) -> Option<&'static str> {
    let answers_by_route = match name {
        "node to net1" | "pod of own node to net1" => true,
        "outside to net1" => default_route == DefaultRoute::Eth0,
        "other node to eth0" => default_route == DefaultRoute::Net1,
        _ => false,
    };
    match (name, protocol) {
        ("net1 socket to remote pod", Tcp) => Some(
            "the answer comes straight to net1, so that the node sees one direction of the connection and drops the \
             rest of it as invalid",
        ),
        (_, Udp) if answers_by_route => {
            Some("a server on the wildcard address answers with another NIC's source, that of the route back")
        }
        _ => None,
    }
}

impl Hosts {
    /// Whether this dataplane can serve a flow.
    pub(super) fn is_served(&self, flow: &Flow) -> bool {
        self.dataplane == Dataplane::Ebpf
            || beyond_policy(&flow.name, flow.probe.protocol, self.default_route).is_none()
    }

    /// The NIC by which the pod's node comes to underlay addresses.
    pub(super) fn node_nic(&self) -> &'static str {
        match self.dataplane {
            Dataplane::Ebpf => "sp0",
            Dataplane::Policy => "eth0",
        }
    }

    /// What the cluster sees of a socket that is bound to an underlay address.
    pub(super) fn bound_source(&self, bound: IpAddr) -> IpAddr {
        match self.dataplane {
            Dataplane::Ebpf => self.pod.main.get(Family::of(bound)),
            Dataplane::Policy => bound,
        }
    }

    /// The NIC by which the answers of the cluster's pods come to such a socket, and its requests leave; `None` if not the
    /// same: rules send by eth0, and the answer is for an address of the underlay.
    pub(super) fn bound_nic(&self) -> Option<&'static str> {
        (self.dataplane == Dataplane::Ebpf).then_some("eth0")
    }

    /// What a Service's endpoint sees of such a socket, where it sees `of_eth0` of others. What does not come from a pod CIDR,
    /// kube-proxy masquerades.
    pub(super) fn bound_sources_of_service(&self, of_eth0: &[IpAddr], family: Family) -> Vec<IpAddr> {
        match self.dataplane {
            Dataplane::Ebpf => of_eth0.to_vec(),
            Dataplane::Policy => self.node_sources(family),
        }
    }
}
