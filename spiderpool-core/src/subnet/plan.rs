//! What is to be done for a subnet: which pools are made, changed and deleted, and what its status says then.
//!
//! The status is written first: its resourceVersion makes sure that nobody else has cut pools from the subnet meanwhile. What a
//! pool has already is its own whatever the status says, and what the status says of an application's pool nobody else gets,
//! so that nothing is lost, and nothing given twice, by a controller that ends in between or sees its own writes late.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use thiserror::Error;

use super::application::{Application, PoolPurpose};
use super::carve::{CarveError, Carving, plan_carve};
use super::labels::{self, PurposeLabels, is_auto_pool, is_reclaimed};
use super::request::PoolSize;
use super::spec::Subnet;
use super::status::{ControlledPool, ControlledPools};
use crate::ip::IpSet;
use crate::ipam::address_name::label_value;
use crate::names::PoolName;

/// A pool of the subnet's CIDR.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: PoolName,
    /// Its usable addresses; none of a pool that is invalid.
    pub usable: IpSet,
    /// Those that are in use or kept, also by its status alone.
    pub used: IpSet,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The annotation with its size.
    pub size: Option<String>,
    /// What controls it.
    pub controller: Controller,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
}

/// What controls a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Nothing, or a SpiderSubnet that is not there any more.
    None,
    /// The subnet.
    Subnet,
    /// An object of another kind: it is left alone.
    Other,
}

/// A pool that an application wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPool {
    /// What it is for.
    pub purpose: PoolPurpose,
    /// How many addresses it has.
    pub size: PoolSize,
    /// How many pods the application has; `None` where nobody knows.
    pub pods: Option<u32>,
    /// Whether it goes with the application.
    pub reclaim: bool,
}

/// What is known of a subnet.
#[derive(Debug, Clone, Copy)]
pub struct SubnetState<'a> {
    /// The subnet.
    pub subnet: &'a Subnet,
    /// What its status says.
    pub records: &'a ControlledPools,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The pools of its CIDR. Those that are [`ControlledPools::behind`] must be known as they are now: whether one has been
    /// written or not decides who has the difference.
    pub members: &'a [Member],
    /// What applications want of it.
    pub wanted: &'a [WantedPool],
    /// UIDs of applications of which it is not known what they want: their pools stay as they are.
    pub undecided: &'a BTreeSet<String>,
    /// The addresses of SpiderReservedIPs.
    pub reserved: &'a IpSet,
    /// Addresses that are in use, or another pool's that is no member.
    pub in_use: &'a IpSet,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetPlan {
    /// What the status is to say before the steps.
    pub records: ControlledPools,
    /// In this order.
    pub steps: Vec<Step>,
    /// Why applications do not have what they want.
    pub problems: Vec<Problem>,
    /// Pools for which more can be done when addresses of theirs are free.
    pub waiting: BTreeSet<PoolName>,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A pool is made for an application.
    Create {
        /// What it is for.
        purpose: PoolPurpose,
        /// What it is to be.
        pool: AutoPool,
    },
    /// One that is there is changed.
    Update(AutoPool),
    /// One that nothing uses is deleted, unless the API server has its application, and that wants it: what a watch has not
    /// shown may be there all the same.
    DeleteUnlessWanted {
        /// The pool.
        pool: PoolName,
        /// The application that it was made for.
        application: Application,
        /// Its UID.
        uid: String,
    },
    /// A pool gets the subnet as controller, and what it inherits.
    Adopt(PoolName),
}

/// A pool for an application, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoPool {
    /// Its name.
    pub name: PoolName,
    /// Its addresses.
    pub ips: IpSet,
    /// Labels that it has.
    pub labels: BTreeMap<String, String>,
    /// The annotation with its size.
    pub size: String,
}

/// Why an application has no pool, or not as many addresses as it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What the pool is for.
    pub purpose: PoolPurpose,
    /// Why.
    pub cause: ProblemCause,
}

/// Why a pool is not as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProblemCause {
    /// Addresses are missing.
    #[error(transparent)]
    Carve(#[from] CarveError),
    /// Nobody knows how many pods there are.
    #[error(
        "a third-party {kind} only supports fixed auto-created IPPool IP Number: set the annotation '{key}' to a number",
        key = crate::ipam::annotation_key::IPPOOL_IP_NUMBER
    )]
    OnlyFixed {
        /// The kind of the application.
        kind: String,
    },
    /// Both names that the pool may have are taken.
    #[error(
        "the SpiderIPPools {first} and {second}, whose names its own may have, are others': wait until one of them is gone"
    )]
    NameTaken {
        /// The first name.
        first: String,
        /// The other.
        second: String,
    },
    /// The API server refuses the pool.
    #[error("the API server refuses its SpiderIPPool: {0}")]
    Refused(String),
}

