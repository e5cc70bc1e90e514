//! The map `link_flows`, and what of it each pod has.

use std::collections::BTreeMap;

use spiderpool_ebpf_common::maps::{FlowKey, LinkFlow, PodUsage, names};

use crate::error::MapError;
use crate::flows::{ignore_missing, now};
use crate::load::Dataplane;

/// What [`Dataplane::expire_link_flows`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct LinkFlowsExpired {
    /// Entries that were removed.
    pub removed: usize,
    /// Entries that remain.
    pub left: usize,
    /// Entries that the pod with most of them has.
    pub most: usize,
}

impl Dataplane {
    /// Removes expired flows, and sets right what each pod is counted to have. To be called every few seconds: who has
    /// used up the share gets no more flows before.
    pub fn expire_link_flows(&mut self) -> Result<LinkFlowsExpired, MapError> {
        // Before the flows: what is added meanwhile counts twice until the next time, and not never.
        let added = self.added()?;
        let now = now()?;
        let flows: Vec<(FlowKey, LinkFlow)> = self.maps.link_flows.iter().filter_map(Result::ok).collect();
        let mut result = LinkFlowsExpired::default();
        let mut left: BTreeMap<u16, u32> = BTreeMap::new();
        for (key, flow) in &flows {
            if flow.is_expired(key.protocol, now) && self.expire_link_flow(key, now)? {
                result.removed += 1;
            } else {
                *left.entry(key.pod).or_default() += 1;
            }
        }
        for (pod, added) in (0..).zip(added) {
            let left = left.get(&pod).copied().unwrap_or(0);
            self.set_link_flows_of(pod, added, left)?;
            result.left += left as usize;
            result.most = result.most.max(left as usize);
        }
        Ok(result)
    }

    /// Whether the flow is no more. Reads the entry again, because a packet may have come since the listing.
    fn expire_link_flow(&mut self, key: &FlowKey, now: u64) -> Result<bool, MapError> {
        let Ok(flow) = self.maps.link_flows.get(key, 0) else { return Ok(true) };
        if !flow.is_expired(key.protocol, now) {
            return Ok(false);
        }
        ignore_missing(self.maps.link_flows.remove(key)).map_err(MapError::of(names::LINK_FLOWS))?;
        Ok(true)
    }

    /// Removes all of a pod's flows.
    pub(crate) fn flush_link_flows(&mut self, pod: u16) -> Result<(), MapError> {
        let flows: Vec<_> = self.maps.link_flows.keys().filter_map(Result::ok).collect();
        for key in flows.iter().filter(|key| key.pod == pod) {
            ignore_missing(self.maps.link_flows.remove(key)).map_err(MapError::of(names::LINK_FLOWS))?;
        }
        let added = self.added_of(u32::from(pod))?;
        self.set_link_flows_of(pod, added, 0)
    }

    fn added(&self) -> Result<Vec<u32>, MapError> {
        (0..self.maps.added.len()).map(|pod| self.added_of(pod)).collect()
    }

    fn added_of(&self, pod: u32) -> Result<u32, MapError> {
        Ok(self.maps.added.get(&pod, 0).map_err(MapError::of(names::ADDED))?.link_flows)
    }

    fn set_link_flows_of(&mut self, pod: u16, added: u32, left: u32) -> Result<(), MapError> {
        let link_flows = added.wrapping_sub(left);
        let present = self.maps.removed.get(&u32::from(pod), 0).map_err(MapError::of(names::REMOVED))?;
        if present.link_flows == link_flows {
            return Ok(());
        }
        self.maps
            .removed
            .set(u32::from(pod), PodUsage { link_flows }, 0)
            .map_err(MapError::of(names::REMOVED))
    }
}
