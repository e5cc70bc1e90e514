//! Removes all flows of pods that are gone: one pass over the maps for all of them.

use std::collections::BTreeSet;

use aya::Pod;
use aya::maps::{HashMap, MapData};
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, LinkFlow, NatEntry, names};

use crate::batch::{Walk, remove_all};
use crate::error::MapError;
use crate::maps::Maps;

/// A pass that has begun.
#[derive(Debug)]
pub(crate) struct Flush {
    /// Their ids.
    pods: BTreeSet<u16>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Arrivals(Walk<FlowKey, ArrivalEntry>),
    Nat(Walk<FlowKey, NatEntry>),
    LinkFlows(Walk<FlowKey, LinkFlow>),
}

impl Flush {
    pub(crate) fn new(pods: BTreeSet<u16>) -> Self {
        Self { pods, stage: Stage::Arrivals(Walk::new()) }
    }

    /// The ids of the pods.
    pub(crate) const fn pods(&self) -> &BTreeSet<u16> {
        &self.pods
    }

    /// One batch; whether it was the last one.
    pub(crate) fn step(&mut self, maps: &mut Maps) -> Result<bool, MapError> {
        match &mut self.stage {
            Stage::Arrivals(walk) => {
                if !step(&mut maps.arrivals, walk, &self.pods).map_err(MapError::of(names::ARRIVALS))? {
                    self.stage = Stage::Nat(Walk::new());
                }
            }
            Stage::Nat(walk) => {
                if !step(&mut maps.nat, walk, &self.pods).map_err(MapError::of(names::NAT))? {
                    self.stage = Stage::LinkFlows(Walk::new());
                }
            }
            Stage::LinkFlows(walk) => {
                let goes_on = step(&mut maps.link_flows, walk, &self.pods);
                return goes_on.map(|goes_on| !goes_on).map_err(MapError::of(names::LINK_FLOWS));
            }
        }
        Ok(false)
    }
}

/// Whether there are more.
fn step<V: Pod>(
    map: &mut HashMap<MapData, FlowKey, V>,
    walk: &mut Walk<FlowKey, V>,
    pods: &BTreeSet<u16>,
) -> Result<bool, aya::maps::MapError> {
    if !walk.step(map)? {
        return Ok(false);
    }
    let keys: Vec<FlowKey> =
        walk.entries().map(|(key, _)| *key).filter(|key| pods.contains(&key.pod)).collect();
    remove_all(map, &keys)?;
    Ok(true)
}
