//! An underlay NIC beside another CNI plugin's first NIC.

use ipnet::IpNet;

use super::link::NODE_LINK;
use super::nic::{
    check_default_route_nic, nic_of, own_policy_routes, plan_nic, plan_policy_routes, plan_sysctls,
};
use super::node_link::{
    NodeLink, gateways, plan_host_end_up, plan_host_neighbors, plan_host_routes, plan_node_link,
    plan_pod_neighbors, pod_neighbors,
};
use super::{
    Inputs, PlanError, RouteHints, Step, plan_default_routes, plan_source_specific_defaults, project,
};
use crate::dataplane::{HintInputs, is_hint, plan_route_hints};
use crate::names::IfName;
use crate::net::Route;

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
    let (nic, addresses) = nic_of(inputs.pod, inputs.nic)?;
    let first = &inputs.config.first_nic;
    inputs.pod.link(first).ok_or_else(|| PlanError::NoClusterNic(first.clone()))?;
    let node_link = NodeLink::new(inputs.container_id)?;
    let mut plan = OverlayPlan::default();
    plan_nic(inputs.config, nic, &addresses, &mut plan.links)?;
    plan_sysctls(inputs.config, inputs.pod, inputs.nic, &mut plan.links);
    let (config, pod) = (inputs.config, inputs.pod);
    plan_node_link(config, pod, &node_link, config.mtu, &addresses, &mut plan.links);
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

fn plan_routes(
    inputs: &Inputs<'_>,
    link: &NodeLink,
    addresses: &[IpNet],
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let (config, pod) = (inputs.config, inputs.pod);
    steps.extend(plan_host_end_up(inputs.host_end, link));
    steps.extend(plan_host_routes(link, inputs.host_end, inputs.nodes, inputs.sources, addresses));
    let mut pod_steps = Vec::new();
    if config.tune_pod_routes {
        check_default_route_nic(config, pod, inputs.expected)?;
        pod_steps = plan_default_routes(&pod.routes, &config.preference(inputs.nic))?;
        let routes = project(&pod.routes, &pod_steps);
        pod_steps.extend(plan_source_specific_defaults(&routes, &pod.addresses, &config.first_nic));
    }
    pod_steps.extend(plan_policy_routes(config, pod, inputs.nic, &config.first_nic));
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

#[cfg(test)]
mod tests;
