//! The agent's start as requests see it: they wait until the agent knows what there is, but not for ever.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use spiderpool_runtime::health::Health;
use thiserror::Error;
use tokio::sync::SetOnce;

/// How long a request waits.
const LIMIT: Duration = Duration::from_secs(5);

/// A request came before the agent knew enough to answer it.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("spiderpool-agent is starting, is the API server reachable? Still missing: {}", .0.join(", "))]
pub struct Starting(pub(crate) Vec<String>);

/// Whether the start is done. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Start(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: SetOnce<()>,
    health: OnceLock<Health>,
}

impl Start {
    /// Requests are served from now on: what the node holds is listed, and the watches know what there is.
    pub fn done(&self) {
        // A second time changes nothing.
        let _already = self.0.done.set(());
    }

    /// Who knows what the start still lacks.
    pub fn told_by(&self, health: Health) {
        // A second time changes nothing.
        let _already = self.0.health.set(health);
    }

    /// Waits for [`Start::done`] for a while; what is missing if it has not come.
    pub async fn wait(&self) -> Result<(), Starting> {
        self.wait_for(LIMIT).await
    }

    async fn wait_for(&self, limit: Duration) -> Result<(), Starting> {
        let waited = tokio::time::timeout(limit, self.0.done.wait()).await;
        if waited.is_ok() {
            return Ok(());
        }
        let missing = self.0.health.get().and_then(|health| health.started().err());
        Err(Starting(missing.unwrap_or_else(|| vec!["addresses of the node".to_owned()])))
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_runtime::health::Scope;

    use super::*;

    #[tokio::test]
    async fn who_waits_in_vain_is_told_what_is_missing() {
        let (start, health) = (Start::default(), Health::default());
        let _watch = health.condition("watch of coordinators", Scope::Startup);
        start.told_by(health);
        let error = start.wait_for(Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("Still missing: watch of coordinators: not yet"), "{error}");
    }

    #[tokio::test]
    async fn who_came_early_is_served_when_the_start_is_done() {
        let start = Start::default();
        let early = tokio::spawn({
            let start = start.clone();
            async move { start.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!early.is_finished());
        start.done();
        assert_eq!(early.await.unwrap(), Ok(()));
        assert_eq!(start.wait().await, Ok(()));
    }
}
