//! The agent's start: requests wait for it, for a limited time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use spiderpool_runtime::health::Health;
use thiserror::Error;
use tokio::sync::SetOnce;

/// How long a request waits.
const TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Requests are served from now on: the node's addresses are listed, and every watch has listed once.
    pub fn done(&self) {
        // A second time changes nothing.
        let _already = self.0.done.set(());
    }

    /// Sets where [`Self::wait`] reads the startup conditions that are missing.
    pub fn set_health(&self, health: Health) {
        // A second time changes nothing.
        let _already = self.0.health.set(health);
    }

    /// Waits for [`Start::done`] without limit.
    pub(crate) async fn until_done(&self) {
        self.0.done.wait().await;
    }

    /// Waits for [`Start::done`]; the missing startup conditions if it has not come within 5 s.
    pub async fn wait(&self) -> Result<(), Starting> {
        self.wait_for(TIMEOUT).await
    }

    async fn wait_for(&self, timeout: Duration) -> Result<(), Starting> {
        let waited = tokio::time::timeout(timeout, self.0.done.wait()).await;
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
    async fn a_wait_that_times_out_names_the_missing_conditions() {
        let (start, health) = (Start::default(), Health::default());
        let _watch = health.condition("watch of coordinators", Scope::Startup);
        start.set_health(health);
        let error = start.wait_for(Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("Still missing: watch of coordinators: not yet"), "{error}");
    }

    #[tokio::test]
    async fn an_early_request_is_served_when_the_start_is_done() {
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
