//! The maps `added`, `removed` and `pod_flags`: what each pod has of the flows' maps.

use std::collections::BTreeMap;

use spiderpool_ebpf_common::maps::{PodFlags, PodUsage, names};

use crate::error::MapError;
use crate::load::Dataplane;

impl Dataplane {
    /// What the programs have added for each pod, by its id.
    pub(crate) fn all_added(&self) -> Result<Vec<PodUsage>, MapError> {
        (0..self.maps.added.len()).map(|pod| self.added_by_index(pod)).collect()
    }

    /// The same of one pod.
    pub(crate) fn added(&self, pod: u16) -> Result<PodUsage, MapError> {
        self.added_by_index(u32::from(pod))
    }

    fn added_by_index(&self, pod: u32) -> Result<PodUsage, MapError> {
        self.maps.added.get(&pod, 0).map_err(MapError::of(names::ADDED))
    }

    /// What the agent has removed of each pod, by its id. Nobody else writes it.
    pub(crate) fn all_removed(&self) -> Result<Vec<PodUsage>, MapError> {
        let removed = |pod| self.maps.removed.get(&pod, 0).map_err(MapError::of(names::REMOVED));
        (0..self.maps.removed.len()).map(removed).collect()
    }

    /// Makes `left` what each pod is counted to have of one map, for which the programs have added `added`; `removed` is what
    /// the map of this name holds.
    pub(crate) fn set_left(
        &mut self,
        added: &[PodUsage],
        removed: &mut [PodUsage],
        left: &BTreeMap<u16, u32>,
        of: impl Fn(&mut PodUsage) -> &mut u32,
    ) -> Result<(), MapError> {
        for ((pod, mut added), removed) in (0..).zip(added.iter().copied()).zip(removed) {
            let now = of(&mut added).wrapping_sub(left.get(&pod).copied().unwrap_or(0));
            if *of(removed) != now {
                *of(removed) = now;
                self.set_removed(pod, *removed)?;
            }
        }
        Ok(())
    }

    /// Writes what the agent has removed of a pod.
    pub(crate) fn set_removed(&mut self, pod: u16, removed: PodUsage) -> Result<(), MapError> {
        self.maps.removed.set(u32::from(pod), removed, 0).map_err(MapError::of(names::REMOVED))
    }

    /// Whatever a pod has is looked for in its packets.
    pub fn look_for_all(&mut self, pod: u16) -> Result<(), MapError> {
        self.set_pod_flags(pod, PodFlags::ALL)
    }

    /// Writes what is to be looked for in a pod's packets. The programs set single flags: only all of them may be set while they
    /// run, and only those of an id that is out of use be cleared.
    pub(crate) fn set_pod_flags(&mut self, pod: u16, flags: PodFlags) -> Result<(), MapError> {
        self.maps.pod_flags.set(u32::from(pod), flags, 0).map_err(MapError::of(names::POD_FLAGS))
    }
}
