//! Events on pods, which `kubectl describe pod` shows.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use spiderpool_api::pod;
use spiderpool_core::ipam::{Conflict, plan_annotation_warning};
use spiderpool_core::names::{IfName, NodeName, PodName, PodUid};
use spiderpool_runtime::kubernetes::{Kubernetes, publish_event};
use tokio::sync::Semaphore;
use tracing::{Instrument as _, debug, warn};

use super::error::AllocateError;
use crate::watches::Pod;

/// An Event that says the same of the same pod is not written again sooner: kubelets repeat an ADD every few seconds.
const REPEAT: Duration = Duration::from_mins(1);
/// So many are remembered for that.
const REMEMBERED: usize = 1024;
/// Written at the same time, beside the addresses; further ones are logged only.
const WRITERS: usize = 4;

/// Writes them.
pub(super) struct PodEvents {
    recorder: Recorder,
    writers: Arc<Semaphore>,
    /// When what was said of which pod, as a hash.
    said: Mutex<HashMap<(PodUid, u64), Instant>>,
}

impl PodEvents {
    /// By this connection, as the agent of `node`.
    pub(super) fn new(kube: &Kubernetes, node: &NodeName) -> Self {
        let reporter =
            Reporter { controller: "spiderpool-agent".to_owned(), instance: Some(node.to_string()) };
        let recorder = Recorder::new(kube.client(), reporter);
        Self { recorder, writers: Arc::new(Semaphore::new(WRITERS)), said: Mutex::default() }
    }

    /// Names annotations of the pod that nobody knows. Nobody waits for it.
    pub(super) fn name_unknown_annotations(&self, pod: &Arc<Pod>) {
        if let Some(note) = plan_annotation_warning(&pod.annotations) {
            warn!(%note, "the pod's annotations have unknown keys");
            self.publish(pod, "UnknownAnnotation", note);
        }
    }

    /// Says why a NIC gets no address. The runtime says it too, behind what each plugin on the way has put before it.
    pub(super) fn allocation_failed(&self, pod: &Arc<Pod>, nic: &IfName, error: &AllocateError) {
        self.publish(pod, "IPAllocationFailed", format!("no IP address for NIC {nic}: {}", error.causes()));
    }

    /// Says that the pod gets another address, and who has the one before.
    pub(super) fn address_conflict(&self, pod: &Arc<Pod>, conflict: &Conflict, quarantine: Duration) {
        let Conflict { address, by, nic, pool } = conflict;
        let note = format!(
            "IP address {address} of IPPool {pool} is in use by {by} on the network of NIC {nic}: nobody gets it for {} s, and \
             the Pod gets another one. Take it out of the IPPool (spec.excludeIPs), or stop that machine from using it",
            quarantine.as_secs()
        );
        self.publish(pod, "AddressQuarantined", note);
    }

    /// Says that two pods use one address.
    pub(super) fn address_lost(&self, pod: &Arc<Pod>, address: IpNet, other: &PodName) {
        let identity = &pod.identity;
        let note = format!(
            "{address} is used by Pod {identity} and by Pod {other}: the API server has forgotten that the first one has it, \
             and has given it to the second. Delete Pod {identity}, so that it gets another address"
        );
        self.publish(pod, "AddressConflict", note);
    }

    fn publish(&self, pod: &Arc<Pod>, reason: &str, note: String) {
        let mut hasher = DefaultHasher::new();
        note.hash(&mut hasher);
        let hash = hasher.finish();
        if self.is_said(&pod.identity.uid, hash) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.writers).try_acquire_owned() else {
            debug!(note, "Event of the pod not written: too many are under way");
            return;
        };
        let (recorder, pod) = (self.recorder.clone(), Arc::clone(pod));
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            // Events that are equal in all but the note count as one that repeats, with the note of the first.
            action: format!("Allocate-{hash:016x}"),
            secondary: None,
        };
        let publish = async move {
            publish_event(&recorder, &event, &pod::reference(&pod.identity.name, &pod.object_uid)).await;
            drop(permit);
        };
        tokio::spawn(publish.in_current_span());
    }

    /// Whether the same has been said of the pod a moment ago.
    fn is_said(&self, pod: &PodUid, hash: u64) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| at.elapsed() < REPEAT);
        if said.len() >= REMEMBERED {
            said.clear();
        }
        let is_known = said.contains_key(&(pod.clone(), hash));
        if !is_known {
            said.insert((pod.clone(), hash), Instant::now());
        }
        is_known
    }
}
