//! Events on pods, which `kubectl describe pod` shows.

use std::sync::Arc;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use spiderpool_api::pod;
use spiderpool_core::ipam::plan_annotation_warning;
use spiderpool_core::names::NodeName;
use spiderpool_runtime::kubernetes::{Kubernetes, publish_event};
use tracing::{Instrument as _, warn};

use crate::watches::Pod;

/// Writes them. An Event that repeats is counted, not written again.
pub(super) struct PodEvents {
    recorder: Recorder,
}

impl PodEvents {
    /// By this connection, as the agent of `node`.
    pub(super) fn new(kube: &Kubernetes, node: &NodeName) -> Self {
        let reporter =
            Reporter { controller: "spiderpool-agent".to_owned(), instance: Some(node.to_string()) };
        Self { recorder: Recorder::new(kube.client(), reporter) }
    }

    /// Names annotations of the pod that nobody knows. Nobody waits for it.
    pub(super) fn name_unknown_annotations(&self, pod: &Arc<Pod>) {
        let Some(note) = plan_annotation_warning(&pod.annotations) else { return };
        let (recorder, pod) = (self.recorder.clone(), Arc::clone(pod));
        let publish = async move {
            warn!(%note, "the pod's annotations have unknown keys");
            let event = Event {
                type_: EventType::Warning,
                reason: "UnknownAnnotation".to_owned(),
                note: Some(note),
                action: "Allocate".to_owned(),
                secondary: None,
            };
            publish_event(&recorder, &event, &pod::reference(&pod.identity.name, &pod.object_uid)).await;
        };
        tokio::spawn(publish.in_current_span());
    }
}
