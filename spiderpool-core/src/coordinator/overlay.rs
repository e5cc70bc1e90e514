//! An underlay NIC beside another CNI plugin's first NIC.

use std::net::IpAddr;

use ipnet::IpNet;

use super::link::{NODE_LINK, NODE_LINK_V4, host_end_name, link_local, node_link_macs};
use super::{Config, HostEnd, Namespace, Place, PlanError, Step, plan_default_routes, project};
use crate::dataplane::{HintInputs, is_hint, plan_route_hints};
use crate::ip::Family;
use crate::mac::MacAddr;
use crate::names::IfName;
use crate::net::{Link, Medium, Neighbor, Route};

/// What the plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: &'a str,
    /// `CNI_IFNAME`.
    pub nic: &'a IfName,
    /// Merged configuration.
    pub config: &'a Config,
    /// The pod as found.
    pub pod: &'a Namespace,
    /// The node link's host end as found.
    pub host_end: &'a HostEnd,
    /// MAC of the cluster NIC's host end.
    pub cluster_peer: MacAddr,
    /// Addresses of the node.
    pub nodes: &'a [IpAddr],
}

/// What to do, in two parts: programs are attached between them, before there is traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links, addresses, neighbours, kernel parameters.
    pub links: Vec<Step>,
    /// Routes: they bring the traffic.
    pub routes: Vec<Step>,
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.links.iter().chain(&self.routes).try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Plans what is missing for one underlay NIC of an overlay pod.
pub fn plan_overlay(inputs: &Inputs<'_>) -> Result<Plan, PlanError> {
    let nic = inputs.pod.link(inputs.nic).ok_or_else(|| PlanError::NoNic(inputs.nic.clone()))?;
    if nic.medium != Medium::Ethernet {
        return Err(PlanError::Unsupported(format!(
            "{}: a NIC that does not carry Ethernet frames",
            nic.name
        )));
    }
    let first = &inputs.config.first_nic;
    inputs.pod.link(first).ok_or_else(|| PlanError::NoClusterNic(first.clone()))?;
    let addresses = inputs.pod.usable_addresses(inputs.nic);
    if addresses.is_empty() {
        return Err(PlanError::NoAddress(inputs.nic.clone()));
    }
    let unsupported = |error: crate::names::NameError| PlanError::Unsupported(error.to_string());
    let node_link = NodeLink {
        host: host_end_name(inputs.container_id).map_err(unsupported)?,
        pod: NODE_LINK.parse().map_err(unsupported)?,
        macs: node_link_macs(inputs.container_id),
    };
    let mut plan = Plan::default();
    plan_nic(inputs, nic, &addresses, &mut plan.links)?;
    plan_sysctls(inputs, &addresses, &mut plan.links);
    plan_node_link(inputs, &node_link, &addresses, &mut plan.links);
    plan_neighbors(inputs, &node_link, &addresses, &mut plan.links);
    plan_routes(inputs, &node_link, &addresses, &mut plan.routes);
    Ok(plan)
}

