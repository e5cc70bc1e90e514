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

    /// Makes `left` what each pod is counted to have of one map, for which the programs have added `added`.
    pub(crate) fn set_left(
        &mut self,
        added: &[PodUsage],
        left: &BTreeMap<u16, u32>,
        of: impl Fn(&mut PodUsage) -> &mut u32,
    ) -> Result<(), MapError> {
        for (pod, mut added) in (0..).zip(added.iter().copied()) {
            let left = left.get(&pod).copied().unwrap_or(0);
            let mut removed = self.removed(pod)?;
            *of(&mut removed) = of(&mut added).wrapping_sub(left);
            self.set_removed(pod, removed)?;
        }
        Ok(())
    }

    fn removed(&self, pod: u16) -> Result<PodUsage, MapError> {
        self.maps.removed.get(&u32::from(pod), 0).map_err(MapError::of(names::REMOVED))
    }

    /// Writes what the agent has removed of a pod, if it is something else.
    pub(crate) fn set_removed(&mut self, pod: u16, removed: PodUsage) -> Result<(), MapError> {
        if self.removed(pod)? == removed {
            return Ok(());
        }
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
