//! Who takes part in the flows of a pod, and by which addresses.

use std::net::IpAddr;

use spiderpool_core::ip::Family;

use super::Setting;
use crate::dual::Dual;
use crate::namespaces::Namespaces;

/// A pod, node or other host of the matrix.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where it sends from.
    pub namespaces: Namespaces,
    /// eth0's address of a pod, the node IP of a node.
    pub main: Dual,
    /// The address in the underlay; in underlay mode a pod's is the same.
    pub underlay: Dual,
}

/// A host with one address.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it sends from.
    pub namespaces: Namespaces,
    /// Its address.
    pub address: Dual,
}

/// Who takes part.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The pod whose flows are tested.
    pub pod: Host,
    /// What it is like.
    pub setting: Setting,
    /// Its node.
    pub node: Host,
    /// The node's address among its overlay pods, if it has one: which one it comes to eth0 by is the default network's
    /// choice.
    pub node_router: Dual,
    /// Whether the node masquerades what overlay pods send to the underlay.
    pub node_masquerades: bool,
    /// Another node.
    pub other_node: Host,
    /// A pod on the same node that has eth0 only.
    pub neighbor: Peer,
    /// A pod on the other node that has eth0 only, and the Service that it is the endpoint of.
    pub overlay_pod: (Peer, Dual),
    /// A pod on the other node with net1, and the Service that its net1 address is the endpoint of.
    pub underlay_pod: (Host, Dual),
    /// A client behind the underlay's gateway.
    pub outside: Peer,
    /// What a cluster of kubelets does not offer.
    pub surroundings: Option<Surroundings>,
}

/// What only the lab has.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Underlay NICs of the pod under test but the first, with its address and a client there.
    pub further_nics: Vec<(&'static str, Dual, Peer)>,
    /// All addresses of the pod's node.
    pub node_addresses: Vec<Dual>,
    /// All addresses of the other node.
    pub other_addresses: Vec<Dual>,
    /// A client in net1's subnet.
    pub client: Peer,
    /// A pod of a third node, which does not masquerade what goes to the underlay.
    pub plain_pod: Peer,
    /// The Service of the neighbor.
    pub neighbor_service: Dual,
    /// A pod with net1 on the same node, and the Service that its net1 address is the endpoint of.
    pub near_underlay_pod: (Host, Dual),
    /// Addresses of a Service of the overlay pod which the pod's node announces: in the underlay's subnet, and by a route.
    pub announced: PublishedService,
    /// What is behind a hijackCIDR.
    pub hijacked: Peer,
    /// How the pod's own addresses are published.
    pub published: Published,
}

/// Services with an address of the pod under test as their endpoint, and its host port.
#[derive(Debug, Clone)]
pub struct Published {
    /// For eth0 and every further NIC: with externalTrafficPolicy Cluster and Local.
    pub services: Vec<(&'static str, [PublishedService; 2])>,
    /// The port of the node that leads to eth0's address.
    pub host_port: u16,
}

/// A Service as it is seen from outside.
#[derive(Debug, Clone)]
pub struct PublishedService {
    /// Inside the cluster.
    pub cluster_ip: Dual,
    /// On each node, for TCP and UDP.
    pub node_port: u16,
    /// The load balancer's address in the underlay's subnet, which the pod's node answers for.
    pub announced: Dual,
    /// The load balancer's address that is routed to the node IP.
    pub routed: Dual,
}

impl Peer {
    /// From its parts.
    pub fn new(namespaces: &Namespaces, address: Dual) -> Self {
        Self { namespaces: namespaces.clone(), address }
    }
}

impl Hosts {
    /// Addresses by which the pod's node may send: which one, its routes and its masquerading decide.
    pub(super) fn node_sources(&self, family: Family) -> Vec<IpAddr> {
        let more = self.surroundings.iter().flat_map(|more| &more.node_addresses);
        [&self.node.main, &self.node.underlay, &self.node_router]
            .into_iter()
            .chain(more)
            .map(|address| address.get(family))
            .collect()
    }

    /// The same for the other node.
    pub(super) fn other_sources(&self, family: Family) -> Vec<IpAddr> {
        let more = self.surroundings.iter().flat_map(|more| &more.other_addresses);
        let own = [&self.other_node.main, &self.other_node.underlay];
        own.into_iter().chain(more).map(|address| address.get(family)).collect()
    }

    /// The pod's address on one of its NICs.
    pub(super) fn own_address(&self, nic: &str, family: Family) -> IpAddr {
        let underlay = self.underlay_nics(family).into_iter().find(|(name, _)| *name == nic);
        underlay.map_or_else(|| self.pod.main.get(family), |(_, address)| address)
    }

    /// The pod's underlay NICs with the addresses there.
    pub(super) fn underlay_nics(&self, family: Family) -> Vec<(&'static str, IpAddr)> {
        let more = self.surroundings.iter().flat_map(|more| &more.further_nics);
        let further = more.map(|(nic, address, _)| (*nic, address.get(family)));
        let first = (self.setting.first_underlay_nic(), self.pod.underlay.get(family));
        [first].into_iter().chain(further).collect()
    }
}
