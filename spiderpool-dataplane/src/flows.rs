//! The maps `arrivals`, `nat` and `link_flows`: removes the flows of a pod and what has expired.

use std::collections::{BTreeMap, BTreeSet};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use spiderpool_ebpf_common::flow_state;
use spiderpool_ebpf_common::maps::{FlowKey, NatEntry, PodFlags, Tuple, names};

use crate::carry::EarlierFlows;
use crate::error::MapError;
use crate::load::Dataplane;

/// What [`Dataplane::expire`] found in one map.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Entries that were removed.
    pub removed: usize,
    /// Entries that remain.
    pub left: usize,
    /// Entries that the pod with most of them has.
    pub most: usize,
}

/// What [`Dataplane::expire`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FlowsExpired {
    /// In `nat`, where a flow has two entries.
    pub nat: Expired,
    /// In `arrivals`.
    pub arrivals: Expired,
    /// In `link_flows`.
    pub link_flows: Expired,
    /// Pods that have translated flows, by their ids.
    pub translating: Vec<u16>,
}

/// CLOCK_MONOTONIC in ns, which is what `bpf_ktime_get_ns` counts.
pub(crate) fn now() -> Result<u64, MapError> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_err(|e| MapError::System(e.into()))?;
    Ok(time.tv_sec() as u64 * flow_state::SECOND + time.tv_nsec() as u64)
}

impl Dataplane {
    /// Takes over the flows of replaced maps that are not here yet; how many entries. To be called once the maps are
    /// loaded and again when all filters are this version's: until then earlier programs record in their own maps.
    pub fn carry_flows(&mut self) -> Result<usize, MapError> {
        let pods = self.earlier.copy_to(&mut self.maps)?;
        for pod in pods.keys() {
            // Which of them have what would cost more to find out than it costs their packets.
            self.set_pod_flags(*pod, PodFlags::ALL)?;
        }
        Ok(pods.values().sum())
    }

    /// Flows are looked up in all of these maps for the pods that have some: which pods have what is not known where `pod_flags` is
    /// new and they are not.
    pub(crate) fn set_flags_of_kept_flows(&mut self) -> Result<(), MapError> {
        let mut pods = BTreeSet::new();
        pods.extend(self.maps.arrivals.keys().filter_map(Result::ok).map(|key| key.pod));
        pods.extend(self.maps.nat.keys().filter_map(Result::ok).map(|key| key.pod));
        pods.extend(self.maps.link_flows.keys().filter_map(Result::ok).map(|key| key.pod));
        let size = self.maps.pod_flags.len();
        pods.into_iter()
            .filter(|pod| u32::from(*pod) < size)
            .try_for_each(|pod| self.set_pod_flags(pod, PodFlags::ALL))
    }

    /// No program of an earlier version is attached any more.
    pub fn forget_earlier_flows(&mut self) {
        self.earlier = EarlierFlows::default();
    }

    /// Removes all flows of a pod (by its id).
    pub fn pod_flush(&mut self, pod: u16) -> Result<(), MapError> {
        flush(&mut self.maps.arrivals, pod).map_err(MapError::of(names::ARRIVALS))?;
        flush(&mut self.maps.nat, pod).map_err(MapError::of(names::NAT))?;
        flush(&mut self.maps.link_flows, pod).map_err(MapError::of(names::LINK_FLOWS))?;
        if u32::from(pod) < self.maps.added.len() {
            let added = self.added(pod)?;
            self.set_removed(pod, added)?;
            self.set_pod_flags(pod, PodFlags::default())?;
        }
        Ok(())
    }

    /// Removes expired flows and halves of translations whose other half is missing, and sets right what each pod is counted to have.
    ///
    /// The programs ignore such entries anyway; this makes room. To be called every few seconds: who has used up the share
    /// gets no more flows before.
    pub fn expire(&mut self) -> Result<FlowsExpired, MapError> {
        let now = now()?;
        let mut found = FlowsExpired::default();
        let mut removed = self.all_removed()?;
        // Each time before the flows: what is added meanwhile counts twice until the next time, and not never.
        let added = self.all_added()?;
        let nat = self.expire_nat(now, &mut found.nat)?;
        self.set_left(&added, &mut removed, &nat, |usage| &mut usage.nat)?;
        let added = self.all_added()?;
        let arrivals = expire(&mut self.maps.arrivals, &mut found.arrivals, |key, entry| {
            flow_state::is_expired(key.protocol, entry.state, entry.last_seen, now)
        })
        .map_err(MapError::of(names::ARRIVALS))?;
        self.set_left(&added, &mut removed, &arrivals, |usage| &mut usage.arrivals)?;
        let added = self.all_added()?;
        let link_flows = expire(&mut self.maps.link_flows, &mut found.link_flows, |key, flow| {
            flow.is_expired(key.protocol, now)
        })
        .map_err(MapError::of(names::LINK_FLOWS))?;
        self.set_left(&added, &mut removed, &link_flows, |usage| &mut usage.link_flows)?;
        found.translating = nat.keys().copied().collect();
        Ok(found)
    }

