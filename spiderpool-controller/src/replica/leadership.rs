//! Starts the leader's work when this replica is elected, and ends it when it is not the leader any more.

use spiderpool_runtime::health::Condition;
use spiderpool_runtime::leader::Role;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::leader::{self, LeaderContext};

/// Works whenever this replica leads, until shutdown; the work has ended when it returns.
pub(super) async fn follow(
    context: LeaderContext,
    mut role: watch::Receiver<Role>,
    leader_known: Condition,
    shutdown: &CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let now = role.borrow_and_update().clone();
        match &now {
            Role::Unknown => {
                leader_known.unmet("no replica is known to lead: can the Lease be read and written?");
            }
            Role::Follower { .. } | Role::Leader => leader_known.met(),
        }
        context.metrics.leader.set(i64::from(now == Role::Leader));
        if now == Role::Leader {
            let leading = shutdown.child_token();
            let work = tokio::spawn(leader::run(context.clone(), leading.clone()));
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = role.wait_for(|role| *role != Role::Leader) => {}
            }
            leading.cancel();
            if let Err(error) = work.await {
                error!(%error, "the leader's work has failed");
            }
            continue;
        }
        // A follower has no watches that could fail.
        context.watches_synced.met();
        tokio::select! {
            () = shutdown.cancelled() => {}
            changed = role.changed() => if changed.is_err() { return },
        }
    }
}
