//! Removes what has expired from the maps `arrivals`, `nat` and `link_flows`, in slices, and sets right what each pod is counted to
//! have.

use std::collections::{BTreeMap, BTreeSet};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use spiderpool_ebpf_common::flow_state;
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, LinkFlow, NatEntry, PodUsage, Tuple, names};

use crate::batch::{Walk, remove_if};
use crate::error::MapError;
use crate::halves::Halves;
use crate::maps::Maps;

/// What [`crate::Dataplane::sweep_until`] found in one map.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Entries that were removed.
    pub removed: usize,
    /// Entries that remain.
    pub left: usize,
    /// Entries that the pod with most of them has.
    pub most: usize,
}

/// What [`crate::Dataplane::sweep_until`] found.
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
fn now() -> Result<u64, MapError> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_err(|e| MapError::System(e.into()))?;
    Ok(time.tv_sec() as u64 * flow_state::SECOND + time.tv_nsec() as u64)
}

/// A sweep that has begun.
#[derive(Debug)]
pub(crate) struct Sweep {
    now: u64,
    found: FlowsExpired,
    stage: Stage,
    /// What the programs had added when the map was begun. Each time before its flows: what is added meanwhile counts twice until
    /// the next sweep, and not never.
    added: Vec<PodUsage>,
    /// Entries of the map that each pod has left.
    left: BTreeMap<u16, u32>,
    /// Pods whose flows were removed meanwhile, by others: what was counted of them is nothing now.
    flushed: BTreeSet<u16>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is removed yet: the other half of a flow may come later, or may have been counted.
    NatCount {
        walk: Walk<FlowKey, NatEntry>,
        halves: Halves,
        has_expired: bool,
    },
    NatRemoval {
        walk: Walk<FlowKey, NatEntry>,
        halves: Halves,
    },
    Arrivals(Walk<FlowKey, ArrivalEntry>),
    LinkFlows(Walk<FlowKey, LinkFlow>),
}

impl Sweep {
    pub(crate) fn new(maps: &Maps) -> Result<Self, MapError> {
        let stage = Stage::NatCount { walk: Walk::new(), halves: Halves::new(), has_expired: false };
        Ok(Self {
            now: now()?,
            found: FlowsExpired::default(),
            stage,
            added: maps.all_added()?,
            left: BTreeMap::new(),
            flushed: BTreeSet::new(),
        })
    }

    /// What was found; of a sweep that has come to its end.
    pub(crate) fn found(self) -> FlowsExpired {
        self.found
    }

    /// Nothing is left of these pods, whose ids may be other pods' soon.
    pub(crate) fn forget(&mut self, pods: &BTreeSet<u16>) {
        self.flushed.extend(pods);
    }

