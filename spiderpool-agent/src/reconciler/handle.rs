//! The reconciler's thread, and the handle by which requests reach it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spiderpool_api::agent::dataplane::{Attachment, RegisterNics, RegisteredNics};
use spiderpool_core::dataplane::PodDevice;
use spiderpool_core::gc::ValidAttachments;
use spiderpool_core::names::{ContainerId, IfName};
use tokio::sync::{oneshot, watch};

use super::Reconciler;
use super::error::RegistrationError;
use super::reported::Reported;
use crate::dataplane::{DataplaneMetrics, DataplaneSettings, EbpfDataplane};
use crate::destinations::{ClusterCidrs, Update};
use crate::fallback::Fallback;
use crate::host_ends::Change;
use crate::node_events::NodeEvents;
use crate::pod_network::{HostEnds, PodNetworks};

/// How often [`Reconciler::resync`] runs.
const RESYNC_PERIOD: Duration = Duration::from_secs(5);

type Answer<T> = oneshot::Sender<Result<T, RegistrationError>>;

enum Command {
    Register(Box<RegisterNics>, Answer<RegisteredNics>),
    Unregister(Attachment, Answer<()>),
    CollectGarbage(ValidAttachments, Answer<()>),
    /// The destinations in [`Handle::update`] have changed.
    Update,
    /// The devices by which pods send have changed.
    PodDevices(BTreeMap<u32, PodDevice>),
    /// The kernel has reported changes of this pod's host end.
    Check(ContainerId),
    /// The node has lost an address.
    NodeAddressGone(Instant),
    Stop,
}

/// Sends requests to the reconciler. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    /// Only the latest destinations count: carrying them into all pods takes longer than they may last.
    update: Arc<Mutex<Update>>,
    host_ends: watch::Receiver<HostEnds>,
    reported: Reported,
}

impl Handle {
    fn new(commands: Sender<Command>, pods: &PodNetworks) -> Self {
        Self { commands, update: Arc::default(), host_ends: pods.host_ends(), reported: Reported::default() }
    }

    /// Gives a pod's NICs their ids and fills the maps.
    pub async fn register(&self, request: RegisterNics) -> Result<RegisteredNics, RegistrationError> {
        self.request(|answer| Command::Register(Box::new(request), answer)).await
    }

    /// Removes an attachment.
    pub async fn unregister(&self, attachment: Attachment) -> Result<(), RegistrationError> {
        self.request(|answer| Command::Unregister(attachment, answer)).await
    }

    /// Removes the attachments of a network that are not valid any more.
    pub async fn collect_garbage(&self, valid: ValidAttachments) -> Result<(), RegistrationError> {
        self.request(|answer| Command::CollectGarbage(valid, answer)).await
    }

    /// Sets what SpiderCoordinator lists.
    pub fn set_cluster(&self, cidrs: ClusterCidrs) {
        self.update(|update| update.cluster = Some(cidrs));
    }

    /// Sets the node's addresses.
    pub fn set_nodes(&self, addresses: Vec<IpAddr>) {
        self.update(|update| update.nodes = Some(addresses));
    }

    /// Sets the devices by which pods send.
    pub fn set_pod_devices(&self, devices: BTreeMap<u32, PodDevice>) {
        self.send(Command::PodDevices(devices));
    }

    /// Another program may have changed something of the pod with this host end.
    pub fn check(&self, host_end: &IfName, change: Change) {
        let host_ends = self.host_ends.borrow();
        let pod = match change {
            Change::LinkOrRoute => host_ends.pod(host_end),
            Change::Neighbor(address) => host_ends.pod_of_neighbor(host_end, address),
        };
        if let Some(pod) = pod.filter(|pod| self.reported.add(pod)) {
            self.send(Command::Check(pod.clone()));
        }
    }

    /// The node has lost an address, and what the kernel had by it.
    pub fn node_address_gone(&self) {
        self.send(Command::NodeAddressGone(Instant::now()));
    }

    /// Ends the thread. Programs and maps stay.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn update(&self, change: impl FnOnce(&mut Update)) {
        change(&mut self.update.lock().unwrap_or_else(PoisonError::into_inner));
        self.send(Command::Update);
    }

    fn send(&self, command: Command) {
        // The thread ends by `Stop` alone; nobody waits for what is sent after it.
        let _ended = self.commands.send(command);
    }

    async fn request<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, RegistrationError> {
        let (sender, answer) = oneshot::channel();
        self.send(command(sender));
        answer.await.unwrap_or(Err(RegistrationError::Stopped))
    }
}

/// Starts the thread. `fallback` is told whether programs and maps are loaded. The receiver resolves when the thread has
/// tried once to load them, and to take the pods of the state file back into service.
pub fn start(
    state_file: PathBuf,
    settings: DataplaneSettings,
    metrics: DataplaneMetrics,
    fallback: Fallback,
    events: NodeEvents,
) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let (commands, received) = channel();
    let (tried, first_try) = oneshot::channel();
    let pods = PodNetworks::new(state_file);
    let handle = Handle::new(commands, &pods);
    let (update, reported) = (Arc::clone(&handle.update), handle.reported.clone());
    thread::Builder::new().name("reconciler".to_owned()).spawn(move || {
        let ebpf = EbpfDataplane::new(settings, metrics, fallback);
        let mut reconciler = Reconciler::new(pods, ebpf, events, reported);
        reconciler.resync();
        reconciler.finish_removals();
        // The receiver may have been dropped.
        let _dropped = tried.send(());
        let mut resync = Instant::now() + RESYNC_PERIOD;
        loop {
            if Instant::now() >= resync {
                reconciler.resync();
                reconciler.begin_sweep(Instant::now());
                // A burst of pods leaves holes in the heap, some MiB of it: lists, connections, tasks.
                spiderpool_dataplane::trim_heap();
                resync = Instant::now() + RESYNC_PERIOD;
            }
            let (now, is_busy) = (Instant::now(), reconciler.is_busy());
            let next = reconciler.check_due(now).map_or(resync, |due| due.min(resync));
            let wait = if is_busy { Duration::ZERO } else { next.saturating_duration_since(now) };
            match received.recv_timeout(wait) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return reconciler.finish_removals();
                }
                Ok(command) => handle_command(&mut reconciler, &update, command),
                // Whoever waits for an answer comes first, then one pod.
                Err(RecvTimeoutError::Timeout) if !is_busy => reconciler.check_next(Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            reconciler.go_on();
        }
    })?;
    Ok((handle, first_try))
}

fn handle_command(reconciler: &mut Reconciler, update: &Mutex<Update>, command: Command) {
    match command {
        // The request may have been dropped; what was done stays done.
        Command::Register(request, answer) => drop(answer.send(reconciler.register(&request))),
        Command::Unregister(attachment, answer) => {
            let result = reconciler.unregister(&attachment);
            reconciler.answer(result, answer);
        }
        Command::CollectGarbage(valid, answer) => {
            let result = reconciler.collect_garbage(&valid);
            reconciler.answer(result, answer);
        }
        Command::Update => {
            let update = std::mem::take(&mut *update.lock().unwrap_or_else(PoisonError::into_inner));
            reconciler.update(update);
        }
        Command::PodDevices(devices) => reconciler.set_pod_devices(devices),
        Command::NodeAddressGone(when) => reconciler.node_address_gone(when),
        Command::Check(pod) => reconciler.check(pod, Instant::now()),
        Command::Stop => {}
    }
}

#[cfg(test)]
mod tests;
