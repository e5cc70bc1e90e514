//! Events on the agent's Node, which `kubectl describe node` shows.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use spiderpool_core::names::{IfName, NodeName, PodName};
use spiderpool_runtime::kubernetes::{Kubernetes, publish_event};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Events that wait while the API server is slow; further ones are logged only.
const MAX_WAITING: usize = 100;
/// So many addresses are named in one Event.
const MAX_NAMED: usize = 10;

/// What is to be said. Nobody waits for it.
#[derive(Debug, Clone)]
pub struct NodeEvents(Sender<NodeEvent>);

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
    pub fn new() -> (Self, Receiver<NodeEvent>) {
        let (sender, receiver) = channel(MAX_WAITING);
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

    /// A pod's packets by the node link end before our filters, so that it was set down.
    pub(crate) fn node_link_down(&self, host_end: &IfName, pod: &PodName) {
        let note = format!(
            "node link {host_end} of pod {pod} was set down, so that the pod does not pass the network policies of its \
             first NIC: a filter of another program on {host_end} comes before Spiderpool's and ends classification (tc \
             filter show dev {host_end} ingress). Remove that filter, the link is set up again then"
        );
        let related = Some(reference(pod, None));
        self.send(NodeEvent { reason: "NodeLinkDown", action: "Check".to_owned(), note, related });
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

    /// The node cannot load the programs.
    pub(crate) fn fallback(&self, reason: &str) {
        // What follows is the verifier's log.
        let reason = reason.lines().next().unwrap_or_default();
        let note = format!(
            "new pods get dataplane policy (ip rules and routing tables) in place of ebpf, because this node cannot load the \
             eBPF programs: {reason}"
        );
        self.send(NodeEvent {
            reason: "DataplaneFallback",
            action: "LoadPrograms".to_owned(),
            note,
            related: None,
        });
    }

    /// Something keeps Multus from serving the node's pods.
    pub(crate) fn multus(&self, reason: &'static str, note: String) {
        self.send(NodeEvent { reason, action: "Configure".to_owned(), note, related: None });
    }

    /// Addresses of these pods were freed although no DEL has freed them.
    pub(crate) fn freed(&self, addresses: &[(IpAddr, PodName)]) {
        let Some((first, _)) = addresses.first() else { return };
        let list = addresses.iter().take(MAX_NAMED).map(|(ip, pod)| format!("{ip} (Pod {pod})"));
        let list = list.collect::<Vec<_>>().join(", ");
        let more = match addresses.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let note = format!(
            "freed without a DEL of the container runtime, or after one that failed: {list}{more}. Did the runtime or the \
             CNI plugins of this node fail?"
        );
        // Another address makes another Event.
        let action = format!("Free-{first}");
        self.send(NodeEvent { reason: "AddressesFreed", action, note, related: None });
    }

    fn send(&self, event: NodeEvent) {
        if let Err(error) = self.0.try_send(event) {
            let NodeEvent { reason, note, .. } = error.into_inner();
            warn!(reason, note, "Event of the node not written: too many wait");
        }
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
    mut events: Receiver<NodeEvent>,
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
        // An Event that is not answered does not hold up the end.
        let _ended = shutdown.run_until_cancelled(publish_event(&recorder, &event, &regarding)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{Request, Response};
    use kube::Client;
    use kube::client::Body;

    use super::*;

    fn say(events: &NodeEvents) {
        events.nic_gone(&"net1".parse().unwrap(), &PodName::new("ns", "pod").unwrap());
    }

    #[test]
    fn events_that_nobody_writes_are_bounded() {
        let (events, said) = NodeEvents::new();
        (0..=MAX_WAITING).for_each(|_| say(&events));
        assert_eq!(said.len(), MAX_WAITING);
    }

    /// The reconciler stops only after it: the kubelet would kill the agent first.
    #[tokio::test]
    async fn an_api_server_that_does_not_answer_does_not_hold_up_the_end() {
        let (asked, mut requests) = channel(1);
        let hangs = tower::service_fn(move |_: Request<Body>| {
            let _ = asked.try_send(());
            std::future::pending::<Result<Response<Body>, std::io::Error>>()
        });
        let kube = Kubernetes::new(Client::new(hangs, "default"));
        let (events, said) = NodeEvents::new();
        let shutdown = CancellationToken::new();
        let writing = tokio::spawn(write(said, kube, "node".parse().unwrap(), shutdown.clone()));
        say(&events);
        requests.recv().await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), writing).await.unwrap().unwrap();
    }
}
