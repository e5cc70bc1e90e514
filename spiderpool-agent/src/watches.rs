//! What the agent follows on the API server. Each index is a plain struct; one task per watch feeds it.

mod coordinators;
mod namespaces;
mod pods;
mod pools;
mod reserved;

use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use spiderpool_runtime::health::Condition;
use spiderpool_runtime::shutdown::Shutdown;
use tracing::{debug, warn};

pub use coordinators::CoordinatorIndex;
pub use namespaces::NamespaceIndex;
pub use pods::{Pod, PodIndex};
pub use pools::PoolIndex;
pub use reserved::ReservedIndex;

/// An in-memory view that a watch keeps up to date.
pub trait Index<K>: Send + Sync + 'static {
    /// The object is new or has changed.
    fn apply(&mut self, object: K);
    /// The object is gone.
    fn delete(&mut self, object: &K);
    /// Exactly these objects exist.
    fn reset(&mut self, objects: Vec<K>);
}

/// An index that a watch writes and everybody reads. Never locked across an await.
#[derive(Debug, Default)]
pub struct Shared<I>(Arc<RwLock<I>>);

impl<I> Clone for Shared<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> Shared<I> {
    /// Looks at the index.
    pub fn read<T>(&self, look: impl FnOnce(&I) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the index.
    pub fn write<T>(&self, change: impl FnOnce(&mut I) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Feeds `index` from a watch until shutdown. `synced` is met with the first complete list; `changed` runs after
/// each change.
pub async fn follow<K, I>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    index: Shared<I>,
    synced: Condition,
    shutdown: Shutdown,
    changed: impl Fn() + Send,
) where
    K: Send,
    I: Index<K>,
{
    let mut events = events.default_backoff().boxed();
    let mut listed = Vec::new();
    loop {
        let event = tokio::select! {
            () = shutdown.requested() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => warn!(%error, "watch failed, trying again"),
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(object))) => listed.push(object),
            Some(Ok(Event::InitDone)) => {
                let objects = std::mem::take(&mut listed);
                debug!(objects = objects.len(), "watch has listed");
                index.write(|index| index.reset(objects));
                synced.met();
                changed();
            }
            Some(Ok(Event::Apply(object))) => {
                index.write(|index| index.apply(object));
                changed();
            }
            Some(Ok(Event::Delete(object))) => {
                index.write(|index| index.delete(&object));
                changed();
            }
        }
    }
}
