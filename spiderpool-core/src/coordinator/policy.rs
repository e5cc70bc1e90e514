//! `dataplane: policy`: ip rules and numbered tables in the pod, in place of programs.
//!
//! Each NIC of the pod has a table of its own, which is asked for what carries the NIC's addresses. The main table
//! decides by which NIC, and with which source, a flow leaves that the pod starts. The node has one rule and one table
//! with the underlay addresses of its pods. Nothing is kept right after ADD: that is what the eBPF dataplane is for.

mod cluster_routes;
mod host;
mod inputs;
mod marks;
mod nic_tables;
mod tables;

use ipnet::IpNet;

use super::nic::{
    check_addresses, check_default_route_nic, nic_of, plan_nic, plan_policy_routes, plan_sysctls,
};
use super::veth0::{plan_veth0, plan_veth0_up, veth0_of};
use super::{Dataplane, NODE_LINK, NamespaceState, PlanError, Step, project};
use crate::ip::Family;
use crate::net::Route;

pub use host::{HOST_RULE_PRIORITY, host_route_mark};
pub use inputs::PolicyInputs;
pub use marks::{MARK_RULE_PRIORITY, RETURN_MARK};
pub use tables::{CLUSTER_TABLE, SOURCE_RULE_PRIORITY, plan_removal};

use cluster_routes::ClusterNic;

/// What steers the packets of a pod: what it has already, so that there are never both in one pod, otherwise what is
/// wanted. `has_programs` says whether its first NIC has filters of ours.
pub fn pod_dataplane(pod: &NamespaceState, has_programs: bool, wanted: Dataplane) -> Dataplane {
    if has_programs || pod.has_link(NODE_LINK) {
        Dataplane::Ebpf
    } else if pod.routes.iter().any(Route::is_ours) {
        Dataplane::Policy
    } else {
        wanted
    }
}

/// Plans what is missing for one underlay NIC of an overlay pod.
pub fn plan_policy_overlay(inputs: &PolicyInputs<'_>) -> Result<Vec<Step>, PlanError> {
    let (config, pod) = (inputs.config, inputs.pod);
    let (nic, addresses) = nic_of(pod, inputs.nic)?;
    check_addresses(inputs.nic, &addresses, inputs.nodes)?;
    let first = pod.link(&config.first_nic);
    let first = first.ok_or_else(|| PlanError::NoClusterNic(config.first_nic.clone()))?;
    let cluster = ClusterNic {
        dev: &config.first_nic,
        mac: first.mac.ok_or_else(|| PlanError::NoClusterNic(config.first_nic.clone()))?,
        families: families(&[&addresses, &pod.usable_addresses(&config.first_nic)]),
    };
    let mut steps = Vec::new();
    plan_nic(config, nic, &addresses, &mut steps)?;
    plan_sysctls(config, pod, inputs.nic, &mut steps);
    let main = plan_main(inputs, &cluster, &mut steps);
    if config.tune_pod_routes {
        check_default_route_nic(config, pod, inputs.expected)?;
        steps.extend(nic_tables::plan(inputs, &cluster, &main)?);
        let used = addresses.iter().filter(|net| cluster.families.contains(&Family::of_net(net)));
        steps.extend(marks::plan(inputs, &cluster, used.map(IpNet::addr).collect()));
    }
    // What brings the traffic comes last.
    steps.extend(host::plan(inputs, &cluster, &addresses));
    Ok(steps)
}

/// Plans what is missing for one NIC of a pod whose first NIC is on the underlay.
pub fn plan_policy_underlay(inputs: &PolicyInputs<'_>) -> Result<Vec<Step>, PlanError> {
    let (config, pod) = (inputs.config, inputs.pod);
    let (nic, addresses) = nic_of(pod, inputs.nic)?;
    check_addresses(inputs.nic, &addresses, inputs.nodes)?;
    let link = veth0_of(inputs.container_id, config)?;
    let veth0 = pod.link(&link.pod);
    let cluster = ClusterNic {
        dev: &link.pod,
        mac: veth0.and_then(|veth0| veth0.mac).unwrap_or(link.pod_mac),
        families: families(&[&addresses]),
    };
    let is_first = *inputs.nic == config.first_nic;
    let mut steps = Vec::new();
    plan_nic(config, nic, &addresses, &mut steps)?;
    plan_sysctls(config, pod, inputs.nic, &mut steps);
    if is_first {
        steps.extend(plan_veth0(config, pod, &link, nic, &addresses));
        steps.extend(plan_veth0_up(inputs.node, &link));
    }
    let main = plan_main(inputs, &cluster, &mut steps);
    if is_first {
        steps.extend(nic_tables::plan_cluster_table(inputs, &cluster));
        steps.extend(marks::plan(inputs, &cluster, Vec::new()));
    } else if config.tune_pod_routes {
        check_default_route_nic(config, pod, inputs.expected)?;
        steps.extend(nic_tables::plan(inputs, &cluster, &main)?);
    }
    steps.extend(host::plan(inputs, &cluster, &addresses));
    Ok(steps)
}

/// Neighbors, and routes of the main table; answers how that is without the cluster's routes.
fn plan_main(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>, steps: &mut Vec<Step>) -> Vec<Route> {
    let (config, pod) = (inputs.config, inputs.pod);
    steps.extend(cluster_routes::plan_neighbors(inputs, cluster));
    let policy_routes = plan_policy_routes(config, pod, inputs.nic, cluster.dev);
    let main = project(&pod.routes, &policy_routes);
    steps.extend(policy_routes);
    steps.extend(cluster_routes::plan_main(inputs, cluster, &main));
    main
}

/// The families that each of these lists has an address of.
fn families(lists: &[&[IpNet]]) -> Vec<Family> {
    let in_all = |family: &Family| lists.iter().all(|addresses| family.is_among(addresses));
    Family::ALL.into_iter().filter(in_all).collect()
}

#[cfg(test)]
mod tests;
