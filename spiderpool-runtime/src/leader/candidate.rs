//! A process that competes for the Lease.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::election::{Election, LeaseAction};
use super::lease::{LeaseStore, Written};
use super::{ElectionConfig, Role};
use crate::kubernetes::{ApiFailure, Deletion, Kubernetes};

/// Limit of a request while this process does not lead.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// A process that competes for the Lease.
pub struct Candidate {
    lease: LeaseStore,
    identity: String,
    election: Election,
    roles: watch::Sender<Role>,
}

impl Candidate {
    /// The candidate, and the role that it has.
    pub fn new(kube: Kubernetes, config: ElectionConfig) -> (Self, watch::Receiver<Role>) {
        let (roles, role) = watch::channel(Role::Unknown);
        let candidate = Self {
            election: Election::new(&config.identity, config.timing),
            identity: config.identity.clone(),
            lease: LeaseStore::new(kube, config),
            roles,
        };
        (candidate, role)
    }

    /// Competes until shutdown, and then gives the Lease up. The leader's work must have ended before.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let remaining = self.election.remaining(Instant::now());
            let limit = remaining.map_or(REQUEST_LIMIT, |remaining| remaining.min(REQUEST_LIMIT));
            let failure = match tokio::time::timeout(limit, self.attempt()).await {
                Ok(outcome) => outcome.err(),
                Err(_) => Some(ApiFailure::Timeout(limit)),
            };
            if let Some(error) = failure {
                warn!(lease = self.lease.name(), %error, "Lease of the leader not read or written, trying again");
            }
            self.publish_role();
            let retry = self.election.timing().retry;
            let remaining = self.election.remaining(Instant::now());
            let pause = remaining.map_or(retry, |remaining| remaining.min(retry));
            shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
            self.publish_role();
        }
        self.give_up().await;
    }

    fn publish_role(&self) {
        let role = if self.election.is_leader(Instant::now()) {
            Role::Leader
        } else {
            // A Lease in its own name that it may have lost makes no other process the leader.
            let other = self.election.holder().filter(|holder| *holder != self.identity);
            other.map_or(Role::Unknown, |leader| Role::Follower { leader: leader.to_owned() })
        };
        let changed = self.roles.send_if_modified(|known| {
            let differs = *known != role;
            known.clone_from(&role);
            differs
        });
        if changed {
            info!(?role, identity = self.identity, "leadership changed");
        }
    }

    async fn attempt(&mut self) -> Result<(), ApiFailure> {
        if !self.election.is_leader(Instant::now()) || !self.lease.is_known() {
            self.observe().await?;
        }
        let begun = Instant::now();
        let action = self.election.plan(begun);
        if action == LeaseAction::Wait {
            return Ok(());
        }
        match self.lease.write(action).await? {
            Written::Done(written) => {
                self.election.acquired(written, begun);
                Ok(())
            }
            Written::Conflict => {
                self.election.forget();
                self.observe().await
            }
        }
    }

    async fn observe(&mut self) -> Result<(), ApiFailure> {
        let found = self.lease.read().await?;
        self.election.observe(found, Instant::now());
        Ok(())
    }

    /// Deletes the Lease if this process leads, so that the next leader need not wait and an uninstalled chart leaves
    /// nothing.
    async fn give_up(&mut self) {
        let was_leader = self.election.is_leader(Instant::now());
        self.roles.send_replace(Role::Unknown);
        if !was_leader {
            return;
        }
        let lease = self.lease.name().to_owned();
        match self.lease.delete().await {
            Ok(Deletion::Done) => info!(lease, "Lease of the leader given up"),
            Ok(Deletion::Changed) => {}
            Err(error) => warn!(lease, %error, "Lease not given up, the next leader waits until it expires"),
        }
    }
}
