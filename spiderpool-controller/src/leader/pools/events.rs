//! Events on pools that serve nobody because of something that somebody should do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_api::pod;
use spiderpool_core::ipam::pool_condition::PoolConditionKind;
use spiderpool_runtime::kubernetes::publish_event;
use tracing::warn;

use super::import::{ImportReport, Obstacle};
use crate::leader::state::Occupancy;

/// Reasons that are somebody's will.
const INTENDED: [&str; 2] = ["Disabled", "Terminating"];
/// A pool whose last address comes and goes is reported this often.
const REPEAT: Duration = Duration::from_mins(10);

/// A pool, for an Event on it.
pub(crate) fn reference(pool: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(SpiderIPPool::api_version(&()).into_owned()),
        kind: Some(SpiderIPPool::kind(&()).into_owned()),
        name: Some(pool.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// Writes them.
pub(super) struct PoolEvents {
    recorder: Recorder,
    /// What was reported last, by the pool's name.
    reported: Mutex<HashMap<String, Condition>>,
    /// When it was last reported that none of a pool's addresses was left.
    used_out: Mutex<HashMap<String, UsedOut>>,
    /// What was last said to keep a pool from being imported.
    obstacles: Mutex<HashMap<String, Obstacle>>,
}

/// That none of a pool's addresses is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UsedOut {
    said: Instant,
    /// Whether it has been so since.
    lasts: bool,
}

impl PoolEvents {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, reported: Mutex::default(), used_out: Mutex::default(), obstacles: Mutex::default() }
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

    /// So many addresses of the pool are in use now. Failing to write the Event is logged only.
    pub(super) async fn report_usage(&self, pool: &str, uid: &str, occupancy: &Occupancy) {
        if !self.is_newly_used_out(pool, occupancy, Instant::now()) {
            return;
        }
        let note = format!(
            "all {} IP addresses are in use: add some to spec.ips, or Pods that need more get none from this pool",
            occupancy.total
        );
        let event = Event {
            type_: EventType::Warning,
            reason: "AddressesUsedOut".to_owned(),
            note: Some(note),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &reference(pool, uid)).await;
    }

    /// What upstream's agents have allocated is imported. Failing to write the Event is logged only.
    pub(super) async fn report_import(&self, pool: &str, uid: &str, report: &ImportReport) {
        self.obstacles.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
        let (type_, note) = (report.event_type(), report.to_string());
        self.publish_import(pool, uid, type_, "AllocationsImported", note).await;
        for conflict in &report.conflicts {
            for (pod, object_uid) in conflict.pods() {
                let event = Event {
                    type_: EventType::Warning,
                    reason: "AddressConflict".to_owned(),
                    note: Some(conflict.to_string()),
                    action: "Import".to_owned(),
                    secondary: None,
                };
                publish_event(&self.recorder, &event, &pod::reference(pod, object_uid)).await;
            }
        }
    }

    /// It cannot be imported. Said once; failing to write the Event is logged only.
    pub(super) async fn report_obstacle(&self, pool: &str, uid: &str, obstacle: Obstacle) {
        let note = obstacle.to_string();
        let is_said = {
            let mut obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
            let is_said = obstacles.get(pool).is_some_and(|before| before.is_like(&obstacle));
            obstacles.insert(pool.to_owned(), obstacle);
            is_said
        };
        if is_said {
            return;
        }
        warn!(pool, obstacle = note, "allocations of upstream's agents are not imported yet");
        self.publish_import(pool, uid, EventType::Warning, "ImportBlocked", note).await;
    }

    async fn publish_import(&self, pool: &str, uid: &str, type_: EventType, reason: &str, note: String) {
        let (reason, action) = (reason.to_owned(), "Import".to_owned());
        let event = Event { type_, reason, note: Some(note), action, secondary: None };
        publish_event(&self.recorder, &event, &reference(pool, uid)).await;
    }

    /// The pool is gone.
    pub(super) fn forget(&self, pool: &str) {
        self.used_out.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
        self.obstacles.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }

    /// Whether the last address was taken since the last call, and that was not said a short while ago.
    fn is_newly_used_out(&self, pool: &str, occupancy: &Occupancy, now: Instant) -> bool {
        let mut used_out = self.used_out.lock().unwrap_or_else(PoisonError::into_inner);
        if occupancy.free > 0 || occupancy.total == 0 {
            if let Some(before) = used_out.get_mut(pool) {
                before.lasts = false;
            }
            return false;
        }
        let before = used_out.get_mut(pool);
        let is_said = before.is_some_and(|before| {
            let was_so = std::mem::replace(&mut before.lasts, true);
            was_so || now.saturating_duration_since(before.said) < REPEAT
        });
        if !is_said {
            used_out.insert(pool.to_owned(), UsedOut { said: now, lasts: true });
        }
        !is_said
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

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::runtime::events::Reporter;

    use super::*;

    #[tokio::test]
    async fn a_pool_whose_last_address_is_taken_is_reported_once_and_again_after_a_while() {
        let nobody = tower::service_fn(|_: Request<Body>| async {
            Ok::<_, std::io::Error>(Response::new(Body::empty()))
        });
        let reporter = Reporter { controller: "test".to_owned(), instance: None };
        let events = PoolEvents::new(Recorder::new(Client::new(nobody, "default"), reporter));
        let (full, now) = (Occupancy { total: 3, used: 3, ..Occupancy::default() }, Instant::now());
        let has_room = Occupancy { total: 3, used: 2, free: 1, ..Occupancy::default() };
        let report = |occupancy, seconds| {
            events.is_newly_used_out("p", &occupancy, now + Duration::from_secs(seconds))
        };
        assert_eq!([report(has_room, 0), report(full, 1), report(full, 1000)], [false, true, false]);
        assert_eq!([report(has_room, 1001), report(full, 1002)], [false, true]);
        assert_eq!([report(has_room, 1003), report(full, 1004)], [false, false], "it comes and goes");
        assert!(!report(Occupancy::default(), 5000), "a pool without addresses gives none anyway");
        events.forget("p");
        assert!(report(full, 5001));
    }
}
