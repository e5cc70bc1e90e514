//! The node link: the veth pair by which the node reaches the underlay addresses of its own pods.
//!
//! The plugin makes it; the agent keeps its routes and neighbors right while the node's addresses change.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::link::{
    NODE_LINK, NODE_LINK_V4, VETH0, host_end_name, link_local, node_link_macs, veth0_host_name,
};
use super::{Config, Namespace, NamespaceState, Step};
use crate::ip::Family;
use crate::mac::MacAddr;
use crate::names::{IfName, NameError};
use crate::net::{Neighbor, Route};

/// The pair of one sandbox: everything follows from the container's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLink {
    /// Name of the node's end.
    pub host: IfName,
    /// Name of the pod's end.
    pub pod: IfName,
    /// MAC of the node's end.
    pub host_mac: MacAddr,
    /// MAC of the pod's end.
    pub pod_mac: MacAddr,
    /// IPv4 address of the pod's end.
    pub address: Option<IpNet>,
}

impl NodeLink {
    /// Of the sandbox with this id, in overlay mode: `sp0`.
    pub fn new(container_id: &str) -> Result<Self, NameError> {
        let (host_mac, pod_mac) = node_link_macs(container_id);
        let (host, pod) = (host_end_name(container_id)?, NODE_LINK.parse()?);
        Ok(Self { host, pod, host_mac, pod_mac, address: Some(NODE_LINK_V4) })
    }

    /// Of the sandbox with this id, in underlay mode: `veth0`, with `vethLinkAddress` if there is one.
    pub fn underlay(container_id: &str, address: Option<Ipv4Addr>) -> Result<Self, NameError> {
        let (host_mac, pod_mac) = node_link_macs(container_id);
        let (host, pod) = (veth0_host_name(container_id)?, VETH0.parse()?);
        let address = address.map(|address| IpNet::from(IpAddr::V4(address)));
        Ok(Self { host, pod, host_mac, pod_mac, address })
    }

    /// Whether it is an underlay pod's, which reaches the cluster by it too.
    pub fn is_veth0(&self) -> bool {
        self.pod.as_str() == VETH0
    }
}

/// Makes the pair, if it is not there, and gives its pod end what it lacks. `addresses` are the pod's on the underlay.
pub(super) fn plan_node_link(
    config: &Config,
    pod: &NamespaceState,
    link: &NodeLink,
    mtu: u32,
    addresses: &[IpNet],
    steps: &mut Vec<Step>,
) {
    let (host_mac, pod_mac) = (link.host_mac, link.pod_mac);
    if pod.link(&link.pod).is_none() {
        let (host, pod) = (link.host.clone(), link.pod.clone());
        steps.push(Step::AddNodeLink { host, host_mac, pod, pod_mac, mtu });
        let (host, pod) = (link.host.as_str(), link.pod.as_str());
        steps.push(Step::interface_sysctl(Namespace::Node, Family::V6, host, "accept_ra", 0));
        // Where `default` has it not: answers to NodePorts are forwarded, and of what comes in by a device that does not
        // forward the kernel looks up no reverse path.
        for family in Family::ALL {
            steps.push(Step::interface_sysctl(Namespace::Node, family, host, "forwarding", 1));
        }
        if Family::V6.is_among(addresses) {
            steps.push(Step::interface_sysctl(Namespace::Pod, Family::V6, pod, "accept_dad", 0));
        }
        if let Some(value) = config.rp_filter {
            steps.push(Step::interface_sysctl(Namespace::Pod, Family::V4, pod, "rp_filter", value));
        }
    }
    plan_pod_end(link, pod, addresses, steps);
}

/// Sets the host end up, if it is not: where programs guard it not before they are attached, because the pod may run
/// already.
pub(super) fn plan_host_end_up(host_end: &NamespaceState, link: &NodeLink) -> Option<Step> {
    let is_up = host_end.link(&link.host).is_some_and(|host| host.up);
    (!is_up).then(|| Step::SetUp { namespace: Namespace::Node, dev: link.host.clone() })
}

