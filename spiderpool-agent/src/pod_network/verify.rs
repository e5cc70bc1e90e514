//! After a restart of the agent: which pods of the inventory still run.

use tracing::error;

use super::inventory::Inventory;
use super::netns::{self, Presence};
use super::reconcile::reconcile;
use super::record::PodState;
use crate::destinations::Destinations;

/// Looks for the namespaces of pods that are not verified. Those that run are reconciled with what has changed since
/// the agent before; those that are gone are taken out, and counted in the answer. Those that cannot be seen stay as
/// they are, to be looked for again.
pub(super) fn verify(inventory: &mut Inventory, destinations: &Destinations) -> usize {
    let mut gone = 0;
    for pod in inventory.pods_in(PodState::Unverified) {
        let (container, name) = (&pod.container_id, &pod.pod);
        match netns::presence(&pod) {
            Ok(Presence::Here(netns)) => {
                inventory.set_state(container, PodState::Verified);
                reconcile(&netns, &pod, destinations);
            }
            Ok(Presence::Gone) => {
                inventory.remove(container);
                gone += 1;
            }
            Ok(Presence::Hidden) => {
                let netns = pod.netns.display();
                error!(%container, pod = %name, %netns, "pod runs, but its network namespace is not in sight: are the host's mounts propagated to the agent?");
            }
            Err(error) => error!(%error, %container, pod = %name, "pod cannot be looked for, trying again"),
        }
    }
    gone
}
