//! What is served goes on for a while after the shutdown was requested: until proxies and API servers have learned that
//! the pod is no endpoint any more, they send requests to it.

use std::time::Duration;

use spiderpool_runtime::health::{Health, Scope};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled so long after `shutdown`. In between the process is not ready.
pub(super) fn after(shutdown: CancellationToken, health: &Health, delay: Duration) -> CancellationToken {
    let drained = CancellationToken::new();
    let serving = health.condition("serving", Scope::Readiness);
    serving.met();
    // If the task ends otherwise, nothing would end what is served: the guard cancels the token then too.
    let guard = drained.clone().drop_guard();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        serving.unmet("the controller shuts down");
        tokio::time::sleep(delay).await;
        drop(guard);
    });
    drained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_shuts_down_is_not_ready_and_serves_on_for_a_while() {
        let (shutdown, health) = (CancellationToken::new(), Health::default());
        let drained = after(shutdown.clone(), &health, Duration::from_secs(2));
        assert_eq!(health.ready(), Ok(()));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_millis(100), drained.cancelled()).await.unwrap_err();
        assert_eq!(health.ready(), Err(vec!["serving: the controller shuts down".to_owned()]));
        tokio::time::timeout(Duration::from_secs(10), drained.cancelled()).await.unwrap();
    }
}