impl ProblemCause {
    /// Which one it is, without the numbers and names that change while nothing is done about it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Carve(CarveError::Subnet { .. }) => "subnet",
            Self::Carve(CarveError::InUse { .. }) => "in use",
            Self::OnlyFixed { .. } => "only fixed",
            Self::NameTaken { .. } => "name taken",
            Self::Refused(_) => "refused",
        }
    }
}

/// What is to be done. Of other pools `is_taken` says whether one has a name. When all of it is done, nothing more is.
pub fn plan_subnet(state: &SubnetState<'_>, is_taken: impl Fn(&str) -> bool) -> SubnetPlan {
    let mut planner = Planner::new(state);
    for wanted in state.wanted {
        planner.serve(wanted, &is_taken);
    }
    for member in state.members {
        planner.keep(member);
    }
    planner.plan
}

struct Planner<'a> {
    state: &'a SubnetState<'a>,
    /// Pools of applications, by what they were made for: there may be thousands.
    by_purpose: HashMap<PurposeLabels, Vec<&'a Member>>,
    carvable: IpSet,
    /// What no pool may get that has not got it: other pools', in use, or reserved.
    taken: IpSet,
    /// What is recorded for pools of applications that have not got it: whoever has recorded it may be about to make them.
    promised: IpSet,
    served: BTreeSet<&'a PoolName>,
    plan: SubnetPlan,
}

impl<'a> Planner<'a> {
    fn new(state: &'a SubnetState<'a>) -> Self {
        let family = state.subnet.family();
        let members = state.members.iter().flat_map(|pool| pool.usable.ranges());
        let taken = IpSet::from_ranges(family, members.chain(state.in_use.ranges()));
        let wanting: BTreeSet<&Application> =
            state.wanted.iter().map(|wanted| &wanted.purpose.application).collect();
        let records = state.records.0.values();
        let records =
            records.filter(|record| record.application.as_ref().is_some_and(|of| wanting.contains(of)));
        let promised =
            IpSet::from_ranges(family, records.flat_map(|record| record.ips.ranges())).difference(&taken);
        let carvable = state.subnet.carvable();
        let mut by_purpose = HashMap::<_, Vec<_>>::new();
        for member in state.members {
            if let Some(purpose) = PurposeLabels::of(&member.labels) {
                by_purpose.entry(purpose).or_default().push(member);
            }
        }
        let (served, plan) = (BTreeSet::new(), SubnetPlan::default());
        Self { state, by_purpose, carvable, taken, promised, served, plan }
    }

    fn serve(&mut self, wanted: &WantedPool, is_taken: impl Fn(&str) -> bool) {
        if let Err(cause) = self.try_serve(wanted, is_taken) {
            self.plan.problems.push(Problem { purpose: wanted.purpose.clone(), cause });
        }
    }

