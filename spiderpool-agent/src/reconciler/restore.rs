//! What other programs have removed from running pods, or replaced, is put right, counted, and said when it happens
//! again and again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use spiderpool_core::coordinator::Step;
use spiderpool_core::names::{ContainerId, IfName, PodName};
use tracing::{info, warn};

use super::Reconciler;
use super::checks::Removal;
use crate::dataplane::Loaded;
use crate::pod_network::{PodFound, PodRecord};

/// What a step puts right, as metrics and Events call it.
fn kind(step: &Step) -> &'static str {
    match step {
        Step::AddNodeLink { .. }
        | Step::DeleteNodeLink { .. }
        | Step::SetUp { .. }
        | Step::SetDown { .. }
        | Step::SetMac { .. }
        | Step::SetTxQueueLen { .. }
        | Step::SetSysctl { .. }
        | Step::Interface(_) => "link",
        Step::AddAddress { .. } | Step::DeleteAddress { .. } => "address",
        Step::SetNeighbor { .. } | Step::DeleteNeighbor { .. } => "neighbor",
        Step::AddRoute { .. }
        | Step::ReplaceRoute { .. }
        | Step::RestoreRoute { .. }
        | Step::DeleteRoute { .. }
        | Step::AddRule { .. }
        | Step::DeleteRule { .. }
        | Step::SetReturnMarks(_)
        | Step::DeleteReturnMarks(_) => "route",
    }
}

/// What a look may cost on this thread, the kernel's part included. Usual are a few milliseconds.
const LONGEST_LOOK: Duration = Duration::from_millis(200);

/// Of this thread: a busy node makes no look more expensive.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

impl Reconciler {
    /// All running pods are to be looked at.
    pub(super) fn begin_sweep(&mut self, now: Instant) {
        self.checks.begin_sweep(self.pods.running().cloned(), now);
    }

    /// The kernel has reported changes of this pod's host end.
    pub(super) fn check(&mut self, pod: ContainerId, now: Instant) {
        self.checks.report(pod, now);
    }

    /// When there is a pod to look at.
    pub(super) fn check_due(&self, now: Instant) -> Option<Instant> {
        self.checks.due(now)
    }

    /// Looks at the next pod, if one is due, and puts right what others have changed of it.
    pub(super) fn check_next(&mut self, now: Instant) {
        let Some(container_id) = self.checks.next(now) else { return };
        let before = cpu_time();
        let is_too_large = match self.pods.find(&container_id) {
            Ok(Some(found)) => self.check_pod(&container_id, &found, now),
            Ok(None) => return,
            Err(error) => {
                warn!(%error, %container_id, "pod's network cannot be read");
                error.is_too_large()
            }
        };
        if is_too_large || cpu_time().saturating_sub(before) > LONGEST_LOOK {
            self.leave_out(&container_id, now);
        }
    }

    /// Whether the pod has more in its namespace than may be read.
    fn check_pod(&mut self, container_id: &ContainerId, found: &PodFound, now: Instant) -> bool {
        let removal = self.checks.removal(container_id, &found.without_address, now);
        if removal == Removal::GoesOn {
            return false;
        }
        let pod = &found.pod.pod;
        if removal == Removal::TooLong {
            let nics = &found.without_address;
            warn!(%container_id, %pod, ?nics, "NICs have had none of their addresses for a minute and are still registered: they are left alone, the pod's others are kept right");
        }
        // Filters first: what the node link lets through is theirs to decide.
        let (mut starved, mut is_too_large) = (Vec::new(), false);
        let mut restored: BTreeMap<&'static str, usize> = BTreeMap::new();
        if let Ok(loaded) = self.ebpf.loaded() {
            match loaded.repair_pod(&found.netns, &found.pod) {
                Ok(filters) => {
                    if filters.restored > 0 {
                        restored.insert("filter", filters.restored);
                    }
                    starved = filters.starved;
                    if let Some(host_end) = filters.host_end_down {
                        warn!(%container_id, %pod, %host_end, "node link set down: packets of the pod do not reach our filters, another filter ends classification before them");
                        self.events.node_link_down(&host_end, pod);
                    }
                }
                Err(error) => {
                    is_too_large |= error.is_too_large();
                    warn!(%error, %container_id, %pod, "programs cannot be attached again");
                }
            }
        }
        self.update_ports(found);
        let reconciled = found.restore(&self.destinations);
        is_too_large |= reconciled.is_too_large;
        for step in &reconciled.steps {
            *restored.entry(kind(step)).or_default() += 1;
        }
        let is_by_others = self.checks.found(container_id, restored.is_empty());
        if !restored.is_empty() {
            self.checks.restored(container_id.clone(), now);
        }
        restored.retain(|kind, _| is_by_others && !self.repetition.is_kernels(kind, now));
        self.report_restored(container_id, pod, restored, now);
        self.report_nics(container_id, pod, &found.missing, &starved);
        is_too_large
    }

