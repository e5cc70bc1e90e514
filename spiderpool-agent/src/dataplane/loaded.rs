//! Loaded programs and maps, reconciled with the inventory and the destinations.

mod pins;
mod removal;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use spiderpool_core::dataplane::{PodDevice, PortRange};
use spiderpool_dataplane::{CidrKind, Dataplane, DeviceKind, Discarded, MapError, NicsOrigin};
use spiderpool_net::netns::NetNs;
use tracing::{error, info};

use super::attach;
use super::cidrs::plan_cidrs;
use super::entries::{self, TooManyNics, addresses, entries};
use super::error::DataplaneError;
use super::logs;
use super::metrics::{CounterDeltas, DataplaneMetrics};
use super::profiles::Profiles;
use super::repair::{self, FiltersFound, Reach};
use super::settings::DataplaneSettings;
use crate::destinations::{ClusterCidrs, Destinations};
use crate::pod_network::netns::{self, Presence};
use crate::pod_network::{FoundNic, Inventory, NicRecord, PodRecord, PodState, read_ports};

const fn kind(device: PodDevice) -> DeviceKind {
    match device {
        PodDevice::Veth => DeviceKind::Pods,
        PodDevice::Tunnel => DeviceKind::Tunnel,
    }
}

/// In place of the cluster's CIDRs, for profiles that do not need them.
static NO_CIDRS: ClusterCidrs = ClusterCidrs { service: Vec::new(), pod: Vec::new(), hijack: Vec::new() };

/// Programs and maps of this node.
#[derive(Debug)]
pub(crate) struct Loaded {
    maps: Dataplane,
    profiles: Profiles,
    metrics: DataplaneMetrics,
    deltas: CounterDeltas,
    reach: Reach,
    /// Pods (by id) whose translated flows go on although their CIDRs may not be steered any more; with each, how many sweeps
    /// had begun when that was last so.
    keeping: BTreeMap<u16, u64>,
    /// How many sweeps have begun.
    sweeps: u64,
    sweep: Option<Sweep>,
    /// Ids that are free when the removal that has begun comes to its end.
    removing: Option<Vec<u16>>,
    /// When programs and maps were loaded.
    begun_at: Instant,
    /// Whether pins are missing and cannot be put back, as last said.
    lacks_pins: bool,
    /// Where plugins look for them.
    mount_namespace: Option<PathBuf>,
}

/// A sweep that goes on.
#[derive(Debug)]
enum Sweep {
    /// Flows are expired.
    Flows,
    /// The counters of these NICs are not added up yet.
    Counters(std::vec::IntoIter<u16>),
}

/// How long a pod that cannot be attached may keep the maps that its programs write, since those of this agent were loaded.
const KEEPS_EARLIER_MAPS: Duration = Duration::from_mins(10);

/// Established flows outlive a map that is replaced by one of another size or layout.
fn say_carried(outcome: Result<usize, MapError>) {
    match outcome {
        Ok(0) => {}
        Ok(entries) => info!(entries, "flows of replaced maps carried over"),
        Err(error) => error!(%error, "flows of replaced maps cannot all be carried over"),
    }
}

impl Loaded {
    /// Loads programs and maps, and reads what an earlier agent has left in the maps.
    pub(super) fn load(
        settings: &DataplaneSettings,
        metrics: DataplaneMetrics,
    ) -> Result<(Self, Vec<FoundNic>), DataplaneError> {
        let DataplaneSettings { object, pin_dir, sizes, mount_namespace } = settings;
        let begun = Instant::now();
        let mut maps = Dataplane::load(object, pin_dir, sizes)?;
        let took = begun.elapsed();
        for Discarded { map, why } in maps.discarded() {
            error!(map, why, "entries of a replaced map cannot be carried over");
        }
        say_carried(maps.carry_flows());
        metrics.maps.set_sizes(sizes);
        info!(pins = %pin_dir.display(), replaced = ?maps.replaced(), took_ms = took.as_millis(), "eBPF dataplane loaded");
        let found = maps.nics()?.into_iter();
        let found = found.map(|(id, nic)| FoundNic { id, pod: nic.pod, profile: nic.profile }).collect();
        let profiles = Profiles::found(maps.cidr_profiles()?);
        Ok((
            Self {
                maps,
                profiles,
                metrics,
                deltas: CounterDeltas::default(),
                reach: Reach::default(),
                keeping: BTreeMap::new(),
                sweeps: 0,
                sweep: None,
                removing: None,
                begun_at: begun,
                lacks_pins: false,
                mount_namespace: mount_namespace.clone(),
            },
            found,
        ))
    }

