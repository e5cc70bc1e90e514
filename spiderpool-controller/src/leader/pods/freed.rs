//! Events on pools about addresses that the leader has freed: nobody asked for it. One tells of all that was freed of a
//! pool meanwhile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::events::{Event, EventType, Recorder};
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::release::FreeReason;
use spiderpool_runtime::kubernetes::publish_event;
use spiderpool_runtime::watch::Shared;
use tokio_util::sync::CancellationToken;

use crate::leader::pools;
use crate::leader::state::ClusterState;

/// How long Events are waited with.
const PERIOD: Duration = Duration::from_secs(5);
/// So many addresses are named in one.
const MAX_NAMED: usize = 10;

/// What was freed since the last Events, by pool. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct FreedAddresses(Arc<Mutex<BTreeMap<String, Freed>>>);

#[derive(Debug, Default)]
struct Freed {
    named: Vec<String>,
    first: Option<IpAddr>,
    count: usize,
}

impl FreedAddresses {
    /// This one was freed.
    pub(super) fn add(&self, holding: &Holding, reason: FreeReason) {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let freed = pools.entry(holding.pool.to_string()).or_default();
        freed.count += 1;
        freed.first.get_or_insert(holding.ip());
        if freed.named.len() < MAX_NAMED {
            freed.named.push(format!("{} of Pod {} ({})", holding.ip(), holding.owner.pod, reason.as_str()));
        }
    }

    fn take(&self) -> BTreeMap<String, Freed> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes Events until shutdown. Of a pool that is gone there is none.
    pub(super) async fn report(
        &self,
        state: &Shared<ClusterState>,
        recorder: &Recorder,
        shutdown: &CancellationToken,
    ) {
        while shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            for (pool, freed) in self.take() {
                let Some(uid) = state.read(|state| Some(state.pools.get(&pool)?.uid.clone())) else {
                    continue;
                };
                let publishing = async {
                    publish_event(recorder, &freed.event(), &pools::reference(&pool, &uid)).await;
                };
                if shutdown.run_until_cancelled(publishing).await.is_none() {
                    return;
                }
            }
        }
    }
}

impl Freed {
    fn event(&self) -> Event {
        let more = match self.count - self.named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = self.named.join(", ");
        let note = format!("freed by the controller, because no agent has done it: {named}{more}");
        Event {
            type_: EventType::Normal,
            reason: "AddressesFreed".to_owned(),
            note: Some(note),
            // Events that are equal in all but the note count as one that repeats, with the note of the first.
            action: format!("Free-{}", self.first.map(|ip| ip.to_string()).unwrap_or_default()),
            secondary: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spiderpool_core::ipam::{AddressState, Owner};
    use spiderpool_core::names::{PodIdentity, PodName};

    use super::*;

    fn holding(last: u8) -> Holding {
        let name = PodName::new("ns", format!("p{last}")).unwrap();
        Holding {
            address: format!("10.6.0.{last}/24").parse().unwrap(),
            pool: "pool".parse().unwrap(),
            nic: "eth0".parse().unwrap(),
            owner: Arc::new(Owner {
                pod: PodIdentity { name, uid: "u".parse().unwrap() },
                workload: None,
                virtual_machine: None,
            }),
            node: None,
            container_id: None,
            is_detached: false,
            network: None,
            grace: None,
            quarantine: None,
            state: AddressState::Bound,
        }
    }

    #[test]
    fn what_is_freed_at_once_of_a_pool_is_one_event() {
        let freed = FreedAddresses::default();
        for last in 2..14 {
            freed.add(&holding(last), FreeReason::Gone);
        }
        let events = freed.take();
        let event = events["pool"].event();
        let note = event.note.unwrap();
        assert!(note.contains("10.6.0.2 of Pod ns/p2 (gone), 10.6.0.3 of Pod ns/p3 (gone)"), "{note}");
        assert!(note.ends_with("10.6.0.11 of Pod ns/p11 (gone) and 2 more"), "{note}");
        assert_eq!((event.action.as_str(), events.len()), ("Free-10.6.0.2", 1));
        assert!(freed.take().is_empty());
    }
}
