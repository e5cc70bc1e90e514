//! `dataplane: ebpf`: what ADD does, and CHECK looks for, to steer a NIC's packets by programs.

use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{
    Config, EbpfPlan, Inputs, Namespace, NamespaceState, NodeLink, NodeLinkCallers, check_pod_cidrs,
    plan_overlay, plan_underlay, veth0_of,
};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_net::executor::Executor;
use tracing::warn;

use super::next_hops::{NextHops, peer_macs};
use super::setup::PodMode;
use super::state::{host_veth, node_addresses, read_host_end, sources};
use crate::env::Request;
use crate::error::PluginError;

/// What is to be done, and with which devices.
pub(super) struct Planned {
    pub(super) mode: PodMode,
    pub(super) plan: EbpfPlan,
    /// The way to node and cluster: in overlay mode the first NIC, in underlay mode the pod's end of the node link.
    pub(super) cluster_nic: IfName,
    /// To which MAC the pod sends what leaves by it.
    pub(super) peer: MacAddr,
    pub(super) link: NodeLink,
}

/// Reads what the plan depends on besides the pod, and plans.
pub(super) async fn plan(
    mode: PodMode,
    request: &Request,
    config: &Config,
    answer: &CoordinatorConfig,
    pod: &NamespaceState,
    next_hops: NextHops,
    executor: &mut Executor<'_>,
) -> Result<Planned, PluginError> {
    let container_id = request.container_id.as_str();
    let nodes = node_addresses(answer);
    if nodes.is_empty() {
        warn!("the agent names no node addresses: the node link's routes have no source");
    }
    let (link, cluster_nic, peer) = match mode {
        PodMode::Overlay => {
            let link = NodeLink::new(container_id)?;
            let host_veth = host_veth(executor.netlink(Namespace::Node), pod, &config.first_nic).await?;
            if host_veth.is_port && config.node_link == NodeLinkCallers::Node {
                return Err(Unsupported::NodeLinkOnSwitch.into());
            }
            let netlink = executor.netlink(Namespace::Pod);
            let peers = peer_macs(netlink, pod, &nodes, &config.first_nic, &host_veth, next_hops).await?;
            let addresses = pod.usable_addresses(&request.nic);
            check_pod_cidrs(&request.nic, &addresses, &config.pod_cidrs, &answer.address_pools)?;
            // The programs have one for both families.
            (link, config.first_nic.clone(), peers.v4)
        }
        PodMode::Underlay => {
            let link = veth0_of(container_id, config)?;
            (link.clone(), link.pod, link.host_mac)
        }
    };
    let node = executor.netlink(Namespace::Node);
    let inputs = Inputs {
        container_id,
        nic: &request.nic,
        config,
        pod,
        host_end: &read_host_end(node, &link.host).await?,
        host_veth_mac: peer,
        nodes: &nodes,
        sources: &sources(node, pod, &request.nic).await,
        expected: answer.expected_nics.as_deref(),
    };
    let plan = match mode {
        PodMode::Overlay => plan_overlay(&inputs)?,
        PodMode::Underlay => plan_underlay(&inputs)?,
    };
    Ok(Planned { mode, plan, cluster_nic, peer, link })
}
