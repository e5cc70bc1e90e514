//! Events on SpiderMultusConfigs: they have no status that could say why no network is made of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_runtime::kubernetes::publish_event;
use tracing::warn;

use super::object_key::ObjectKey;
use super::problem::Problem;

/// Writes them, each problem once.
pub(super) struct MultusEvents {
    recorder: Recorder,
    /// What was reported last.
    reported: Mutex<HashMap<ObjectKey, Problem>>,
}

impl MultusEvents {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, reported: Mutex::default() }
    }

    /// Reports a problem, unless it is what was reported last. Failing to write the Event is logged only.
    pub(super) async fn report(&self, key: &ObjectKey, config: &SpiderMultusConfig, problem: Problem) {
        let (reason, note) = (problem.reason(), problem.to_string());
        if !self.is_new(key, problem) {
            return;
        }
        warn!(namespace = key.namespace, name = key.name, reason, %note, "no network of the SpiderMultusConfig");
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Render".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &config.object_ref(&())).await;
    }

    fn is_new(&self, key: &ObjectKey, problem: Problem) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.get(key) == Some(&problem) {
            return false;
        }
        reported.insert(key.clone(), problem);
        true
    }

    /// There is no problem any more.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
