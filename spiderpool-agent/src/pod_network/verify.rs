//! After a restart of the agent: which pods of the inventory still run.

use tracing::error;

use super::inventory::Inventory;
use super::netns::{self, Presence};
use super::reconcile::reconcile;
use super::record::PodState;
use crate::destinations::Destinations;

/// Verifies the pods that are not verified yet. Those that run are reconciled with the destinations; those that are
/// gone are removed, and counted in the answer; those whose namespace cannot be reached stay unverified.
pub(super) fn verify(inventory: &mut Inventory, destinations: &Destinations) -> usize {
    let mut gone = 0;
    for pod in inventory.pods_in(PodState::Unverified) {
        let (container_id, name) = (&pod.container_id, &pod.pod);
        match netns::presence(&pod) {
            Ok(Presence::Here(netns)) => {
                inventory.set_state(container_id, PodState::Verified);
                reconcile(&netns, &pod, destinations);
            }
            Ok(Presence::Gone) => {
                inventory.remove(container_id);
                gone += 1;
            }
            Ok(Presence::Hidden) => {
                let netns = pod.netns.display();
                error!(%container_id, pod = %name, %netns, "pod runs, but its network namespace cannot be reached: are the host's mounts propagated to the agent?");
            }
            Err(error) => error!(%error, %container_id, pod = %name, "pod cannot be verified, trying again"),
        }
    }
    gone
}
