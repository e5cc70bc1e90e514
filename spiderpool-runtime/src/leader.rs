//! Leader election by a Lease of coordination.k8s.io: one of several processes works, the others wait.
//!
//! The rules are in [`Election`], the requests in `lease`. What a leader writes must still carry preconditions: a
//! request of its own may arrive after its time.

mod candidate;
mod election;
mod lease;
mod take_over;

pub use candidate::Candidate;
pub use election::{Election, LeaseAction, ObservedLease, Timing};
pub use take_over::take_over;

/// What this process is at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// No process is known to lead.
    #[default]
    Unknown,
    /// Another process leads.
    Follower {
        /// Its identity.
        leader: String,
    },
    /// This process leads.
    Leader,
}

/// Which Lease, and who competes for it.
#[derive(Debug, Clone)]
pub struct ElectionConfig {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// The candidate: the name of its pod.
    pub identity: String,
    /// How long a Lease lasts.
    pub timing: Timing,
}