/// Destinations that the pod's own routes send by an underlay NIC and the cluster's CIDRs must not drag away:
/// connected subnets, pool routes, policyRoutes.
pub fn stays(routes: &[Route], cluster_nic: &IfName) -> Vec<IpNet> {
    let mut found: Vec<_> = routes
        .iter()
        .filter(|r| !r.is_default() && r.dev != *cluster_nic && r.dev.as_str() != NODE_LINK)
        .filter(|r| !matches!(r.dst, IpNet::V6(v6) if v6.addr().is_unicast_link_local() || v6.addr().is_multicast()))
        .filter(|r| !is_hint(r, cluster_nic))
        .map(|r| r.dst)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests;

struct NodeLink {
    host: IfName,
    pod: IfName,
    macs: (MacAddr, MacAddr),
}

fn has(addresses: &[IpNet], family: Family) -> bool {
    addresses.iter().any(|net| Family::of_net(net) == family)
}

fn plan_nic(
    inputs: &Inputs<'_>,
    nic: &Link,
    addresses: &[IpNet],
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let dev = nic.name.clone();
    if !nic.up {
        steps.push(Step::SetUp { place: Place::Pod, dev: dev.clone() });
    }
    let wanted = inputs.config.mac_prefix.zip(addresses.first()).map(|(prefix, net)| prefix.mac(net.addr()));
    if let Some(mac) = wanted.filter(|mac| nic.mac != Some(*mac)) {
        if nic.kind == "ipvlan" {
            return Err(PlanError::IpvlanMac(dev));
        }
        // The kernel announces the addresses with the new MAC.
        for (family, name) in [(Family::V4, "arp_notify"), (Family::V6, "ndisc_notify")] {
            if has(addresses, family) {
                steps.push(sysctl(Place::Pod, family, dev.as_str(), name, 1));
            }
        }
        steps.push(Step::SetMac { dev: dev.clone(), mac, before: nic.mac });
    }
    if let Some(length) = inputs.config.tx_queue_len.filter(|length| nic.tx_queue_len != *length) {
        steps.push(Step::SetTxQueueLen { dev, length, before: nic.tx_queue_len });
    }
    Ok(())
}

fn sysctl(place: Place, family: Family, dev: &str, name: &str, value: u8) -> Step {
    let key = format!("net/ipv{}/conf/{dev}/{name}", family.version());
    Step::SetSysctl { place, key, value: value.to_string() }
}

fn plan_sysctls(inputs: &Inputs<'_>, addresses: &[IpNet], steps: &mut Vec<Step>) {
    if has(addresses, Family::V6) {
        steps.push(sysctl(Place::Pod, Family::V6, "all", "disable_ipv6", 0));
        // The router's own default route would come back after it was moved.
        if inputs.config.tune_pod_routes && inputs.config.default_route_nic.as_ref() != Some(inputs.nic) {
            steps.push(sysctl(Place::Pod, Family::V6, inputs.nic.as_str(), "accept_ra_defrtr", 0));
        }
    }
    if let Some(value) = inputs.config.rp_filter {
        // The kernel takes the greater of `all` and the NIC's own, which came from `default`.
        let links = inputs.pod.links.iter().filter(|l| l.medium == Medium::Ethernet).map(|l| l.name.as_str());
        for dev in ["all", "default"].into_iter().chain(links) {
            steps.push(sysctl(Place::Pod, Family::V4, dev, "rp_filter", value));
        }
    }
    // Otherwise a first packet with the NIC's source asks for eth0's next hop in the NIC's name, and a host
    // with strict rp_filter does not answer.
    steps.push(sysctl(Place::Pod, Family::V4, inputs.config.first_nic.as_str(), "arp_announce", 2));
}

fn plan_node_link(inputs: &Inputs<'_>, link: &NodeLink, addresses: &[IpNet], steps: &mut Vec<Step>) {
    let (host_mac, pod_mac) = link.macs;
    let present = inputs.pod.link(&link.pod);
    if present.is_none() {
        let (host, pod) = (link.host.clone(), link.pod.clone());
        steps.push(Step::AddNodeLink { host, host_mac, pod, pod_mac, mtu: inputs.config.mtu });
        steps.push(sysctl(Place::Node, Family::V6, link.host.as_str(), "accept_ra", 0));
        steps.push(Step::SetUp { place: Place::Node, dev: link.host.clone() });
        if has(addresses, Family::V6) {
            steps.push(sysctl(Place::Pod, Family::V6, NODE_LINK, "accept_dad", 0));
        }
        if let Some(value) = inputs.config.rp_filter {
            steps.push(sysctl(Place::Pod, Family::V4, NODE_LINK, "rp_filter", value));
        }
    }
    if !present.is_some_and(|l| l.up) {
        steps.push(Step::SetUp { place: Place::Pod, dev: link.pod.clone() });
    }
    let mut wanted = vec![NODE_LINK_V4];
    if has(addresses, Family::V6) {
        wanted.push(link_local(pod_mac));
    }
    for net in wanted {
        if !inputs.pod.addresses.iter().any(|a| a.dev == link.pod && a.net.addr() == net.addr()) {
            steps.push(Step::AddAddress { dev: link.pod.clone(), net });
        }
    }
}

fn plan_neighbors(inputs: &Inputs<'_>, link: &NodeLink, addresses: &[IpNet], steps: &mut Vec<Step>) {
    let (host_mac, pod_mac) = link.macs;
    let mut add = |place, present: &[Neighbor], neighbor: Neighbor| {
        if !present.contains(&neighbor) {
            steps.push(Step::SetNeighbor { place, neighbor });
        }
    };
    for net in addresses {
        let neighbor = Neighbor { dev: link.host.clone(), address: net.addr(), mac: pod_mac };
        add(Place::Node, &inputs.host_end.neighbors, neighbor);
    }
    for node in inputs.nodes.iter().filter(|node| has(addresses, Family::of(**node))) {
        let neighbor = Neighbor { dev: link.pod.clone(), address: *node, mac: host_mac };
        add(Place::Pod, &inputs.pod.neighbors, neighbor);
        // A macvlan never hears the node answer; without an entry no packet for it reaches the program.
        if addresses.iter().any(|net| net.contains(node)) {
            let neighbor = Neighbor { dev: inputs.nic.clone(), address: *node, mac: inputs.cluster_peer };
            add(Place::Pod, &inputs.pod.neighbors, neighbor);
        }
    }
}

fn plan_routes(inputs: &Inputs<'_>, link: &NodeLink, addresses: &[IpNet], steps: &mut Vec<Step>) {
    let config = inputs.config;
    for net in addresses {
        let family = Family::of_net(net);
        let source = inputs.nodes.iter().copied().find(|node| Family::of(*node) == family);
        let metric = if family == Family::V6 { 1024 } else { 0 }; // as the kernel lists it
        let route = Route { source, metric, ..Route::new(IpNet::from(net.addr()), link.host.clone()) };
        if !inputs.host_end.routes.contains(&route) {
            steps.push(Step::ReplaceRoute { place: Place::Node, route });
        }
    }
    let mut pod_steps = Vec::new();
    if config.tune_pod_routes {
        let wanted = config.default_route_nic.as_ref().unwrap_or(&config.first_nic);
        pod_steps = plan_default_routes(&inputs.pod.routes, wanted, &config.first_nic);
    }
    for policy in config.policy_routes.iter().filter(|p| has(addresses, Family::of(p.gw))) {
        let present = inputs.pod.routes.iter().any(|r| r.dst == policy.dst && r.dev == *inputs.nic);
        if !present {
            let route = Route { gateway: Some(policy.gw), ..Route::new(policy.dst, inputs.nic.clone()) };
            pod_steps.push(Step::AddRoute { place: Place::Pod, route });
        }
    }
    let hints = config.route_hints;
    let routes = project(&inputs.pod.routes, &pod_steps);
    pod_steps.extend(plan_route_hints(&HintInputs {
        cluster_nic: &config.first_nic,
        addresses: &inputs.pod.addresses,
        routes: &routes,
        cidrs: if hints { &config.cluster_cidrs } else { &[] },
        nodes: if hints { inputs.nodes } else { &[] },
    }));
    steps.extend(pod_steps);
}
