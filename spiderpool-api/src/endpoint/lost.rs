//! Addresses that an endpoint names and whose objects were lost.

use std::sync::Arc;

use spiderpool_core::ipam::{AddressState, Holding, Owner, Workload};
use spiderpool_core::names::{PodIdentity, PodName};

use crate::crd::SpiderEndpointStatus;

/// The addresses that the endpoint `name` of a running pod names and whose objects were lost: the pod holds none for that NIC
/// and family. `held` is what it holds, in whatever state. The sandbox, the network's name and the grace
/// period are lost with the object.
pub fn lost_holdings<H: AsRef<Holding>>(
    name: &PodName,
    endpoint: &SpiderEndpointStatus,
    pod: &PodIdentity,
    held: impl IntoIterator<Item = H>,
) -> Vec<Holding> {
    let held: Vec<H> = held.into_iter().collect();
    let SpiderEndpointStatus { current, owner_controller_type, owner_controller_name } = endpoint;
    let workload = (!owner_controller_type.is_empty()).then(|| Workload {
        kind: owner_controller_type.as_str().into(),
        name: owner_controller_name.as_str().into(),
    });
    let virtual_machine = (*name != pod.name).then(|| name.name().into());
    let owner = Arc::new(Owner { pod: pod.clone(), workload, virtual_machine });
    let named = current.ips.iter().flat_map(|ip| {
        let both = [(&ip.ipv4, &ip.ipv4_pool), (&ip.ipv6, &ip.ipv6_pool)];
        both.into_iter().filter_map(|(address, pool)| {
            Some(Holding {
                address: address.as_ref()?.parse().ok()?,
                pool: pool.as_ref()?.parse().ok()?,
                nic: ip.interface.parse().ok()?,
                owner: Arc::clone(&owner),
                node: current.node.parse().ok(),
                container_id: None,
                is_detached: false,
                network: None,
                grace: None,
                state: AddressState::Bound,
                quarantine: None,
            })
        })
    });
    let is_held = |lost: &Holding| {
        held.iter().map(AsRef::as_ref).any(|held| held.nic == lost.nic && held.family() == lost.family())
    };
    named.filter(|named| !is_held(named)).collect()
}
