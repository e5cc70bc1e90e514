//! The maps `added`, `removed` and `pod_flags`: what each pod has of the flows' maps.

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

    /// Makes `left` what a pod is counted to have, for whom the programs have added `added`.
    pub(crate) fn set_usage(&mut self, pod: u16, added: PodUsage, left: PodUsage) -> Result<(), MapError> {
        let removed = PodUsage {
            link_flows: added.link_flows.wrapping_sub(left.link_flows),
            arrivals: added.arrivals.wrapping_sub(left.arrivals),
            nat: added.nat.wrapping_sub(left.nat),
        };
        let index = u32::from(pod);
        if self.maps.removed.get(&index, 0).map_err(MapError::of(names::REMOVED))? == removed {
            return Ok(());
        }
        self.maps.removed.set(index, removed, 0).map_err(MapError::of(names::REMOVED))
    }

    /// Writes what is to be looked for in a pod's packets. The programs set single flags: only all of them may be set while they
    /// run, and only those of an id that is out of use be cleared.
    pub(crate) fn set_pod_flags(&mut self, pod: u16, flags: PodFlags) -> Result<(), MapError> {
        self.maps.pod_flags.set(u32::from(pod), flags, 0).map_err(MapError::of(names::POD_FLAGS))
    }
}
