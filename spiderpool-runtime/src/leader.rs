//! Leader election by a Lease of coordination.k8s.io: one of several processes works, the others wait.
//!
//! The rules are in [`Election`]; here are the requests. What a leader writes must still carry preconditions: a
//! request of its own may arrive after its time.

mod election;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::kubernetes::{Deletion, Exactly, Failure, Kubernetes};
use tokio_util::sync::CancellationToken;

pub use election::{Election, Seen, Step, Terms};

/// A request of a candidate that does not lead.
const PATIENCE: Duration = Duration::from_secs(5);

/// What this process is at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// Nobody is known to lead.
    #[default]
    Unknown,
    /// Somebody else leads.
    Follower {
        /// Its identity.
        leader: String,
    },
    /// This process leads.
    Leader,
}

/// Which Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct Candidacy {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// The candidate, by the name of its pod.
    pub identity: String,
    /// How long leaders may be silent.
    pub terms: Terms,
}

/// A process that stands for election.
pub struct Candidate {
    kube: Kubernetes,
    api: Api<Lease>,
    candidacy: Candidacy,
    election: Election,
    lease: Option<Lease>,
    roles: watch::Sender<Role>,
}

impl Candidate {
    /// The candidate, and the role that it has.
    pub fn new(kube: Kubernetes, candidacy: Candidacy) -> (Self, watch::Receiver<Role>) {
        let (roles, role) = watch::channel(Role::Unknown);
        let candidate = Self {
            api: Api::namespaced(kube.client(), &candidacy.namespace),
            election: Election::new(&candidacy.identity, candidacy.terms),
            lease: None,
            kube,
            candidacy,
            roles,
        };
        (candidate, role)
    }

    /// Stands for election until shutdown, and then gives the Lease up. Who works as leader must have ended before.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let limit = self.election.left(Instant::now()).map_or(PATIENCE, |left| left.min(PATIENCE));
            let failure = match tokio::time::timeout(limit, self.attempt()).await {
                Ok(outcome) => outcome.err(),
                Err(_) => Some(Failure::Silence(limit)),
            };
            if let Some(error) = failure {
                let lease = &self.candidacy.lease;
                warn!(lease, %error, "the lease of the leader cannot be read or written, trying again");
            }
            self.tell();
            let retry = self.election.terms().retry;
            let pause = self.election.left(Instant::now()).map_or(retry, |left| left.min(retry));
            shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
            self.tell();
        }
        self.release().await;
    }

    fn tell(&self) {
        let role = if self.election.leads(Instant::now()) {
            Role::Leader
        } else {
            // Its own Lease, of which it does not know whether it still holds, is nobody's.
            let other = self.election.leader().filter(|leader| *leader != self.candidacy.identity);
            other.map_or(Role::Unknown, |leader| Role::Follower { leader: leader.to_owned() })
        };
        let changed = self.roles.send_if_modified(|known| {
            let differs = *known != role;
            known.clone_from(&role);
            differs
        });
        if changed {
            info!(?role, identity = self.candidacy.identity, "leadership has changed");
        }
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        if !self.election.leads(Instant::now()) || self.lease.is_none() {
            self.read().await?;
        }
        let begun = Instant::now();
        let step = self.election.plan(begun);
        let wanted = self.wanted(step);
        let written = match step {
            Step::Wait => return Ok(()),
            Step::Create => self.kube.write_at_once(self.api.create(&PostParams::default(), &wanted)).await,
            Step::Take | Step::Renew => {
                let name = &self.candidacy.lease;
                self.kube.write_at_once(self.api.replace(name, &PostParams::default(), &wanted)).await
            }
        };
        match written {
            Ok(lease) => {
                self.election.won(seen(&lease, self.candidacy.terms), begun);
                self.lease = Some(lease);
                Ok(())
            }
            Err(failure)
                if failure.is_conflict() || failure.is_already_exists() || failure.is_not_found() =>
            {
                self.election.outrun();
                self.read().await
            }
            // What came of it is not known: the next one starts with a look.
            Err(failure) => {
                self.lease = None;
                Err(failure)
            }
        }
    }

    async fn read(&mut self) -> Result<(), Failure> {
        self.lease = self.kube.read(self.api.get_opt(&self.candidacy.lease)).await?;
        let found = self.lease.as_ref().map(|lease| seen(lease, self.candidacy.terms));
        self.election.see(found, Instant::now());
        Ok(())
    }

    /// The Lease after the step.
    fn wanted(&self, step: Step) -> Lease {
        let mut lease = self.lease.clone().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.candidacy.lease.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let now = MicroTime(Timestamp::now());
        let mut spec = lease.spec.take().unwrap_or_default();
        if step != Step::Renew {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(transitions + i32::from(step == Step::Take));
            spec.acquire_time = Some(now.clone());
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.candidacy.identity.clone()),
            lease_duration_seconds: Some(self.candidacy.terms.duration.as_secs() as i32),
            renew_time: Some(now),
            ..spec
        });
        lease
    }

    /// The next leader need not wait. Nothing is left where nobody comes.
    async fn release(&mut self) {
        let was_leader = self.election.leads(Instant::now());
        self.roles.send_replace(Role::Unknown);
        let Some(lease) = self.lease.take().filter(|_| was_leader) else { return };
        match self.kube.delete(&self.api, &Exactly::of(&lease.metadata)).await {
            Ok(Deletion::Done) => info!(lease = self.candidacy.lease, "the lease of the leader is given up"),
            Ok(Deletion::Changed) => {}
            Err(error) => {
                warn!(lease = self.candidacy.lease, %error, "the lease cannot be given up, the next leader waits");
            }
        }
    }
}

fn seen(lease: &Lease, terms: Terms) -> Seen {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    Seen {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration: seconds.map_or(terms.duration, Duration::from_secs),
    }
}

/// Takes the Lease from whoever has it, and keeps everybody from it until it is deleted or `duration` is over.
pub async fn seize(
    kube: &Kubernetes,
    namespace: &str,
    lease: &str,
    identity: &str,
    duration: Duration,
) -> Result<(), Failure> {
    let terms = Terms { duration, ..Terms::default() };
    let candidacy = Candidacy {
        namespace: namespace.to_owned(),
        lease: lease.to_owned(),
        identity: identity.to_owned(),
        terms,
    };
    let (mut candidate, _role) = Candidate::new(kube.clone(), candidacy);
    loop {
        candidate.read().await?;
        let step = if candidate.lease.is_some() { Step::Take } else { Step::Create };
        let wanted = candidate.wanted(step);
        let (api, parameters) = (&candidate.api, PostParams::default());
        let written = match step {
            Step::Create => kube.write_at_once(api.create(&parameters, &wanted)).await,
            _ => kube.write_at_once(api.replace(lease, &parameters, &wanted)).await,
        };
        match written {
            Err(failure) if failure.is_conflict() || failure.is_already_exists() => {}
            // It has gone since it was read. Where it cannot be created for want of its namespace, that is an error.
            Err(failure) if failure.is_not_found() && candidate.lease.is_some() => {}
            other => return other.map(|_| ()),
        }
    }
}
