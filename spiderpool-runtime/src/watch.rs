//! Watches of the API server. An index is a plain struct; one task per watch feeds it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::health::Condition;
use tokio_util::sync::CancellationToken;

/// A watch that has not failed for this long works again; longer than its longest pause.
const RECOVERED: Duration = Duration::from_secs(65);

/// An in-memory index that a watch keeps up to date.
pub trait Index<K>: Send + Sync + 'static {
    /// The object is new or has changed.
    fn apply(&mut self, object: K);
    /// The object is gone.
    fn delete(&mut self, object: &K);
    /// Exactly these objects exist.
    fn reset(&mut self, objects: Vec<K>);
}

/// An index that watches write and others read. Never locked across an await.
#[derive(Debug, Default)]
pub struct Shared<I>(Arc<RwLock<I>>);

impl<I> Clone for Shared<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> Shared<I> {
    /// Shares an index.
    pub fn new(index: I) -> Self {
        Self(Arc::new(RwLock::new(index)))
    }

    /// Reads under the lock.
    pub fn read<T>(&self, f: impl FnOnce(&I) -> T) -> T {
        f(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the index under the lock.
    pub fn write<T>(&self, f: impl FnOnce(&mut I) -> T) -> T {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a watch has failed because its kind is not served, or not any more. One that was broken off begins where it
/// ended, without a list: then its start fails.
pub fn is_not_served(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.code == 404,
        _ => false,
    }
}

/// The events of a watch with their objects reduced as they come, so that no list of whole objects is held.
pub fn reduced<K, S>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    reduce: impl Fn(K) -> S + Clone,
) -> impl Stream<Item = watcher::Result<Event<S>>> {
    events.map_ok(move |event| match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(reduce(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(reduce(object)),
        Event::Delete(object) => Event::Delete(reduce(object)),
    })
}

/// Feeds `index` from a watch until shutdown. `synced` is met with the first complete list; `changed` runs after
/// each change.
pub async fn follow<K, I>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    index: Shared<I>,
    synced: Condition,
    shutdown: CancellationToken,
    changed: impl Fn() + Send,
) where
    K: Send,
    I: Index<K>,
{
    let mut events = events.default_backoff().boxed();
    let mut listed = Vec::new();
    let mut ever_listed = false;
    // A watch that works again delivers nothing before an object changes.
    let mut failed = None;
    loop {
        let recovered = async {
            match failed {
                Some(at) => tokio::time::sleep_until(at + RECOVERED).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
            () = recovered => {
                failed = None;
                if ever_listed {
                    synced.met();
                }
                continue;
            }
        };
        match event {
            None => {
                error!("watch has ended");
                return synced.unmet("it has ended");
            }
            Some(Err(error)) => {
                warn!(%error, "watch failed, trying again");
                synced.unmet(error.to_string());
                failed = Some(Instant::now());
            }
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(object))) => listed.push(object),
            Some(Ok(Event::InitDone)) => {
                let objects = std::mem::take(&mut listed);
                debug!(objects = objects.len(), "watch has listed");
                index.write(|index| index.reset(objects));
                (ever_listed, failed) = (true, None);
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

#[cfg(test)]
mod tests {
    use futures::stream;
    use kube::runtime::watcher::Error;

    use super::*;
    use crate::health::{Health, Scope};

    impl Index<u8> for Vec<u8> {
        fn apply(&mut self, object: u8) {
            self.push(object);
        }

        fn delete(&mut self, object: &u8) {
            self.retain(|known| known != object);
        }

        fn reset(&mut self, objects: Vec<u8>) {
            *self = objects;
        }
    }

    /// Readiness after a watch has delivered these events, while it waits for more.
    async fn readiness(events: Vec<watcher::Result<Event<u8>>>) -> Result<(), Vec<String>> {
        let shutdown = CancellationToken::new();
        let health = Health::default();
        let synced = health.condition("watch", Scope::Startup);
        let (sender, delivered) = tokio::sync::oneshot::channel();
        let end = stream::once(async move {
            let _sent = sender.send(());
            std::future::pending().await
        });
        let index = Shared::<Vec<u8>>::default();
        let events = stream::iter(events).chain(end);
        tokio::select! {
            () = follow(events, index, synced, shutdown, || {}) => {}
            _ = delivered => {}
        }
        health.ready()
    }

    #[tokio::test]
    async fn a_watch_that_fails_is_not_ready_until_it_has_listed_again() {
        let listed = || vec![Ok(Event::Init), Ok(Event::InitApply(1)), Ok(Event::InitDone)];
        let failed = || Err(Error::NoResourceVersion);
        assert_eq!(readiness(listed()).await, Ok(()));
        let mut then_failed = listed();
        then_failed.push(failed());
        assert!(readiness(then_failed).await.unwrap_err()[0].contains("watch"));
        let again: Vec<_> = std::iter::once(failed()).chain(listed()).collect();
        assert_eq!(readiness(again).await, Ok(()));
    }

    #[tokio::test]
    async fn a_watch_that_ends_is_not_ready() {
        let shutdown = CancellationToken::new();
        let health = Health::default();
        let synced = health.condition("watch", Scope::Startup);
        let events = stream::iter([Ok(Event::Init), Ok(Event::<u8>::InitDone)]);
        follow(events, Shared::<Vec<u8>>::default(), synced, shutdown, || {}).await;
        assert_eq!(health.ready(), Err(vec!["watch: it has ended".to_owned()]));
    }
}
