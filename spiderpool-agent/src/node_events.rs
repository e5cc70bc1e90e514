//! Events on the agent's Node, which `kubectl describe node` shows.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use spiderpool_core::names::{IfName, NodeName, PodName};
use spiderpool_runtime::kubernetes::Kubernetes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What is to be said. Nobody waits for it.
#[derive(Debug, Clone)]
pub struct NodeEvents(UnboundedSender<NodeEvent>);

/// One Event. Those that are equal in all but the note count as one that repeats.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEvent {
    reason: &'static str,
    action: String,
    note: String,
    related: Option<ObjectReference>,
}

impl NodeEvents {
    /// The receiver is for [`write`].
    pub fn new() -> (Self, UnboundedReceiver<NodeEvent>) {
        let (sender, receiver) = unbounded_channel();
        (Self(sender), receiver)
    }

    /// Other programs go on to remove something of pods.
    pub(crate) fn restored(&self, kind: &str, times: usize, pod: &PodName) {
        let advice = match kind {
            "filter" => "Another agent detaches tc filters that are not its own",
            _ => "Keep network managers off devices whose names begin with sp",
        };
        let note = format!(
            "{times} times in 10 minutes another program has removed or replaced what pods need ({kind}), last of pod \
             {pod}; it was restored. {advice}"
        );
        let action = format!("Restore-{kind}");
        self.send(NodeEvent { reason: "PodNetworkRestored", action, note, related: None });
    }

    /// Packets of a NIC end before our filters.
    pub(crate) fn starved(&self, nic: &IfName, pod: &PodName) {
        let note = format!(
            "packets of {nic} of pod {pod} do not reach Spiderpool's filters: a filter of another program comes first \
             and ends classification (tc filter show dev {nic} in the pod's network namespace)"
        );
        self.send(NodeEvent::of_nic("FilterStarved", note, nic, pod));
    }

    /// A registered NIC is not there any more.
    pub(crate) fn nic_gone(&self, nic: &IfName, pod: &PodName) {
        let note =
            format!("{nic} of pod {pod} is gone while the pod runs: delete the pod to have it made again");
        self.send(NodeEvent::of_nic("PodNICGone", note, nic, pod));
    }

    /// Looks at the pod cost too much.
    pub(crate) fn too_large(&self, pod: &PodName) {
        let note = format!(
            "pod {pod} has too many routes, addresses or tc filters to be looked at often: what other programs take \
             from its network is restored late or not at all"
        );
        let related = Some(reference(pod, None));
        self.send(NodeEvent { reason: "PodNetworkTooLarge", action: "Check".to_owned(), note, related });
    }

    fn send(&self, event: NodeEvent) {
        // The receiver ends with the process.
        let _ended = self.0.send(event);
    }
}

impl NodeEvent {
    fn of_nic(reason: &'static str, note: String, nic: &IfName, pod: &PodName) -> Self {
        Self { reason, action: "Check".to_owned(), note, related: Some(reference(pod, Some(nic))) }
    }
}

fn reference(pod: &PodName, nic: Option<&IfName>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        field_path: nic.map(ToString::to_string),
        ..ObjectReference::default()
    }
}

/// Writes the Events until the shutdown.
pub async fn write(
    mut events: UnboundedReceiver<NodeEvent>,
    kube: Kubernetes,
    node: NodeName,
    shutdown: CancellationToken,
) {
    let reporter = Reporter { controller: "spiderpool-agent".to_owned(), instance: Some(node.to_string()) };
    let recorder = Recorder::new(kube.client(), reporter);
    // As the kubelet names its node.
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_string()),
        uid: Some(node.to_string()),
        ..ObjectReference::default()
    };
    while let Some(Some(NodeEvent { reason, action, note, related })) =
        shutdown.run_until_cancelled(events.recv()).await
    {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action,
            secondary: related,
        };
        if let Err(error) = recorder.publish(&event, &regarding).await {
            warn!(%error, "Event not written");
        }
    }
}
