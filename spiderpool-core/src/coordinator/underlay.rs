//! A NIC of a pod whose first NIC is on the underlay: veth0 is its way to node and cluster.

use super::ebpf::{EbpfPlan, plan_neighbors, plan_routes};
use super::nic::{check_addresses, nic_of, plan_nic, plan_sysctls};
use super::veth0::{plan_veth0, veth0_of};
use super::{Inputs, PlanError};

/// Plans what is missing for one NIC of an underlay pod.
pub fn plan_underlay(inputs: &Inputs<'_>) -> Result<EbpfPlan, PlanError> {
    let (config, pod) = (inputs.config, inputs.pod);
    let (nic, addresses) = nic_of(pod, inputs.nic)?;
    check_addresses(inputs.nic, &addresses, inputs.nodes)?;
    let link = veth0_of(inputs.container_id, config)?;
    let mut plan = EbpfPlan::default();
    plan_nic(config, nic, &addresses, &mut plan.links)?;
    plan_sysctls(config, pod, inputs.nic, &mut plan.links);
    plan.links.extend(plan_veth0(config, pod, &link, nic, &addresses));
    plan.links.extend(plan_neighbors(inputs, &link, link.host_mac, &addresses));
    plan.routes = plan_routes(inputs, &link, &link.pod, &addresses)?;
    Ok(plan)
}

#[cfg(test)]
mod tests;
