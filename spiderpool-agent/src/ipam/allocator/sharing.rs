//! What a pod uses that a virtual machine is moving to: addresses of another pod, until the leader makes them this one's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spiderpool_core::ipam::{AddressState, Holding};
use spiderpool_core::names::{PodIdentity, PodUid};
use spiderpool_runtime::kubernetes::ApiFailure;
use tracing::info;

use super::holdings::AddressObject;
use super::shared::MigrationError;
use super::{AddressAllocator, Claimant};
use crate::announce::Announcement;

impl AddressAllocator {
    /// The claimant's virtual machine is moving to it: it uses these addresses, which are another pod's, of all that the machine has.
    pub(in crate::ipam) fn share<'a>(
        &self,
        objects: impl Iterator<Item = &'a AddressObject>,
        of_machine: &BTreeSet<IpAddr>,
        claimant: &Claimant,
    ) -> Result<(), MigrationError> {
        let wanted = objects.map(|object| {
            let Holding { nic, pool, address, .. } = &*object.holding;
            self.wanted(claimant, nic, pool, *address)
        });
        let (wanted, owner) = (wanted.collect(), &claimant.owner);
        self.migrations.insert(&owner.pod, &owner.endpoint_name(), wanted, of_machine)
    }

    /// Neighbors are told of a pod's addresses when its virtual machine has moved to it.
    pub(in crate::ipam) fn announce_later(&self, pod: &PodUid, announcement: Announcement) {
        self.migrations.announce_later(pod, announcement);
    }

    /// What neighbors are to be told of the pod now.
    pub(in crate::ipam) fn due_announcements(&self, pod: &PodUid) -> Vec<Announcement> {
        self.migrations.due_announcements(pod)
    }

    /// They have been told.
    pub(in crate::ipam) fn announced(&self, pod: &PodUid, done: &[Announcement]) {
        self.migrations.announced(pod, done);
    }

    /// The pods that virtual machines are moving to.
    pub(in crate::ipam) fn migration_targets(&self) -> Vec<PodIdentity> {
        self.migrations.pods()
    }

    /// What the pod uses is its own, or nobody's, from now on.
    pub(in crate::ipam) fn stop_sharing(&self, pod: &PodUid) {
        self.migrations.forget(pod);
    }

    /// Learns which of the addresses that the pod uses have become its own, and writes its sandbox into them: the leader
    /// does not know that. How many they are.
    pub(in crate::ipam) async fn learn_shared(&self, pod: &PodUid) -> Result<usize, ApiFailure> {
        let mut learned = 0;
        for wanted in self.migrations.get(pod).into_iter().flat_map(|target| target.addresses) {
            let found = self.store.find(wanted.ip()).await?;
            let is_own = |object: &AddressObject| {
                object.holding.state == AddressState::Bound && object.holding.serves_as(&wanted)
            };
            let Some(found) = found.filter(is_own) else { continue };
            if let Some(object) = self.store.adopt(&found, &wanted).await? {
                // Somebody else may have written the object first: then it does not name the sandbox yet.
                if object.holding.container_id == wanted.container_id {
                    self.migrations.remove(pod, wanted.ip());
                    learned += 1;
                }
                self.holdings.write(|index| index.apply(object));
            }
        }
        Ok(learned)
    }

    /// Finds what the machine had by NICs that this pod does not have: it was made the pod's with the others, and no sandbox uses it.
    /// Written down as that, it is freed like the address of any NIC that was unplugged. Done when all ADDs are: once what the pod
    /// uses is its own. Whether there may be more to find.
    pub(in crate::ipam) async fn detach_unused(&self, pod: &PodUid) -> Result<bool, ApiFailure> {
        let Some(target) = self.migrations.get(pod) else { return Ok(false) };
        if !target.addresses.is_empty() {
            return Ok(true);
        }
        let mut waits = false;
        for address in target.of_machine {
            let held = self.holdings.read(|index| index.of_pod(pod));
            let is_this = |object: &&AddressObject| object.holding.ip() == address;
            let is_used = |object: &AddressObject| object.holding.container_id.is_some();
            if !held.iter().find(is_this).is_some_and(is_used)
                && let Some(found) = self.store.find(address).await?
            {
                let Holding { owner, container_id, is_detached, state, .. } = &*found.holding;
                if owner.pod != target.pod && owner.endpoint_name() == target.endpoint {
                    // The leader has not come to it yet.
                    waits = true;
                    continue;
                }
                let is_unused = container_id.is_none() && !is_detached && *state == AddressState::Bound;
                if owner.pod == target.pod && is_unused {
                    info!(%address, pod = %target.pod, nic = %found.holding.nic, "the virtual machine has moved without this NIC");
                    self.holdings.write(|index| index.apply(found.clone()));
                    self.detach(&found).await?;
                }
            }
            self.migrations.settle(pod, address);
        }
        Ok(waits)
    }
}