    /// The programs are told of the ports that the pod's kernel gives away.
    fn update_ports(&mut self, found: &PodFound) {
        let container_id = &found.pod.container_id;
        let Some(ports) = found.ports.filter(|ports| *ports != found.pod.ports) else { return };
        let (Ok(inventory), Ok(loaded)) = (self.pods.inventory(), self.ebpf.loaded()) else { return };
        let Some(pod) = inventory.pod(container_id).cloned() else { return };
        match loaded.put_entries(&PodRecord { ports, ..pod }) {
            Ok(()) => inventory.set_ports(container_id, ports),
            Err(error) => {
                warn!(%error, %container_id, pod = %found.pod.pod, "port range of the pod cannot be written, trying again");
            }
        }
    }

    /// The pod's next look waits, so that it does not take the time of all others.
    fn leave_out(&mut self, container_id: &ContainerId, now: Instant) {
        if !self.checks.leave_out(container_id, now) {
            return;
        }
        let pod = self.pods.inventory().ok().and_then(|i| i.pod(container_id)).map(|pod| pod.pod.clone());
        let Some(pod) = pod else { return };
        warn!(%container_id, %pod, "pod has too many routes, addresses or filters to be looked at often: what others take from it is restored late or not at all");
        self.events.too_large(&pod);
    }

    fn report_restored(
        &mut self,
        container_id: &ContainerId,
        pod: &PodName,
        restored: BTreeMap<&'static str, usize>,
        now: Instant,
    ) {
        for (kind, count) in restored {
            info!(%container_id, %pod, kind, count, "what others had removed or replaced is restored");
            self.ebpf.metrics().restored.get_or_create(&[("kind", kind)]).inc_by(count as u64);
            if let Some(times) = self.repetition.add(kind, now) {
                self.events.restored(kind, times, pod);
            }
        }
    }

    /// The node has lost an address.
    pub(super) fn node_address_gone(&mut self, now: Instant) {
        self.repetition.address_gone(now);
    }

    /// Takes away again what a look may have put back behind the DEL of a NIC, which removes addresses, filters and
    /// routes before it asks for the end of the registration: that look had still found the pod whole.
    pub(super) fn undo_restored(&mut self, before: &PodRecord) {
        let Some((netns, gone)) = self.pods.undo_restored(before) else { return };
        if let Err(error) = Loaded::detach(&netns, &gone) {
            warn!(%error, container_id = %before.container_id, pod = %before.pod, "filters of a NIC that is gone cannot be detached");
        }
    }

    fn report_nics(
        &mut self,
        container_id: &ContainerId,
        pod: &PodName,
        missing: &[IfName],
        starved: &[IfName],
    ) {
        for nic in starved {
            warn!(%container_id, %pod, %nic, "packets do not reach our filters: another filter ends classification before them");
            self.events.starved(nic, pod);
        }
        for nic in self.checks.newly_missing(container_id, missing) {
            warn!(%container_id, %pod, %nic, "registered NIC is gone");
            self.events.nic_gone(&nic, pod);
        }
    }
}
