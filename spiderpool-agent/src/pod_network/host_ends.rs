//! Which pod a host end belongs to.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::names::{ContainerId, IfName};

use super::inventory::Inventory;

/// The host ends of the inventory's pods.
#[derive(Debug, Default)]
pub(crate) struct HostEnds(HashMap<IfName, HostEnd>);

#[derive(Debug)]
struct HostEnd {
    container_id: ContainerId,
    /// The permanent neighbors that it has: the pod's underlay addresses.
    neighbors: Vec<IpAddr>,
}

impl HostEnds {
    pub(super) fn of(inventory: &Inventory) -> Self {
        let ends = inventory.pods().filter_map(|pod| {
            let underlay = pod.nics.iter().filter(|record| record.nic.role == NicRole::Underlay);
            let neighbors = underlay.flat_map(|record| &record.nic.addresses).map(IpNet::addr).collect();
            let container_id = pod.container_id.clone();
            Some((pod.node_link().ok()?.host, HostEnd { container_id, neighbors }))
        });
        Self(ends.collect())
    }

    /// The pod with this host end.
    pub(crate) fn pod(&self, host: &IfName) -> Option<&ContainerId> {
        self.0.get(host).map(|end| &end.container_id)
    }

    /// The pod with this host end, if the address is one of its permanent neighbors.
    pub(crate) fn pod_of_neighbor(&self, host: &IfName, address: IpAddr) -> Option<&ContainerId> {
        self.0.get(host).filter(|end| end.neighbors.contains(&address)).map(|end| &end.container_id)
    }
}
