//! Events on pools that serve nobody because of something that somebody should do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_core::ipam::pool_condition::PoolConditionKind;
use spiderpool_runtime::kubernetes::publish_event;

/// Reasons that are somebody's will.
const INTENDED: [&str; 2] = ["Disabled", "Terminating"];

/// Writes them.
pub(super) struct PoolEvents {
    recorder: Recorder,
    /// What was reported last, by the pool's name.
    reported: Mutex<HashMap<String, Condition>>,
}

impl PoolEvents {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, reported: Mutex::default() }
    }

    /// The status of this pool has been written. Failing to write the Event is logged only.
    pub(super) async fn report(&self, pool: &SpiderIPPool) {
        let Some(condition) = self.unreported(pool) else { return };
        let event = Event {
            type_: EventType::Warning,
            reason: condition.reason,
            note: Some(condition.message),
            action: "Serve".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &pool.object_ref(&())).await;
    }

    /// What keeps the pool from serving, unless it was reported already: others may write the status too.
    fn unreported(&self, pool: &SpiderIPPool) -> Option<Condition> {
        let name = pool.metadata.name.clone()?;
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        let mut problems = conditions.filter(|one| one.type_ == PoolConditionKind::Ready.as_str());
        let problem = problems.find(|one| one.status == "False" && !INTENDED.contains(&one.reason.as_str()));
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(problem) = problem else {
            reported.remove(&name);
            return None;
        };
        let is_known =
            |before: &Condition| (&before.reason, &before.message) == (&problem.reason, &problem.message);
        if reported.get(&name).is_some_and(is_known) {
            return None;
        }
        reported.insert(name, problem.clone());
        Some(problem.clone())
    }
}