    /// Follows the programs' log, for as long as the process runs: not before the load has succeeded as a whole, because
    /// each attempt would leave a thread behind.
    pub(super) fn follow_logs(&mut self) {
        logs::follow(&mut self.maps);
    }

    /// Where the map with the NICs that were found comes from.
    pub(super) fn nics_origin(&self) -> NicsOrigin {
        self.maps.nics_origin()
    }

    /// The largest NIC id that the maps have room for.
    pub(crate) fn max_id(&self) -> u16 {
        self.maps.max_id()
    }

    /// Refuses a pod that takes more than its share of NIC ids.
    pub(crate) fn check(pod: &PodRecord) -> Result<(), TooManyNics> {
        entries::check(pod)
    }

    /// Writes the entries of a pod's NICs.
    pub(crate) fn put_entries(&mut self, pod: &PodRecord) -> Result<(), DataplaneError> {
        // First: what a NIC's program cannot find is a foreign source.
        for record in &pod.nics {
            self.maps.addresses_set(record.id, pod.id(), &addresses(record))?;
        }
        for (id, mut entry) in entries(pod) {
            // Other CIDRs than before: see `keep_translations`.
            let before = self.maps.nic(id)?.filter(|before| before.pod == entry.pod);
            if before.is_some_and(|before| before.profile != entry.profile) {
                self.keep(entry.pod);
            }
            entry.keeps_translations = u8::from(self.keeping.contains_key(&entry.pod));
            self.maps.nic_put(id, &entry)?;
        }
        Ok(())
    }

    /// Gives the pods that run entries and this agent's programs. One that fails is tried again the next time.
    pub(crate) fn attach_pods(&mut self, inventory: &mut Inventory) {
        let mut attached = BTreeSet::new();
        for mut pod in inventory.pods_in(PodState::Verified) {
            if let Some(ports) = self.ports(&pod) {
                pod.ports = ports;
                inventory.set_ports(&pod.container_id, ports);
            }
            let (container_id, name) = (&pod.container_id, &pod.pod);
            match self.attach_pod(&pod) {
                Ok(state) => {
                    inventory.set_state(container_id, state);
                    attached.extend((state == PodState::Attached).then_some(pod.id()));
                }
                Err(error) => {
                    error!(%error, %container_id, pod = %name, "programs cannot be attached, trying again");
                }
            }
        }
        // Their earlier programs have recorded flows since the maps were loaded.
        say_carried(self.maps.carry_flows_of(&attached));
        let is_waiting = [PodState::Unverified, PodState::Verified]
            .into_iter()
            .any(|state| !inventory.pods_in(state).is_empty());
        if !(is_waiting || inventory.orphaned() > 0) || self.begun_at.elapsed() > KEEPS_EARLIER_MAPS {
            self.maps.forget_earlier_flows();
        }
    }

    /// The pod's `ip_local_port_range`: what an earlier agent has read, until this one looks at the pod, or what is set now.
    fn ports(&self, pod: &PodRecord) -> Option<PortRange> {
        if let Ok(Some(known)) = self.maps.nic(pod.id()) {
            return Some(PortRange { first: known.port_low, last: known.port_high });
        }
        match netns::presence(pod) {
            Ok(Presence::Here(netns)) => read_ports(&netns),
            _ => None,
        }
    }

    fn attach_pod(&mut self, pod: &PodRecord) -> Result<PodState, DataplaneError> {
        let Presence::Here(netns) = netns::presence(pod)? else { return Ok(PodState::Unverified) };
        // An earlier agent's word, or nobody knows.
        let known = self.maps.nic(pod.id())?;
        let is_lost = known.is_none() && self.nics_origin() == NicsOrigin::Replaced;
        if is_lost || known.is_some_and(|entry| entry.keeps_translations != 0) {
            self.keep(pod.id());
        }
        self.put_entries(pod)?;
        attach::attach(&netns, pod, self.maps.programs())?;
        Ok(PodState::Attached)
    }

    /// Attaches what others have detached from a pod's NICs, and looks whether packets reach it.
    pub(crate) fn repair_pod(
        &mut self,
        netns: &NetNs,
        pod: &PodRecord,
    ) -> Result<FiltersFound, DataplaneError> {
        repair::repair(netns, pod, &self.maps, &mut self.reach)
    }

    /// Detaches our filters with the ids of these NICs.
    pub(crate) fn detach(netns: &NetNs, nics: &[NicRecord]) -> Result<(), DataplaneError> {
        repair::detach(netns, nics)
    }

