//! An underlay NIC beside another CNI plugin's first NIC.

use std::net::IpAddr;

use ipnet::IpNet;

use super::link::NODE_LINK;
use super::node_link::{
    NodeLink, gateways, plan_host_end_up, plan_host_neighbors, plan_host_routes, plan_node_link,
    plan_pod_neighbors, pod_neighbors,
};
use super::{
    Config, Inputs, Namespace, NamespaceState, PlanError, PolicyRoute, RouteHints, Step, plan_default_routes,
    plan_source_specific_defaults, project,
};
use crate::Unsupported;
use crate::dataplane::{HintInputs, is_hint, plan_route_hints};
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{Link, Medium, Route};

/// What to do, in two parts: programs are attached between them, before there is traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayPlan {
    /// Links, addresses, neighbors, kernel parameters.
    pub links: Vec<Step>,
    /// What brings the traffic: the host end is set up, then routes.
    pub routes: Vec<Step>,
}

impl std::fmt::Display for OverlayPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.links.iter().chain(&self.routes).try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Plans what is missing for one underlay NIC of an overlay pod.
pub fn plan_overlay(inputs: &Inputs<'_>) -> Result<OverlayPlan, PlanError> {
    let nic = inputs.pod.link(inputs.nic).ok_or_else(|| PlanError::NoNic(inputs.nic.clone()))?;
    if nic.medium != Medium::Ethernet {
        return Err(Unsupported::LinkLayer(nic.name.clone()).into());
    }
    let first = &inputs.config.first_nic;
    inputs.pod.link(first).ok_or_else(|| PlanError::NoClusterNic(first.clone()))?;
    let addresses = inputs.pod.usable_addresses(inputs.nic);
    if addresses.is_empty() {
        return Err(PlanError::NoAddress(inputs.nic.clone()));
    }
    let node_link = NodeLink::new(inputs.container_id)?;
    let mut plan = OverlayPlan::default();
    plan_nic(inputs, nic, &addresses, &mut plan.links)?;
    plan_sysctls(inputs, &addresses, &mut plan.links);
    plan_node_link(inputs, &node_link, &addresses, &mut plan.links);
    plan.links.extend(plan_host_neighbors(&node_link, inputs.host_end, &addresses));
    let mut gateways = gateways(&inputs.pod.routes);
    let policies = own_policy_routes(inputs.config, inputs.pod, inputs.nic);
    gateways.extend(policies.map(|policy| (inputs.nic, policy.gw)));
    let underlay: [(&IfName, &[IpNet]); 1] = [(inputs.nic, &addresses)];
    let wanted = pod_neighbors(&node_link, &underlay, inputs.host_veth_mac, inputs.nodes, &gateways);
    plan.links.extend(plan_pod_neighbors(&inputs.pod.neighbors, wanted));
    plan_routes(inputs, &node_link, &addresses, &mut plan.routes)?;
    Ok(plan)
}

