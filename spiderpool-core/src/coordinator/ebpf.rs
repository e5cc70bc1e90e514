//! What the plans of overlay and underlay pods have in common where programs steer.

use ipnet::IpNet;

use super::link::{NODE_LINK, VETH0};
use super::nic::{check_default_route_nic, own_policy_routes, plan_policy_routes};
use super::node_link::{
    NodeLink, gateways, plan_host_end_up, plan_host_neighbors, plan_host_routes, plan_pod_neighbors,
    pod_neighbors,
};
use super::{
    Inputs, PlanError, RouteHints, Step, plan_default_routes, plan_source_specific_defaults, project,
};
use crate::dataplane::{HintInputs, is_hint, plan_route_hints};
use crate::mac::MacAddr;
use crate::names::IfName;
use crate::net::Route;

/// What to do, in two parts: programs are attached between them, before there is traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EbpfPlan {
    /// Links, addresses, neighbors, kernel parameters.
    pub links: Vec<Step>,
    /// What brings the traffic: the host end is set up, then routes.
    pub routes: Vec<Step>,
}

impl std::fmt::Display for EbpfPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.links.iter().chain(&self.routes).try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// Neighbors of both ends of the node link, and of the NIC. `peer` is the MAC of the cluster NIC's host end.
pub(super) fn plan_neighbors(
    inputs: &Inputs<'_>,
    link: &NodeLink,
    peer: MacAddr,
    addresses: &[IpNet],
) -> Vec<Step> {
    let mut steps = plan_host_neighbors(link, inputs.host_end, addresses);
    let mut gateways = gateways(&inputs.pod.routes);
    let policies = own_policy_routes(inputs.config, inputs.pod, inputs.nic);
    gateways.extend(policies.map(|policy| (inputs.nic, policy.gw)));
    let wanted = pod_neighbors(link, &[(inputs.nic, addresses)], peer, inputs.nodes, &gateways);
    steps.extend(plan_pod_neighbors(&inputs.pod.neighbors, wanted));
    steps
}

/// Sets the host end up; then the routes of node and pod.
pub(super) fn plan_routes(
    inputs: &Inputs<'_>,
    link: &NodeLink,
    cluster_nic: &IfName,
    addresses: &[IpNet],
) -> Result<Vec<Step>, PlanError> {
    let (config, pod) = (inputs.config, inputs.pod);
    let mut steps: Vec<Step> = plan_host_end_up(inputs.host_end, link).into_iter().collect();
    steps.extend(plan_host_routes(link, inputs.host_end, inputs.nodes, inputs.sources, addresses));
    let mut pod_steps = Vec::new();
    if config.tune_pod_routes {
        check_default_route_nic(config, pod, inputs.expected)?;
        pod_steps = plan_default_routes(&pod.routes, &config.preference(inputs.nic))?;
        let routes = project(&pod.routes, &pod_steps);
        pod_steps.extend(plan_source_specific_defaults(&routes, &pod.addresses));
    }
    pod_steps.extend(plan_policy_routes(config, pod, inputs.nic, cluster_nic));
    let hints = config.route_hints == RouteHints::Auto;
    let routes = project(&pod.routes, &pod_steps);
    pod_steps.extend(plan_route_hints(&HintInputs {
        cluster_nic,
        first_nic: &config.first_nic,
        addresses: &pod.addresses,
        routes: &routes,
        cidrs: if hints { &config.cluster_cidrs } else { &[] },
        nodes: if hints { inputs.nodes } else { &[] },
    }));
    steps.extend(pod_steps);
    Ok(steps)
}

/// Destinations that the pod's own routes send by an underlay NIC and the cluster's CIDRs must not drag away:
/// connected subnets, pool routes, policyRoutes.
pub fn unsteered_destinations(routes: &[Route], cluster_nic: &IfName) -> Vec<IpNet> {
    let mut found: Vec<_> = routes
        .iter()
        .filter(|r| !r.is_default() && r.dev != *cluster_nic && ![NODE_LINK, VETH0].contains(&r.dev.as_str()))
        .filter(|r| !matches!(r.dst, IpNet::V6(v6) if v6.addr().is_unicast_link_local() || v6.addr().is_multicast()))
        .filter(|r| r.from.is_none() && !is_hint(r, cluster_nic))
        .map(|r| r.dst)
        .collect();
    found.sort();
    found.dedup();
    found
}