    /// Answers how many entries each pod has left.
    fn expire_nat(&mut self, now: u64, found: &mut Expired) -> Result<BTreeMap<u16, u32>, MapError> {
        let all: Vec<(FlowKey, NatEntry)> = self.maps.nat.iter().filter_map(Result::ok).collect();
        let mut left: BTreeMap<u16, u32> = BTreeMap::new();
        for (key, _) in &all {
            *left.entry(key.pod).or_default() += 1;
        }
        for (key, entry) in &all {
            let removed = if key.is(Tuple::Original) {
                let maybe = flow_state::is_expired(key.protocol, entry.state, entry.last_seen, now);
                if maybe { self.expire_pair(key, now)? } else { 0 }
            } else if is_orphan(key, now, |key| self.maps.nat.get(key, 0).ok()) {
                ignore_missing(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
                1
            } else {
                0
            };
            found.removed += removed as usize;
            if let Some(left) = left.get_mut(&key.pod) {
                *left = left.saturating_sub(removed);
            }
        }
        left.retain(|_, left| *left > 0);
        found.sum(&left);
        Ok(left)
    }

    /// How many entries of a flow were removed. Reads the entry again, because a packet may have come since the
    /// listing.
    fn expire_pair(&mut self, key: &FlowKey, now: u64) -> Result<u32, MapError> {
        let Ok(entry) = self.maps.nat.get(key, 0) else { return Ok(0) };
        if !flow_state::is_expired(key.protocol, entry.state, entry.last_seen, now) {
            return Ok(0);
        }
        ignore_missing(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
        let translated = key.counterpart(entry.addr, entry.port);
        if self.maps.nat.get(&translated, 0).is_ok_and(|entry| entry.leads_to(key)) {
            ignore_missing(self.maps.nat.remove(&translated)).map_err(MapError::of(names::NAT))?;
            return Ok(2);
        }
        Ok(1)
    }
}

impl Expired {
    fn sum(&mut self, left: &BTreeMap<u16, u32>) {
        self.left = left.values().map(|left| *left as usize).sum();
        self.most = left.values().max().map_or(0, |most| *most as usize);
    }
}

/// Removes the entries that have expired; answers how many each pod has left. An entry is read again before it is removed,
/// because a packet may have come since the listing.
fn expire<V: Pod>(
    map: &mut HashMap<MapData, FlowKey, V>,
    found: &mut Expired,
    is_expired: impl Fn(&FlowKey, &V) -> bool,
) -> Result<BTreeMap<u16, u32>, aya::maps::MapError> {
    let all: Vec<(FlowKey, V)> = map.iter().filter_map(Result::ok).collect();
    let mut left: BTreeMap<u16, u32> = BTreeMap::new();
    for (key, value) in &all {
        let is_gone = is_expired(key, value)
            && match map.get(key, 0) {
                Ok(value) if is_expired(key, &value) => {
                    ignore_missing(map.remove(key))?;
                    true
                }
                Ok(_) => false,
                Err(_) => true,
            };
        if is_gone {
            found.removed += 1;
        } else {
            *left.entry(key.pod).or_default() += 1;
        }
    }
    found.sum(&left);
    Ok(left)
}

/// Removes all of a pod's entries.
fn flush<V: Pod>(map: &mut HashMap<MapData, FlowKey, V>, pod: u16) -> Result<(), aya::maps::MapError> {
    let keys: Vec<_> = map.keys().filter_map(Result::ok).filter(|key| key.pod == pod).collect();
    keys.iter().try_for_each(|key| ignore_missing(map.remove(key)))
}

/// Whether the entry of a translated tuple has no other half. It is made first, so a young one may just be waiting for
/// the entry of the original tuple; one that went together with it since the listing is none; and one that a new flow
/// has taken over between the two reads is none either, which is why it is read once more at the end.
fn is_orphan(key: &FlowKey, now: u64, mut read: impl FnMut(&FlowKey) -> Option<NatEntry>) -> bool {
    let Some(entry) = read(key) else { return false };
    let original = key.counterpart(entry.addr, entry.port);
    let named = read(&original).is_some_and(|entry| entry.leads_to(key));
    !named && now.saturating_sub(entry.last_seen) > flow_state::SECOND && read(key) == Some(entry)
}

/// Another CPU or the program may have removed the entry first.
pub(crate) fn ignore_missing(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_ebpf_common::addr::Addr;
    use spiderpool_ebpf_common::flow_state::SECOND;
    use spiderpool_ebpf_common::maps::{FlowKey, NatEntry, Tuple};
    use spiderpool_ebpf_common::protocol;

    use super::is_orphan;

    #[test]
    fn a_half_that_a_new_flow_takes_over_meanwhile_is_no_orphan() {
        let key = FlowKey {
            pod: 1,
            protocol: protocol::UDP,
            tuple: Tuple::Translated as u8,
            local_port: 40_000,
            remote_port: 53,
            local: Addr::v4([10, 244, 1, 5]),
            remote: Addr::v4([10, 96, 0, 10]),
        };
        let (now, addr) = (100 * SECOND, Addr::v4([172, 18, 55, 180]));
        let old = NatEntry { last_seen: 0, addr, port: 40_000, state: 0, _pad: [0; 5] };
        assert!(is_orphan(&key, now, |asked| (*asked == key).then_some(old)));
        let new = NatEntry { last_seen: now, ..old };
        let mut reads = [Some(old), None, Some(new)].into_iter();
        assert!(!is_orphan(&key, now, |_| reads.next().flatten()));
        let mut reads = [Some(old), None, None].into_iter();
        assert!(!is_orphan(&key, now, |_| reads.next().flatten()), "gone meanwhile");
    }
}