/// Destinations that the pod's own routes send by an underlay NIC and the cluster's CIDRs must not drag away:
/// connected subnets, pool routes, policyRoutes.
pub fn unsteered_destinations(routes: &[Route], cluster_nic: &IfName) -> Vec<IpNet> {
    let mut found: Vec<_> = routes
        .iter()
        .filter(|r| !r.is_default() && r.dev != *cluster_nic && r.dev.as_str() != NODE_LINK)
        .filter(|r| !matches!(r.dst, IpNet::V6(v6) if v6.addr().is_unicast_link_local() || v6.addr().is_multicast()))
        .filter(|r| r.from.is_none() && !is_hint(r, cluster_nic))
        .map(|r| r.dst)
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests;

fn plan_nic(
    inputs: &Inputs<'_>,
    nic: &Link,
    addresses: &[IpNet],
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let dev = nic.name.clone();
    if !nic.up {
        steps.push(Step::SetUp { namespace: Namespace::Pod, dev: dev.clone() });
    }
    let wanted = inputs.config.mac_prefix.zip(addresses.first()).map(|(prefix, net)| prefix.mac(net.addr()));
    if let Some(mac) = wanted.filter(|mac| nic.mac != Some(*mac)) {
        if nic.kind == "ipvlan" {
            return Err(PlanError::IpvlanMac(dev));
        }
        // The kernel announces the addresses with the new MAC.
        for (family, name) in [(Family::V4, "arp_notify"), (Family::V6, "ndisc_notify")] {
            if family.is_among(addresses) {
                steps.push(Step::interface_sysctl(Namespace::Pod, family, dev.as_str(), name, 1));
            }
        }
        steps.push(Step::SetMac { dev: dev.clone(), mac, before: nic.mac });
    }
    if let Some(length) = inputs.config.tx_queue_len.filter(|length| nic.tx_queue_len != *length) {
        steps.push(Step::SetTxQueueLen { dev, length, before: nic.tx_queue_len });
    }
    Ok(())
}

fn plan_sysctls(inputs: &Inputs<'_>, addresses: &[IpNet], steps: &mut Vec<Step>) {
    if Family::V6.is_among(addresses) {
        steps.push(Step::interface_sysctl(Namespace::Pod, Family::V6, "all", "disable_ipv6", 0));
        // The router's own default route would come back after it was moved.
        if inputs.config.tune_pod_routes && inputs.config.default_route_nic.as_ref() != Some(inputs.nic) {
            steps.push(Step::interface_sysctl(
                Namespace::Pod,
                Family::V6,
                inputs.nic.as_str(),
                "accept_ra_defrtr",
                0,
            ));
        }
    }
    if let Some(value) = inputs.config.rp_filter {
        // The kernel takes the greater of `all` and the NIC's own, which came from `default`.
        let links = inputs.pod.links.iter().filter(|l| l.medium == Medium::Ethernet).map(|l| l.name.as_str());
        for dev in ["all", "default"].into_iter().chain(links) {
            steps.push(Step::interface_sysctl(Namespace::Pod, Family::V4, dev, "rp_filter", value));
        }
    }
    // A first packet with another NIC's source must not ask for the next hop in that NIC's name: a host with strict
    // rp_filter does not answer. And no NIC answers for another's address: everybody in the underlay could send to eth0's.
    // Of `all` and the NIC's own value the kernel takes the greater one.
    for (name, value) in [("arp_announce", 2), ("arp_ignore", 1)] {
        steps.push(Step::interface_sysctl(Namespace::Pod, Family::V4, "all", name, value));
    }
}

fn plan_routes(
    inputs: &Inputs<'_>,
    link: &NodeLink,
    addresses: &[IpNet],
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let (config, pod) = (inputs.config, inputs.pod);
    steps.extend(plan_host_end_up(inputs, link));
    steps.extend(plan_host_routes(link, inputs.host_end, inputs.nodes, inputs.sources, addresses));
    let mut pod_steps = Vec::new();
    if config.tune_pod_routes {
        check_default_route_nic(inputs)?;
        pod_steps = plan_default_routes(&pod.routes, &config.preference(inputs.nic))?;
        let routes = project(&pod.routes, &pod_steps);
        pod_steps.extend(plan_source_specific_defaults(&routes, &pod.addresses, &config.first_nic));
    }
    for policy in own_policy_routes(config, pod, inputs.nic) {
        let (hints, others): (Vec<&Route>, Vec<&Route>) =
            pod.routes.iter().filter(|r| r.dst == policy.dst).partition(|r| is_hint(r, &config.first_nic));
        // Another NIC of the same subnet has it, or the NIC's pool.
        if others.is_empty() {
            pod_steps.extend(
                hints
                    .iter()
                    .map(|hint| Step::DeleteRoute { namespace: Namespace::Pod, route: (*hint).clone() }),
            );
            let route = Route { gateway: Some(policy.gw), ..Route::new(policy.dst, inputs.nic.clone()) };
            pod_steps.push(Step::AddRoute { namespace: Namespace::Pod, route });
        }
    }
    let hints = config.route_hints == RouteHints::Auto;
    let routes = project(&pod.routes, &pod_steps);
    pod_steps.extend(plan_route_hints(&HintInputs {
        cluster_nic: &config.first_nic,
        addresses: &pod.addresses,
        routes: &routes,
        cidrs: if hints { &config.cluster_cidrs } else { &[] },
        nodes: if hints { inputs.nodes } else { &[] },
    }));
    steps.extend(pod_steps);
    Ok(())
}

/// A NIC that never comes is a mistake; one that Multus will still add is not.
fn check_default_route_nic(inputs: &Inputs<'_>) -> Result<(), PlanError> {
    let (Some(wanted), Some(expected)) = (&inputs.config.default_route_nic, inputs.expected) else {
        return Ok(());
    };
    if inputs.pod.link(wanted).is_some() || expected.contains(wanted) {
        return Ok(());
    }
    Err(PlanError::DefaultRouteNic(wanted.clone()))
}

/// Those of the policyRoutes that a NIC can have: the others' gateways are in no subnet of it.
pub fn own_policy_routes<'a>(
    config: &'a Config,
    pod: &'a NamespaceState,
    nic: &'a IfName,
) -> impl Iterator<Item = &'a PolicyRoute> {
    let is_link_local = |gw: IpAddr| matches!(gw, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let on_link = move |gw: &IpAddr| {
        let routes = pod.routes.iter().filter(|r| r.dev == *nic && r.gateway.is_none() && !r.is_default());
        routes.map(|r| r.dst).any(|net| net.contains(gw))
    };
    config.policy_routes.iter().filter(move |policy| {
        let addresses = pod.usable_addresses(nic);
        Family::of(policy.gw).is_among(&addresses)
            && (addresses.iter().any(|net| net.contains(&policy.gw))
                || on_link(&policy.gw)
                || is_link_local(policy.gw))
    })
}
