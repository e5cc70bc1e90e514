//! Events on SpiderReservedIPs that do not say which addresses they mean: no pod gets a new address of their family, and
//! the object has no status that could say so.

use std::collections::HashMap;
use std::pin::pin;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource as _};
use spiderpool_api::crd::SpiderReservedIP;
use spiderpool_core::ipam::reserved::parse_reserved;
use spiderpool_runtime::kubernetes::publish_event;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Reports invalid objects until shutdown.
pub(super) async fn run(client: Client, recorder: Recorder, shutdown: CancellationToken) {
    let objects = watcher(Api::<SpiderReservedIP>::all(client), watcher::Config::default());
    let mut events = pin!(objects.default_backoff());
    let mut faults = ReportedFaults::default();
    while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                if let Some(note) = faults.unreported(&object) {
                    let published = publish(&recorder, &object, note);
                    let _ended = shutdown.run_until_cancelled(published).await;
                }
            }
            Ok(watcher::Event::Delete(object)) => faults.forget(&object),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => warn!(%error, "watch of SpiderReservedIPs failed, trying again"),
        }
    }
}

/// Failing to write the Event is logged only.
async fn publish(recorder: &Recorder, object: &SpiderReservedIP, note: String) {
    warn!(%note, "no addresses are given out while it is not known which are reserved");
    let event = Event {
        type_: EventType::Warning,
        reason: "InvalidSpec".to_owned(),
        note: Some(note),
        action: "Reserve".to_owned(),
        secondary: None,
    };
    publish_event(recorder, &event, &object.object_ref(&())).await;
}

/// What was reported, by the objects' names.
#[derive(Debug, Default)]
struct ReportedFaults(HashMap<String, String>);

impl ReportedFaults {
    /// What is wrong with the object, unless it was reported already.
    fn unreported(&mut self, object: &SpiderReservedIP) -> Option<String> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let (_, error) = parse_reserved(&name, &object.spec.ips);
        let Some(error) = error.filter(|_| object.metadata.deletion_timestamp.is_none()) else {
            self.0.remove(&name);
            return None;
        };
        let note = format!("no Pod gets a new address of its family until it is corrected: {error}");
        let before = self.0.insert(name, note.clone());
        (before.as_ref() != Some(&note)).then_some(note)
    }

    fn forget(&mut self, object: &SpiderReservedIP) {
        self.0.remove(object.metadata.name.as_deref().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_api::crd::SpiderReservedIPSpec;

    use super::*;

    #[test]
    fn an_invalid_reserved_ip_is_reported_once_per_fault() {
        let reserved = |ips: &[&str]| {
            let ips = ips.iter().map(|ip| (*ip).to_owned()).collect();
            SpiderReservedIP::new("r", SpiderReservedIPSpec { ip_version: None, ips })
        };
        let mut faults = ReportedFaults::default();
        assert_eq!(faults.unreported(&reserved(&["10.6.0.1"])), None);
        let wrong = reserved(&["10.6.0.9-10.6.0.1"]);
        let note = faults.unreported(&wrong).unwrap();
        assert!(note.contains("SpiderReservedIP r is invalid: spec.ips[0]: "), "{note}");
        assert_eq!(faults.unreported(&wrong), None, "a list tells of every object again");
        assert!(faults.unreported(&reserved(&["10.6.0.8-10.6.0.1"])).is_some());
        assert_eq!(faults.unreported(&reserved(&["10.6.0.1"])), None);
        assert!(faults.unreported(&wrong).is_some());
        faults.forget(&wrong);
        assert!(faults.unreported(&wrong).is_some());
    }
}