    /// Writes the CIDRs of the profiles that are stale.
    pub(crate) fn write_profiles(
        &mut self,
        inventory: &Inventory,
        destinations: &Destinations,
    ) -> Result<(), DataplaneError> {
        for (profile, key) in inventory.profiles() {
            if self.profiles.is_written(profile, &key) {
                continue;
            }
            // Until a SpiderCoordinator is read, the entries of the agent before stay.
            let without = (!key.needs_cluster()).then_some(&NO_CIDRS);
            let Some(cluster) = destinations.cluster.as_ref().or(without) else { continue };
            self.profiles.begin(profile);
            let nodes = self.node_addresses(profile, destinations)?;
            let cidrs = plan_cidrs(cluster, &nodes, &key);
            if self.maps.steers_less(profile, &cidrs)? {
                self.keep_translations(inventory, profile)?;
            }
            self.maps.cidrs_set(profile, &cidrs)?;
            self.profiles.finish(profile, key);
        }
        Ok(())
    }

    /// A destination is steered no more: flows that are translated already go on, which the programs look for only where they
    /// are told to.
    fn keep_translations(&mut self, inventory: &Inventory, profile: u16) -> Result<(), DataplaneError> {
        for pod in inventory.pods().filter(|pod| pod.profile == profile) {
            if self.keep(pod.id())
                && let Err(error) = self.put_entries(pod)
            {
                self.keeping.remove(&pod.id());
                return Err(error);
            }
            // What came by the node link from there is looked up as what comes from elsewhere.
            self.maps.look_for_all(pod.id())?;
        }
        Ok(())
    }

    /// The pod's translated flows go on; whether that is new.
    fn keep(&mut self, pod: u16) -> bool {
        self.keeping.insert(pod, self.sweeps).is_none()
    }

    /// Pods that have no translated flows any more, as a sweep has found, keep none; but those of which it became so after the
    /// sweep's begin may have been looked at before.
    fn end_keeping(&mut self, inventory: &Inventory, translating: &[u16]) {
        let has_ended =
            |pod: &u16, since: u64| since < self.sweeps && translating.binary_search(pod).is_err();
        let ended: Vec<u16> =
            self.keeping.iter().filter(|(pod, since)| has_ended(pod, **since)).map(|(pod, _)| *pod).collect();
        for id in ended {
            self.keeping.remove(&id);
            let Some(pod) = inventory.pods().find(|pod| pod.id() == id) else { continue };
            if let Err(error) = self.put_entries(pod) {
                error!(%error, container_id = %pod.container_id, pod = %pod.pod, "entries cannot be written");
            }
        }
    }

    /// The node's addresses; until they are listed, those of the agent before.
    fn node_addresses(
        &self,
        profile: u16,
        destinations: &Destinations,
    ) -> Result<Vec<IpAddr>, DataplaneError> {
        if !destinations.nodes.is_empty() {
            return Ok(destinations.nodes.clone());
        }
        let entries = self.maps.cidrs(profile)?.into_iter();
        Ok(entries
            .filter(|(_, _, kind)| matches!(kind, CidrKind::Node | CidrKind::NodeGateway))
            .map(|(net, _, _)| net.addr())
            .collect())
    }

    /// Empties the profiles that no NIC refers to any more; those that an earlier agent has left too.
    pub(crate) fn drop_profiles(&mut self, inventory: &Inventory) -> Result<(), DataplaneError> {
        if inventory.is_lost() {
            return Ok(()); // a pod that nobody knows of may be served by any of them
        }
        for profile in self.profiles.unused(&inventory.profiles_in_use()) {
            self.maps.cidrs_remove_profile(profile)?;
            self.profiles.remove(profile);
        }
        Ok(())
    }

    /// The destinations have changed: writes all profiles anew.
    pub(crate) fn rewrite_profiles(
        &mut self,
        inventory: &Inventory,
        destinations: &Destinations,
    ) -> Result<(), DataplaneError> {
        self.profiles.set_stale();
        self.write_profiles(inventory, destinations)?;
        self.drop_profiles(inventory)
    }

    /// Writes the node's devices by which pods send.
    pub(crate) fn set_devices(&mut self, devices: &BTreeMap<u32, PodDevice>) -> Result<(), DataplaneError> {
        let devices = devices.iter().map(|(index, device)| (*index, kind(*device))).collect();
        Ok(self.maps.devices_set(&devices)?)
    }

    /// Sets the metric of the NICs that the programs serve.
    pub(crate) fn count_nics(&self, inventory: &Inventory) {
        self.metrics.nics.set(i64::try_from(inventory.ids().len()).unwrap_or(i64::MAX));
    }
}
