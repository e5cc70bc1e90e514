//! Pools as they change: watched by their metadata and read when the spec is new. Their status changes twice a second
//! in busy times and may be half a megabyte; it would be sent to every agent, and none has a use for it.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};
use spiderpool_api::crd::{SpiderIPPool, SpiderIPPoolSpec};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use tracing::warn;

use super::PoolIndex;

/// Pools that are read at the same time.
const READERS: usize = 8;
/// Pause before a pool that cannot be read is asked for again.
const RETRY: Duration = Duration::from_millis(500);

/// The events of all pools; those of a pool whose spec `known` has already are left out.
pub fn pool_specs(
    kube: &Kubernetes,
    known: &Shared<PoolIndex>,
) -> impl Stream<Item = watcher::Result<Event<SpiderIPPool>>> + Send + 'static {
    let reader = Reader { kube: kube.clone(), known: known.clone() };
    let events =
        watcher(Api::<PartialObjectMeta<SpiderIPPool>>::all(kube.client()), watcher::Config::default());
    events
        .map(move |event| {
            let reader = reader.clone();
            async move {
                match event {
                    Ok(event) => reader.read_event(event).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        })
        .buffered(READERS)
        .filter_map(std::future::ready)
}

#[derive(Clone)]
struct Reader {
    kube: Kubernetes,
    known: Shared<PoolIndex>,
}

impl Reader {
    /// The event of the whole object; `None` if it is no news.
    async fn read_event(&self, event: Event<PartialObjectMeta<SpiderIPPool>>) -> Option<Event<SpiderIPPool>> {
        match event {
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(pool) => self.read(&pool.name_any()).await.map(Event::InitApply),
            Event::Apply(pool) => {
                let is_known = self.known.read(|known| known.has(&pool.metadata));
                if is_known { None } else { self.read(&pool.name_any()).await.map(Event::Apply) }
            }
            Event::Delete(pool) => {
                let mut gone = SpiderIPPool::new(&pool.name_any(), SpiderIPPoolSpec::default());
                gone.metadata = pool.metadata;
                Some(Event::Delete(gone))
            }
        }
    }

    /// As often as it takes; `None` if there is no such pool any more, which another event says.
    async fn read(&self, name: &str) -> Option<SpiderIPPool> {
        let api = Api::<SpiderIPPool>::all(self.kube.client());
        loop {
            match self.kube.read(api.get_opt(name)).await {
                Ok(pool) => return pool,
                Err(error) => warn!(pool = name, %error, "the pool cannot be read, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