    /// One batch; whether it was the last one.
    pub(crate) fn step(&mut self, maps: &mut Maps) -> Result<bool, MapError> {
        let now = self.now;
        match &mut self.stage {
            Stage::NatCount { walk, halves, has_expired } => {
                if walk.step(&maps.nat).map_err(MapError::of(names::NAT))? {
                    for (key, entry) in walk.entries() {
                        *self.left.entry(key.pod).or_default() += 1;
                        halves.add(key, entry);
                        *has_expired |= is_expired_flow(key, entry, now);
                    }
                } else if *has_expired || halves.differ() {
                    let halves = std::mem::replace(halves, Halves::new());
                    self.stage = Stage::NatRemoval { walk: Walk::new(), halves };
                } else {
                    self.end_nat(maps)?;
                }
            }
            Stage::NatRemoval { walk, halves } => {
                if walk.step(&maps.nat).map_err(MapError::of(names::NAT))? {
                    for (key, entry) in walk.entries() {
                        let removed = remove_from_nat(maps, halves, (key, entry), now)
                            .map_err(MapError::of(names::NAT))?;
                        self.found.nat.removed += removed as usize;
                        if let Some(left) = self.left.get_mut(&key.pod) {
                            *left = left.saturating_sub(removed);
                        }
                    }
                } else {
                    self.end_nat(maps)?;
                }
            }
            Stage::Arrivals(walk) => {
                let is_expired = |key: &FlowKey, entry: &ArrivalEntry| {
                    flow_state::is_expired(key.protocol, entry.state, entry.last_seen, now)
                };
                let removed = &mut self.found.arrivals.removed;
                let goes_on = expire(&mut maps.arrivals, walk, (removed, &mut self.left), is_expired)
                    .map_err(MapError::of(names::ARRIVALS))?;
                if !goes_on {
                    let left = self.end_map(maps, |usage| &mut usage.arrivals)?;
                    self.found.arrivals.sum(&left);
                    self.begin_map(maps, Stage::LinkFlows(Walk::new()))?;
                }
            }
            Stage::LinkFlows(walk) => {
                let is_expired = |key: &FlowKey, flow: &LinkFlow| flow.is_expired(key.protocol, now);
                let removed = &mut self.found.link_flows.removed;
                let goes_on = expire(&mut maps.link_flows, walk, (removed, &mut self.left), is_expired)
                    .map_err(MapError::of(names::LINK_FLOWS))?;
                if !goes_on {
                    let left = self.end_map(maps, |usage| &mut usage.link_flows)?;
                    self.found.link_flows.sum(&left);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn end_nat(&mut self, maps: &mut Maps) -> Result<(), MapError> {
        let left = self.end_map(maps, |usage| &mut usage.nat)?;
        self.found.nat.sum(&left);
        self.found.translating = left.into_keys().collect();
        self.begin_map(maps, Stage::Arrivals(Walk::new()))
    }

    fn begin_map(&mut self, maps: &Maps, stage: Stage) -> Result<(), MapError> {
        self.stage = stage;
        self.added = maps.all_added()?;
        Ok(())
    }

    /// Writes down, and answers, how many entries of a map each pod has left.
    fn end_map(
        &mut self,
        maps: &mut Maps,
        of: impl Fn(&mut PodUsage) -> &mut u32,
    ) -> Result<BTreeMap<u16, u32>, MapError> {
        let mut left = std::mem::take(&mut self.left);
        left.retain(|pod, left| *left > 0 && !self.flushed.contains(pod));
        maps.set_left(&self.added, &left, &self.flushed, of)?;
        Ok(left)
    }
}

impl Expired {
    fn sum(&mut self, left: &BTreeMap<u16, u32>) {
        self.left = left.values().map(|left| *left as usize).sum();
        self.most = left.values().max().map_or(0, |most| *most as usize);
    }
}

/// Of the entry that holds a flow's state.
fn is_expired_flow(key: &FlowKey, entry: &NatEntry, now: u64) -> bool {
    key.is(Tuple::Original) && flow_state::is_expired(key.protocol, entry.state, entry.last_seen, now)
}

/// Removes a flow that has expired, or a half without its other half; how many entries.
fn remove_from_nat(
    maps: &mut Maps,
    halves: &Halves,
    (key, entry): (&FlowKey, &NatEntry),
    now: u64,
) -> Result<u32, aya::maps::MapError> {
    let nat = &mut maps.nat;
    if key.is(Tuple::Original) {
        let is_gone = is_expired_flow(key, entry, now)
            && remove_if(nat, key, |entry: &NatEntry| is_expired_flow(key, entry, now))?;
        if !is_gone {
            return Ok(0);
        }
        let translated = key.counterpart(entry.addr, entry.port);
        // Not one that a packet has made anew meanwhile: what is translated stays so in both directions.
        let is_of_it = |half: &NatEntry| half.leads_to(key) && half.last_seen <= now;
        return Ok(1 + u32::from(remove_if(nat, &translated, is_of_it)?));
    }
    let is_alone = halves.may_be_alone(key, entry) && is_orphan(key, now, |key| nat.get(key, 0).ok());
    Ok(u32::from(is_alone && remove_if(nat, key, |current| current == entry)?))
}

/// Removes the next entries that have expired, and counts; whether there are more.
fn expire<V: Pod>(
    map: &mut HashMap<MapData, FlowKey, V>,
    walk: &mut Walk<FlowKey, V>,
    (removed, left): (&mut usize, &mut BTreeMap<u16, u32>),
    is_expired: impl Fn(&FlowKey, &V) -> bool,
) -> Result<bool, aya::maps::MapError> {
    if !walk.step(map)? {
        return Ok(false);
    }
    for (key, value) in walk.entries() {
        if is_expired(key, value) && remove_if(map, key, |value| is_expired(key, value))? {
            *removed += 1;
        } else {
            *left.entry(key.pod).or_default() += 1;
        }
    }
    Ok(true)
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
