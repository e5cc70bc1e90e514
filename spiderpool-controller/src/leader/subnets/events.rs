//! Events on applications that do not have the pools that they want, and on subnets that cannot be used.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder};
use spiderpool_api::crd::SpiderSubnet;
use spiderpool_core::names::PoolName;
use spiderpool_core::subnet::plan::Problem;
use spiderpool_runtime::kubernetes::publish_event;
use tracing::warn;

/// Writes them, each once until something else is to be said.
pub(super) struct SubnetEvents {
    recorder: Recorder,
    /// What was said last, by subnet and what it is about.
    said: Mutex<HashMap<PoolName, HashMap<String, String>>>,
}

/// One thing to say.
struct Note {
    key: String,
    /// What is said again only if this has changed: texts have numbers that change with every other pool.
    kind: String,
    text: String,
    reason: &'static str,
    regarding: ObjectReference,
}

impl SubnetEvents {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, said: Mutex::default() }
    }

    /// All problems of a subnet's applications as they are now.
    pub(super) async fn report(&self, subnet: &PoolName, problems: &[Problem]) {
        self.say(subnet, problems.iter().map(|problem| of_problem(subnet, problem)).collect()).await;
    }

    /// The subnet cannot be used at all.
    pub(super) async fn report_subnet(&self, name: &PoolName, subnet: &SpiderSubnet, text: String) {
        let regarding = subnet.object_ref(&());
        let (key, kind) = (String::new(), text.clone());
        let note = Note { key, kind, text, reason: "InvalidSpec", regarding };
        self.say(name, vec![note]).await;
    }

    /// The subnet is gone.
    pub(super) fn forget(&self, subnet: &PoolName) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).remove(subnet);
    }

    async fn say(&self, subnet: &PoolName, notes: Vec<Note>) {
        let unsaid = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let now = notes.iter().map(|note| (note.key.clone(), note.kind.clone())).collect();
            let before = said.insert(subnet.clone(), now).unwrap_or_default();
            let is_new = |note: &Note| before.get(&note.key) != Some(&note.kind);
            notes.into_iter().filter(is_new).collect::<Vec<_>>()
        };
        for Note { text, reason, regarding, .. } in unsaid {
            let (kind, name) = (regarding.kind.as_deref(), regarding.name.as_deref());
            warn!(%subnet, kind, name, reason, %text, "SpiderSubnet cannot give what is wanted of it");
            let event = Event {
                type_: EventType::Warning,
                reason: reason.to_owned(),
                note: Some(text),
                action: "Carve".to_owned(),
                secondary: None,
            };
            publish_event(&self.recorder, &event, &regarding).await;
        }
    }
}

fn of_problem(subnet: &PoolName, problem: &Problem) -> Note {
    let purpose = &problem.purpose;
    let application = &purpose.application;
    let api_version = match application.group.as_str() {
        "" => application.version.clone(),
        group => format!("{group}/{}", application.version),
    };
    let regarding = ObjectReference {
        api_version: Some(api_version),
        kind: Some(application.kind.clone()),
        namespace: Some(application.namespace.clone()),
        name: Some(application.name.clone()),
        uid: Some(purpose.uid.clone()),
        ..ObjectReference::default()
    };
    let (nic, family) = (&purpose.nic, purpose.family);
    Note {
        key: format!("{} {nic} {family} {}", purpose.uid, application),
        kind: problem.cause.kind().to_owned(),
        text: format!(
            "no {family} SpiderIPPool of SpiderSubnet {subnet} as it is to be for interface {nic}: {}",
            problem.cause
        ),
        reason: "IPPoolFailed",
        regarding,
    }
}
