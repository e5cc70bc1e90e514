//! Events on pods, which `kubectl describe pod` shows.

use std::sync::Arc;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use spiderpool_api::pod;
use spiderpool_core::ipam::plan_annotation_warning;
use spiderpool_core::names::{IfName, NodeName};
use spiderpool_runtime::kubernetes::{Kubernetes, publish_event};
use tracing::{Instrument as _, warn};

use super::error::AllocateError;
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
        warn!(%note, "the pod's annotations have unknown keys");
        self.publish(pod, "UnknownAnnotation", note);
    }

    /// Says why a NIC gets no address. The runtime says it too, behind what each plugin on the way has put before it.
    pub(super) fn allocation_failed(&self, pod: &Arc<Pod>, nic: &IfName, error: &AllocateError) {
        self.publish(pod, "IPAllocationFailed", format!("no IP address for NIC {nic}: {error}"));
    }

    fn publish(&self, pod: &Arc<Pod>, reason: &str, note: String) {
        let (recorder, pod) = (self.recorder.clone(), Arc::clone(pod));
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        let publish = async move {
            publish_event(&recorder, &event, &pod::reference(&pod.identity.name, &pod.object_uid)).await;
        };
        tokio::spawn(publish.in_current_span());
    }
}
