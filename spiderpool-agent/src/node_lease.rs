//! Says by a Lease that pods run although the API server takes their node for dead, because its kubelet may have stopped
//! while the containers go on, or that they run on after they should have ended. What the Lease says is in `spiderpool_api::node_lease`.

mod store;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use k8s_openapi::jiff::Timestamp;
use spiderpool_api::node_lease::{self, RENEW_INTERVAL};
use spiderpool_core::names::NodeName;
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ipam::Ipam;
use crate::processes::running_pods;
use crate::watches::OwnNode;
use store::LeaseStore;

/// When what the API server has refused is tried again: an outdated Lease says nothing any more.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);

#[derive(Debug, Error)]
enum LeaseError {
    #[error("processes of the node cannot be read: {0}")]
    Processes(#[from] io::Error),
    #[error(transparent)]
    Write(ApiFailure),
    #[error(transparent)]
    Delete(ApiFailure),
}

/// Keeps the node's Lease.
pub(crate) struct NodeLease {
    node: NodeName,
    ipam: Arc<Ipam>,
    store: LeaseStore,
    /// Whether the last attempt has failed.
    has_failed: bool,
    /// Whether it was written since the node was ready.
    is_written: bool,
}

impl NodeLease {
    /// In the agents' namespace.
    pub(crate) fn new(kube: Kubernetes, ipam: Arc<Ipam>, node: NodeName, namespace: &str) -> Self {
        let store = LeaseStore::new(kube, namespace, node_lease::name(&node));
        Self { node, ipam, store, has_failed: false, is_written: false }
    }

    /// Writes the Lease while the node is not ready, or pods that should have ended have processes, and deletes it after
    /// that, until shutdown: then it stays for the next agent. Wants the addresses of the node to be listed.
    pub(crate) async fn run(
        mut self,
        mut own_node: watch::Receiver<Option<OwnNode>>,
        shutdown: CancellationToken,
    ) {
        let mut pauses = backoff::exponential().build();
        let mut has_overdue = self.ipam.has_overdue_pods();
        loop {
            let begun = Instant::now();
            let node = own_node.borrow_and_update().clone();
            let is_needed = *has_overdue.borrow_and_update();
            let reconciling = self.reconcile(node, is_needed);
            let Some(outcome) = shutdown.run_until_cancelled(reconciling).await else { return };
            self.log_failure(&outcome);
            let due = match outcome {
                Ok(pause) => {
                    pauses = backoff::exponential().build();
                    pause.map(|pause| begun + pause)
                }
                Err(LeaseError::Delete(failure) | LeaseError::Write(failure)) if !failure.is_retryable() => {
                    Some(Instant::now() + REFUSED_PAUSE)
                }
                Err(_) => {
                    let pause = pauses.next().unwrap_or(RENEW_INTERVAL);
                    Some(Instant::now() + pause.min(RENEW_INTERVAL))
                }
            };
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                // The watch ends with the agent.
                changed = own_node.changed() => if changed.is_err() { return },
                changed = has_overdue.changed() => if changed.is_err() { return },
                () = due => {}
            }
        }
    }

    /// After which time it has to be called again; `None` means when the node changes.
    async fn reconcile(
        &mut self,
        node: Option<OwnNode>,
        has_overdue: bool,
    ) -> Result<Option<Duration>, LeaseError> {
        match node {
            // Its Lease is deleted with it.
            None => Ok(None),
            Some(node) if node.is_ready && !has_overdue => {
                if self.store.delete().await.map_err(LeaseError::Delete)? {
                    info!("node is ready, and its pods end when they should: its Lease is deleted");
                }
                self.is_written = false;
                Ok(None)
            }
            Some(node) => {
                self.renew(&node).await?;
                Ok(Some(RENEW_INTERVAL))
            }
        }
    }

    async fn renew(&mut self, node: &OwnNode) -> Result<(), LeaseError> {
        let holders = self.ipam.pods_with_addresses();
        let running = tokio::task::spawn_blocking(move || running_pods(&holders));
        let running = running.await.map_err(io::Error::from)??;
        let lease = node_lease::lease(&self.node, &node.uid, &running, Timestamp::now());
        self.store.write(&lease).await.map_err(LeaseError::Write)?;
        if !self.is_written {
            info!(pods = running.len(), is_ready = node.is_ready, "a Lease says which pods of the node run");
        }
        self.is_written = true;
        Ok(())
    }

    /// Once, until it succeeds.
    fn log_failure<T>(&mut self, outcome: &Result<T, LeaseError>) {
        if let Err(error) = outcome
            && !self.has_failed
        {
            warn!(%error, "Lease of the node cannot be written or deleted, trying again");
        }
        self.has_failed = outcome.is_err();
    }
}
