//! What a pod holds is said again to an API server that has gone back in time.

use std::sync::Arc;

use spiderpool_core::ipam::{AddressState, Holding};
use spiderpool_runtime::kubernetes::ApiFailure;
use tokio_util::sync::CancellationToken;

use super::store::{Creation, Look};
use super::{AddressAllocator, AddressObject};

/// So often it is tried to say again whose an address is while somebody else writes its object.
const REASSERTIONS: u32 = 3;

/// What the API server says of an address that a pod holds, after it has gone back in time.
#[derive(Debug)]
pub(in crate::ipam) enum Reasserted {
    /// It is the pod's.
    Known,
    /// It is the pod's again: it had been nobody's.
    Again,
    /// It is somebody else's; whose, if its object parses.
    Theirs(Option<Arc<Holding>>),
}

impl AddressAllocator {
    /// Has the API server say again that a pod has an address, which it may have forgotten. The pod must be locked.
    pub(in crate::ipam) async fn reassert(&self, known: &AddressObject) -> Result<Reasserted, ApiFailure> {
        let holding = &known.holding;
        for _ in 0..REASSERTIONS {
            if let Some(reasserted) = self.try_reassert(holding).await? {
                return Ok(reasserted);
            }
        }
        match self.store.find(holding.ip()).await? {
            Some(found) if found.holding.state == AddressState::Bound && found.holding.serves_as(holding) => {
                self.holdings.write(|index| index.apply(found));
                Ok(Reasserted::Known)
            }
            // `None`: its object is there and cannot be read.
            found => Ok(self.give_up(holding, found)),
        }
    }

    /// `None`: the leader, which does the same, or somebody else has changed the object meanwhile.
    async fn try_reassert(&self, holding: &Holding) -> Result<Option<Reasserted>, ApiFailure> {
        let Some(found) = self.store.find(holding.ip()).await? else {
            return match self.store.create(holding, Look::Always, &CancellationToken::new()).await? {
                Creation::Ours(object) => {
                    self.holdings.write(|index| index.apply(object));
                    Ok(Some(Reasserted::Again))
                }
                Creation::Theirs(_) => Ok(None),
                Creation::Unknown(failure) => Err(failure),
            };
        };
        let is_for_it = found.holding.owner.endpoint_name() == holding.owner.endpoint_name();
        let now = match found.holding.state {
            AddressState::Bound if found.holding.serves_as(holding) => {
                if found.holding.container_id == holding.container_id {
                    Some(found)
                } else if holding.is_detached {
                    self.store.detach(&found).await?
                } else {
                    self.store.adopt(&found, holding).await?
                }
            }
            AddressState::Kept if is_for_it => self.store.take_over(&found, holding).await?,
            AddressState::Bound | AddressState::Kept | AddressState::Quarantined => {
                return Ok(Some(self.give_up(holding, Some(found))));
            }
        };
        let names_sandbox =
            |now: &AddressObject| holding.is_detached || now.holding.container_id == holding.container_id;
        Ok(now.filter(names_sandbox).map(|now| {
            self.holdings.write(|index| index.apply(now));
            Reasserted::Known
        }))
    }

    /// The address is not the pod's any more.
    fn give_up(&self, holding: &Holding, found: Option<AddressObject>) -> Reasserted {
        self.holdings.write(|index| index.delete(holding.ip()));
        Reasserted::Theirs(found.map(|found| found.holding))
    }
}