    fn try_serve(
        &mut self,
        wanted: &WantedPool,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<(), ProblemCause> {
        let purpose = &wanted.purpose;
        let candidates = self.by_purpose.get(&purpose.purpose_labels()).into_iter().flatten().copied();
        let candidates = candidates.filter(|pool| may_reuse(pool, purpose));
        let candidates = candidates.filter(|pool| !self.served.contains(&pool.name));
        // Its own before one that an earlier application has left.
        let found = candidates.min_by_key(|pool| (!is_of_uid(pool, purpose), &pool.name));
        // What it has stays, also if it cannot be as it is to be.
        self.served.extend(found.map(|pool| &pool.name));
        let desired = match (wanted.pods, wanted.size) {
            (None, PoolSize::Flexible(_)) => {
                if let Some(pool) = found {
                    self.record(&pool.name, pool.usable.clone(), Some(&purpose.application));
                }
                return Err(ProblemCause::OnlyFixed { kind: purpose.application.kind.clone() });
            }
            (pods, size) => size.addresses(pods.unwrap_or_default()),
        };
        let name = match found {
            Some(pool) => pool.name.clone(),
            None => self.new_name(purpose, is_taken)?,
        };
        let nothing = IpSet::empty(self.state.subnet.family());
        let (has, used) = match found {
            Some(pool) => (pool.usable.clone(), &pool.used),
            None => (self.recorded(&name, purpose), &nothing),
        };
        let is_right = has.len() == u128::from(desired) && has.difference(&self.carvable).is_empty();
        let carved = if is_right { Ok(has.clone()) } else { self.carve(&name, &has, used, desired) };
        let ips = match carved {
            Ok(ips) => ips,
            Err(error) => {
                if matches!(error, CarveError::InUse { .. }) {
                    self.plan.waiting.insert(name.clone());
                }
                if let Some(pool) = found {
                    self.record(&name, pool.usable.clone(), Some(&purpose.application));
                }
                return Err(error.into());
            }
        };
        if ips != has || found.is_none() {
            self.taken = self.taken.union(&ips);
        }
        self.record(&name, ips.clone(), Some(&purpose.application));
        let labels = purpose.labels(self.state.subnet.name.as_str(), wanted.reclaim);
        let pool = AutoPool { name, ips, labels, size: wanted.size.text() };
        let step = match found {
            Some(found) if is_as_planned(found, &pool) => return Ok(()),
            Some(_) => Step::Update(pool),
            None => Step::Create { purpose: purpose.clone(), pool },
        };
        self.plan.steps.push(step);
        Ok(())
    }

    /// The addresses that a pool with these is to have. It takes time in proportion to all pools.
    fn carve(&self, name: &PoolName, has: &IpSet, used: &IpSet, desired: u32) -> Result<IpSet, CarveError> {
        let own = self.state.records.0.get(name.as_str());
        let promised = own.map(|own| self.promised.difference(&own.ips));
        let others = self.taken.union(promised.as_ref().unwrap_or(&self.promised));
        plan_carve(&Carving {
            subnet: &self.carvable,
            others: &others.difference(has),
            reserved: self.state.reserved,
            pool: has,
            used,
            desired,
        })
    }

    /// What a controller has recorded that ended before it made the pool.
    fn recorded(&self, name: &PoolName, purpose: &PoolPurpose) -> IpSet {
        let record = self.state.records.0.get(name.as_str());
        let record = record.filter(|record| record.application.as_ref() == Some(&purpose.application));
        let family = self.state.subnet.family();
        let ips = record.map_or_else(|| IpSet::empty(family), |record| record.ips.clone());
        ips.difference(&self.taken)
    }

    fn new_name(
        &self,
        purpose: &PoolPurpose,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<PoolName, ProblemCause> {
        let subnet = &self.state.subnet.name;
        let [first, second] = [purpose.pool_name(), purpose.pool_name_of(subnet)];
        let is_free = |name: &&String| !is_taken(name) && !self.plan.records.0.contains_key(*name);
        let name = [&first, &second].into_iter().find(is_free);
        let parsed = name.and_then(|name| name.parse().ok());
        parsed.ok_or(ProblemCause::NameTaken { first, second })
    }

    /// A pool that nobody has asked for.
    fn keep(&mut self, member: &Member) {
        if self.served.contains(&member.name) {
            self.adopt(member);
            return;
        }
        if !is_auto_pool(&member.labels) {
            let ips = member.usable.intersection(&self.state.subnet.usable);
            if !ips.is_empty() {
                self.record(&member.name, ips, None);
            }
            self.adopt(member);
            return;
        }
        let application = self.state.records.0.get(member.name.as_str());
        let application = application.and_then(|record| record.application.clone());
        let application = application.or_else(|| labels::application_of(&member.labels));
        self.record(&member.name, member.usable.clone(), application.as_ref());
        let uid = member.labels.get(labels::OWNER_APPLICATION_UID).cloned().unwrap_or_default();
        if member.terminating || !is_reclaimed(&member.labels) || self.state.undecided.contains(&uid) {
            self.adopt(member);
        } else if !member.used.is_empty() {
            self.plan.waiting.insert(member.name.clone());
        } else if let Some(application) = application {
            let pool = member.name.clone();
            self.plan.steps.push(Step::DeleteUnlessWanted { pool, application, uid });
        }
    }

    fn adopt(&mut self, member: &Member) {
        let label = label_value(self.state.subnet.name.as_str());
        let has_label = member.labels.get(labels::OWNER_SUBNET) == Some(&label);
        let is_ours = has_label && member.controller == Controller::Subnet;
        if !is_ours
            && !self.state.terminating
            && !member.terminating
            && member.controller != Controller::Other
        {
            self.plan.steps.push(Step::Adopt(member.name.clone()));
        }
    }

    fn record(&mut self, name: &PoolName, ips: IpSet, application: Option<&Application>) {
        let pool = ControlledPool { ips, application: application.cloned() };
        self.plan.records.0.insert(name.as_str().to_owned(), pool);
    }
}

fn is_of_uid(pool: &Member, purpose: &PoolPurpose) -> bool {
    pool.labels.get(labels::OWNER_APPLICATION_UID) == Some(&purpose.uid)
}

/// One of an earlier application of the name is taken again if it was to stay.
fn may_reuse(pool: &Member, purpose: &PoolPurpose) -> bool {
    !pool.terminating && (is_of_uid(pool, purpose) || !is_reclaimed(&pool.labels))
}

fn is_as_planned(found: &Member, planned: &AutoPool) -> bool {
    let has = |(key, value): (&String, &String)| found.labels.get(key) == Some(value);
    found.usable == planned.ips
        && found.size.as_ref() == Some(&planned.size)
        && planned.labels.iter().all(has)
}

#[cfg(test)]
mod tests;
