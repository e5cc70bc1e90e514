//! An underlay NIC beside another CNI plugin's first NIC.

use super::ebpf::{EbpfPlan, plan_neighbors, plan_routes};
use super::nic::{check_addresses, nic_of, plan_nic, plan_sysctls};
use super::node_link::{NodeLink, plan_node_link};
use super::{Inputs, PlanError};

/// Plans what is missing for one underlay NIC of an overlay pod.
pub fn plan_overlay(inputs: &Inputs<'_>) -> Result<EbpfPlan, PlanError> {
    let (nic, addresses) = nic_of(inputs.pod, inputs.nic)?;
    check_addresses(inputs.nic, &addresses, inputs.nodes)?;
    let first = &inputs.config.first_nic;
    inputs.pod.link(first).ok_or_else(|| PlanError::NoClusterNic(first.clone()))?;
    let node_link = NodeLink::new(inputs.container_id)?;
    let mut plan = EbpfPlan::default();
    plan_nic(inputs.config, nic, &addresses, &mut plan.links)?;
    plan_sysctls(inputs.config, inputs.pod, inputs.nic, &mut plan.links);
    let (config, pod) = (inputs.config, inputs.pod);
    plan_node_link(config, pod, &node_link, config.mtu, &addresses, &mut plan.links);
    plan.links.extend(plan_neighbors(inputs, &node_link, inputs.host_veth_mac, &addresses));
    plan.routes = plan_routes(inputs, &node_link, first, &addresses)?;
    Ok(plan)
}

#[cfg(test)]
mod tests;