/// Sets the ends up and gives the pod's end its addresses, where they are not so any more.
pub fn plan_link_state(
    link: &NodeLink,
    host: &NamespaceState,
    pod: &NamespaceState,
    addresses: &[IpNet],
) -> Vec<Step> {
    let mut steps = Vec::new();
    if host.link(&link.host).is_some_and(|l| !l.up) {
        steps.push(Step::SetUp { namespace: Namespace::Node, dev: link.host.clone() });
    }
    if pod.link(&link.pod).is_some() {
        plan_pod_end(link, pod, addresses, &mut steps);
    }
    steps
}

fn plan_pod_end(link: &NodeLink, pod: &NamespaceState, addresses: &[IpNet], steps: &mut Vec<Step>) {
    if !pod.link(&link.pod).is_some_and(|l| l.up) {
        steps.push(Step::SetUp { namespace: Namespace::Pod, dev: link.pod.clone() });
    }
    let mut wanted: Vec<IpNet> = link.address.into_iter().collect();
    if Family::V6.is_among(addresses) {
        wanted.push(link_local(link.pod_mac));
    }
    for net in wanted {
        if !pod.addresses.iter().any(|a| a.dev == link.pod && a.net.addr() == net.addr()) {
            steps.push(Step::AddAddress { dev: link.pod.clone(), net });
        }
    }
}

/// The host end's neighbors: the pod's underlay addresses.
pub fn plan_host_neighbors(link: &NodeLink, present: &NamespaceState, addresses: &[IpNet]) -> Vec<Step> {
    let wanted = addresses.iter().map(|net| Neighbor {
        dev: link.host.clone(),
        address: net.addr(),
        mac: link.pod_mac,
    });
    let missing = wanted.filter(|neighbor| !present.neighbors.contains(neighbor));
    missing.map(|neighbor| Step::SetNeighbor { namespace: Namespace::Node, neighbor }).collect()
}

/// The host end's routes to the pod's underlay addresses, each with the source that the node itself would take.
///
/// The kernel deletes a route with its source address, so one that comes and goes (a virtual address) must not be
/// taken just because it is the first of a list. A source that is still the node's is kept.
pub fn plan_host_routes(
    link: &NodeLink,
    present: &NamespaceState,
    nodes: &[IpAddr],
    sources: &[(IpAddr, IpAddr)],
    addresses: &[IpNet],
) -> Vec<Step> {
    let mut steps = Vec::new();
    for net in addresses {
        let (address, family) = (net.addr(), Family::of_net(net));
        let dst = IpNet::from(address);
        let kept = present.routes.iter().find(|route| route.dst == dst).and_then(|route| route.source);
        let kernels = sources.iter().find(|(of, _)| *of == address).map(|(_, source)| *source);
        let source = [kept, kernels]
            .into_iter()
            .flatten()
            .find(|source| nodes.contains(source))
            .or_else(|| nodes.iter().copied().find(|node| Family::of(*node) == family));
        let metric = if family == Family::V6 { 1024 } else { 0 }; // as the kernel lists it
        let route = Route { source, metric, ..Route::new(dst, link.host.clone()) };
        if !present.routes.contains(&route) {
            steps.push(Step::ReplaceRoute { namespace: Namespace::Node, route });
        }
    }
    steps
}

/// The node's addresses as neighbors in the pod: on the node link, and on each of these underlay NICs whose subnet
/// has them, by the cluster NIC's host end: a macvlan never receives the node's answer, and without an entry no packet
/// for it reaches the program.
///
/// Not an address that is the next hop of a route on that NIC (`gateways`), for example of a bridge on the node: what
/// goes beyond it would have the wrong MAC, and the NIC can resolve it itself.
pub fn pod_neighbors(
    link: &NodeLink,
    underlay: &[(&IfName, &[IpNet])],
    host_veth_mac: MacAddr,
    nodes: &[IpAddr],
    gateways: &[(&IfName, IpAddr)],
) -> Vec<Neighbor> {
    let mut wanted = Vec::new();
    for node in nodes {
        let family = Family::of(*node);
        if underlay.iter().any(|(_, addresses)| family.is_among(addresses)) {
            wanted.push(Neighbor { dev: link.pod.clone(), address: *node, mac: link.host_mac });
        }
        for (nic, addresses) in underlay {
            if addresses.iter().any(|net| net.contains(node)) && !gateways.contains(&(*nic, *node)) {
                wanted.push(Neighbor { dev: (*nic).clone(), address: *node, mac: host_veth_mac });
            }
        }
    }
    wanted
}

