//! The maps `arrivals`, `nat` and `link_flows`. What has expired leaves them by `sweep`, a pod's flows by `flush`.

use std::collections::BTreeSet;
use std::time::Instant;

use aya::Pod;
use aya::maps::{HashMap, MapData};
use spiderpool_ebpf_common::maps::{FlowKey, NatEntry, PodFlags, Tuple, names};

use crate::batch::Walk;
use crate::carry::Carried;
use crate::error::{MapError, ignore_missing};
use crate::flush::Flush;
use crate::load::Dataplane;
use crate::sweep::{FlowsExpired, Sweep};

impl Dataplane {
    /// Takes over the flows of replaced maps that are not here yet, or older here, as many as fit; how many entries. To be called once
    /// the maps are loaded.
    pub fn carry_flows(&mut self) -> Result<usize, MapError> {
        self.carry(|_| true)
    }

    /// The same for pods (by their ids) whose filters have just been replaced: until then earlier programs record in their own maps.
    /// Once for each: what ends afterwards is never removed from the earlier map.
    pub fn carry_flows_of(&mut self, pods: &BTreeSet<u16>) -> Result<usize, MapError> {
        if pods.is_empty() { Ok(0) } else { self.carry(|pod| pods.contains(&pod)) }
    }

    fn carry(&mut self, is_wanted: impl Fn(u16) -> bool) -> Result<usize, MapError> {
        let Carried { entries, pods, error } = self.earlier.copy_to(&self.maps, is_wanted);
        // Which of them have what would cost more to find out than it costs their packets.
        self.look_for_all_of(pods.into_iter())?;
        if let Some(MapError::Full { map: names::NAT }) = error {
            self.remove_lone_originals()?;
        }
        error.map_or(Ok(entries), Err)
    }

    /// A translation whose other half did not fit: without it answers would reach nobody as long as packets go on.
    fn remove_lone_originals(&mut self) -> Result<(), MapError> {
        let nat = &mut self.maps.nat;
        let (mut walk, mut lone) = (Walk::<FlowKey, NatEntry>::new(), Vec::new());
        while walk.step(nat).map_err(MapError::of(names::NAT))? {
            let originals = walk.entries().filter(|(key, _)| key.is(Tuple::Original));
            // The programs make the translated one first.
            let is_lone = |(key, entry): &(&FlowKey, &NatEntry)| {
                nat.get(&key.counterpart(entry.addr, entry.port), 0).is_err()
            };
            lone.extend(originals.filter(is_lone).map(|(key, _)| *key));
        }
        lone.iter().try_for_each(|key| ignore_missing(nat.remove(key))).map_err(MapError::of(names::NAT))
    }

    /// Flows are looked up in all of these maps for the pods that have some: which pods have what is not known where `pod_flags` is
    /// new and they are not.
    pub(crate) fn set_flags_of_kept_flows(&mut self) -> Result<(), MapError> {
        let mut pods = BTreeSet::new();
        add_pods(&self.maps.arrivals, &mut pods).map_err(MapError::of(names::ARRIVALS))?;
        add_pods(&self.maps.nat, &mut pods).map_err(MapError::of(names::NAT))?;
        add_pods(&self.maps.link_flows, &mut pods).map_err(MapError::of(names::LINK_FLOWS))?;
        self.look_for_all_of(pods.into_iter())
    }

    /// Of the pods whose ids fit.
    fn look_for_all_of(&mut self, mut pods: impl Iterator<Item = u16>) -> Result<(), MapError> {
        let size = self.maps.pod_flags.len();
        pods.try_for_each(|pod| if u32::from(pod) < size { self.look_for_all(pod) } else { Ok(()) })
    }

    /// No program of an earlier version is attached any more.
    pub fn forget_earlier_flows(&mut self) {
        self.earlier.forget();
    }

    /// All flows of these pods (by their ids), which are gone, are to be removed: see [`Self::flush_until`]. What has begun before
    /// and not ended is given up.
    pub fn begin_flush(&mut self, pods: BTreeSet<u16>) {
        self.flush = Some(Flush::new(pods));
    }

    /// Goes on with what [`Self::begin_flush`] has begun, until then or a little longer; whether nothing is left to do.
    pub fn flush_until(&mut self, until: Instant) -> Result<bool, MapError> {
        let Some(mut flush) = self.flush.take() else { return Ok(true) };
        while !flush.step(&mut self.maps)? {
            if Instant::now() >= until {
                self.flush = Some(flush);
                return Ok(false);
            }
        }
        let size = self.maps.added.len();
        for pod in flush.pods().iter().filter(|pod| u32::from(**pod) < size) {
            let added = self.maps.added(*pod)?;
            self.maps.set_removed(*pod, added)?;
            self.set_pod_flags(*pod, PodFlags::default())?;
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.forget(flush.pods());
        }
        Ok(true)
    }

    /// Removes all flows of a pod (by its id) at once.
    pub fn pod_flush(&mut self, pod: u16) -> Result<(), MapError> {
        self.begin_flush([pod].into());
        while !self.flush_until(Instant::now())? {}
        Ok(())
    }

    /// Begins a sweep, unless one goes on: see [`Self::sweep_until`].
    ///
    /// The programs ignore what has expired anyway; this makes room. To be begun every few seconds: who has used up the share gets no
    /// more flows before.
    pub fn begin_sweep(&mut self) -> Result<(), MapError> {
        if self.sweep.is_none() {
            self.sweep = Some(Sweep::new(&self.maps)?);
        }
        Ok(())
    }

    /// Goes on with a sweep until then, or a little longer: removes expired flows and halves of translations whose other half is
    /// missing, and sets right what each pod is counted to have. Answers what was found when it has come to its end.
    pub fn sweep_until(&mut self, until: Instant) -> Result<Option<FlowsExpired>, MapError> {
        let Some(mut sweep) = self.sweep.take() else { return Ok(None) };
        while !sweep.step(&mut self.maps)? {
            if Instant::now() >= until {
                self.sweep = Some(sweep);
                return Ok(None);
            }
        }
        Ok(Some(sweep.found()))
    }

    /// Whether a sweep has begun and not ended.
    pub const fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// A whole sweep at once.
    pub fn expire(&mut self) -> Result<FlowsExpired, MapError> {
        self.begin_sweep()?;
        loop {
            if let Some(found) = self.sweep_until(Instant::now())? {
                return Ok(found);
            }
        }
    }
}

/// Adds the pods that have entries.
fn add_pods<V: Pod>(
    map: &HashMap<MapData, FlowKey, V>,
    pods: &mut BTreeSet<u16>,
) -> Result<(), aya::maps::MapError> {
    let mut walk = Walk::new();
    while walk.step(map)? {
        pods.extend(walk.entries().map(|(key, _)| key.pod));
    }
    Ok(())
}
