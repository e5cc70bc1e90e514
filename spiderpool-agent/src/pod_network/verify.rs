//! After a restart of the agent: which pods of the inventory still run.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::coordinator::gateways;
use spiderpool_net::block_on;
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use tracing::error;

use super::inventory::Inventory;
use super::netns::{self, NamespaceError, Presence};
use super::reconcile::reconcile;
use super::record::{PodRecord, PodState};
use crate::destinations::Destinations;

/// What verifying has changed in the inventory.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// How many pods were taken out.
    pub gone: usize,
    /// Whether next hops were read that an older agent had not written.
    pub completed: bool,
}

/// Verifies the pods that are not verified yet. Those that run are reconciled with the destinations; those that are
/// gone are removed; those whose namespace cannot be reached stay unverified.
pub(super) fn verify(inventory: &mut Inventory, destinations: &Destinations) -> Verified {
    let mut verified = Verified::default();
    for pod in inventory.pods_in(PodState::Unverified) {
        let (container_id, name) = (&pod.container_id, &pod.pod);
        let presence = netns::presence(&pod).and_then(|presence| match presence {
            Presence::Here(netns) if !pod.has_gateways() => {
                let gateways = match underlay_gateways(&netns, &pod) {
                    // Who has made so many routes in the pod has nothing to hope for from the agent.
                    Err(error) if error.is_too_large() => BTreeSet::new(),
                    read => read?,
                };
                inventory.set_gateways(container_id, &gateways);
                verified.completed = true;
                Ok(Presence::Here(netns))
            }
            other => Ok(other),
        });
        match presence {
            Ok(Presence::Here(netns)) => {
                inventory.set_state(container_id, PodState::Verified);
                reconcile(&netns, &pod, destinations);
            }
            Ok(Presence::Gone) => {
                inventory.remove(container_id);
                verified.gone += 1;
            }
            Ok(Presence::Hidden) => {
                let netns = pod.netns.display();
                error!(%container_id, pod = %name, %netns, "pod runs, but its network namespace cannot be reached: are the host's mounts propagated to the agent?");
            }
            Err(error) => error!(%error, %container_id, pod = %name, "pod cannot be verified, trying again"),
        }
    }
    verified
}

/// The next hops of the pod's routes by its underlay NICs, as the plugin registers them.
fn underlay_gateways(netns: &NetNs, pod: &PodRecord) -> Result<BTreeSet<IpAddr>, NamespaceError> {
    let contents = Contents { routes: true, ..Contents::default() };
    let present = block_on(async { netns::connect(netns)?.snapshot(contents).await })?;
    let underlay = pod.nics.iter().filter(|record| record.nic.role == NicRole::Underlay);
    let underlay: BTreeSet<_> = underlay.map(|record| &record.nic.name).collect();
    let gateways = gateways(&present.routes).into_iter();
    Ok(gateways.filter(|(dev, _)| underlay.contains(dev)).map(|(_, gateway)| gateway).collect())
}