/// The next hops of routes, each with its device.
pub fn gateways(routes: &[Route]) -> Vec<(&IfName, IpAddr)> {
    routes.iter().filter_map(|route| Some((&route.dev, route.gateway?))).collect()
}

/// Adds the neighbors that are missing.
pub fn plan_pod_neighbors(present: &[Neighbor], wanted: Vec<Neighbor>) -> Vec<Step> {
    let missing = wanted.into_iter().filter(|neighbor| !present.contains(neighbor));
    missing.map(|neighbor| Step::SetNeighbor { namespace: Namespace::Pod, neighbor }).collect()
}

/// Deletes the neighbors that were a node's address and are not any more: those with a MAC of ours.
pub fn plan_stale_neighbors(
    link: &NodeLink,
    host_veth_mac: MacAddr,
    present: &[Neighbor],
    wanted: &[Neighbor],
) -> Vec<Step> {
    let is_ours = |neighbor: &&Neighbor| {
        let mac = if neighbor.dev == link.pod { link.host_mac } else { host_veth_mac };
        neighbor.mac == mac && !wanted.contains(neighbor)
    };
    let stale = present.iter().filter(is_ours);
    stale
        .map(|neighbor| Step::DeleteNeighbor { namespace: Namespace::Pod, neighbor: neighbor.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Address, Link, Medium};

    const PEER: MacAddr = MacAddr([0xee; 6]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link() -> NodeLink {
        NodeLink::new("c0ffee").unwrap()
    }

    #[track_caller]
    fn check_source(present: Option<&str>, nodes: &[&str], kernels: Option<&str>, expect: Option<&str>) {
        let address: IpNet = "10.6.0.9/16".parse().unwrap();
        let route = present.map(|source| Route {
            source: Some(ip(source)),
            ..Route::new(IpNet::from(address.addr()), link().host)
        });
        let present = NamespaceState { routes: route.into_iter().collect(), ..NamespaceState::default() };
        let nodes: Vec<_> = nodes.iter().map(|node| ip(node)).collect();
        let sources: Vec<_> = kernels.map(|source| (address.addr(), ip(source))).into_iter().collect();
        let steps = plan_host_routes(&link(), &present, &nodes, &sources, &[address]);
        let got = steps.first().map(|step| match step {
            Step::ReplaceRoute { route, .. } => route.source.unwrap().to_string(),
            other => panic!("{other}"),
        });
        assert_eq!(got.as_deref(), expect);
    }

    #[test]
    fn the_source_is_the_kernels_choice_not_the_first_address() {
        let nodes = ["10.1.0.1", "10.6.0.1"];
        check_source(None, &nodes, Some("10.6.0.1"), Some("10.6.0.1"));
        check_source(None, &nodes, None, Some("10.1.0.1"));
        // Of a device that is not the node's own.
        check_source(None, &nodes, Some("172.17.0.1"), Some("10.1.0.1"));
    }

    #[test]
    fn a_source_is_kept_while_it_is_the_nodes() {
        check_source(Some("10.1.0.1"), &["10.1.0.1", "10.6.0.1"], Some("10.6.0.1"), None);
        check_source(Some("10.1.0.1"), &["10.6.0.1"], Some("10.6.0.1"), Some("10.6.0.1"));
    }

    #[test]
    fn neighbors_follow_the_nodes_addresses() {
        let (net1, other) = ("net1".parse().unwrap(), MacAddr([2; 6]));
        let addresses: [IpNet; 1] = ["10.6.0.9/16".parse().unwrap()];
        let neighbors = |nodes: &[&str]| {
            let nodes: Vec<_> = nodes.iter().map(|node| ip(node)).collect();
            pod_neighbors(&link(), &[(&net1, &addresses)], PEER, &nodes, &[])
        };
        let mut before = neighbors(&["10.6.0.1", "172.18.0.3"]);
        before.push(Neighbor { dev: net1.clone(), address: ip("10.6.0.7"), mac: other });
        let wanted = neighbors(&["10.6.0.2"]);
        let mut steps = plan_stale_neighbors(&link(), PEER, &before, &wanted);
        steps.extend(plan_pod_neighbors(&before, wanted));
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "pod: neigh del 10.6.0.1 lladdr 0a:13:a3:6b:99:ec dev sp0",
                "pod: neigh del 10.6.0.1 lladdr ee:ee:ee:ee:ee:ee dev net1",
                "pod: neigh del 172.18.0.3 lladdr 0a:13:a3:6b:99:ec dev sp0",
                "pod: neigh replace 10.6.0.2 lladdr 0a:13:a3:6b:99:ec dev sp0 nud permanent",
                "pod: neigh replace 10.6.0.2 lladdr ee:ee:ee:ee:ee:ee dev net1 nud permanent",
            ]
        );
    }

    /// A bridge of the node is the underlay's gateway: what goes beyond must have the bridge's MAC.
    #[test]
    fn a_gateway_that_is_the_nodes_is_no_neighbor_on_its_nic() {
        let (net1, net2): (IfName, IfName) = ("net1".parse().unwrap(), "net2".parse().unwrap());
        let addresses: [IpNet; 1] = ["10.6.0.9/16".parse().unwrap()];
        let route =
            Route { gateway: Some(ip("10.6.0.1")), ..Route::new("0.0.0.0/0".parse().unwrap(), net1.clone()) };
        let underlay = [(&net1, addresses.as_slice()), (&net2, addresses.as_slice())];
        let nodes = [ip("10.6.0.1"), ip("10.6.0.2")];
        let before = pod_neighbors(&link(), &underlay, PEER, &nodes, &[]);
        let routes = [route];
        let wanted = pod_neighbors(&link(), &underlay, PEER, &nodes, &gateways(&routes));
        let shown: Vec<_> = wanted.iter().map(|n| format!("{} {}", n.dev, n.address)).collect();
        assert_eq!(
            shown,
            ["sp0 10.6.0.1", "net2 10.6.0.1", "sp0 10.6.0.2", "net1 10.6.0.2", "net2 10.6.0.2"]
        );
        let stale = plan_stale_neighbors(&link(), PEER, &before, &wanted);
        let shown: Vec<_> = stale.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["pod: neigh del 10.6.0.1 lladdr ee:ee:ee:ee:ee:ee dev net1"]);
    }

    /// `ip link set down`, `ip address flush`: of the host's network manager, or of somebody in the pod.
    #[test]
    fn ends_that_are_down_or_lost_their_addresses_are_put_right() {
        let end = |name: &IfName, up| Link {
            index: 4,
            name: name.clone(),
            mac: None,
            mtu: 1500,
            tx_queue_len: 0,
            up,
            kind: "veth".to_owned(),
            medium: Medium::Ethernet,
            peer: None,
            peer_netns: None,
            master: None,
            detail: crate::net::LinkDetail::Nothing,
        };
        let state = |name: &IfName, up, addresses: &[IpNet]| NamespaceState {
            links: vec![end(name, up)],
            addresses: addresses.iter().map(|net| Address::new(name.clone(), *net)).collect(),
            ..NamespaceState::default()
        };
        let (link, underlay) = (link(), ["10.6.0.9/16", "fd00::9/64"].map(|net| net.parse().unwrap()));
        let whole = [NODE_LINK_V4, link_local(link.pod_mac)];
        let plan = |host_up, pod_up, addresses: &[IpNet]| -> Vec<String> {
            let (host, pod) = (state(&link.host, host_up, &[]), state(&link.pod, pod_up, addresses));
            plan_link_state(&link, &host, &pod, &underlay).iter().map(ToString::to_string).collect()
        };
        assert_eq!(plan(true, true, &whole), [""; 0]);
        assert_eq!(plan(false, true, &whole), [format!("node: link set {} up", link.host)]);
        assert_eq!(
            plan(true, false, &whole[1..]),
            ["pod: link set sp0 up", "pod: addr add 169.254.77.2/32 dev sp0"]
        );
        assert_eq!(
            plan_link_state(&link, &NamespaceState::default(), &NamespaceState::default(), &underlay),
            []
        );
    }
}
