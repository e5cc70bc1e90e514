//! The maps `added`, `removed` and `pod_flags`: what each pod has of the flows' maps.

use std::collections::{BTreeMap, BTreeSet};

use spiderpool_ebpf_common::maps::{PodFlags, PodUsage, names};

use crate::batch::elements;
use crate::error::MapError;
use crate::load::Dataplane;
use crate::maps::Maps;

impl Maps {
    /// What the programs have added for each pod, by its id.
    pub(crate) fn all_added(&self) -> Result<Vec<PodUsage>, MapError> {
        elements(&self.added).map_err(MapError::of(names::ADDED))
    }

    /// The same of one pod.
    pub(crate) fn added(&self, pod: u16) -> Result<PodUsage, MapError> {
        self.added.get(&u32::from(pod), 0).map_err(MapError::of(names::ADDED))
    }

    /// Makes `left` what each pod but `except` is counted to have of one map, for which the programs have added `added`.
    pub(crate) fn set_left(
        &mut self,
        added: &[PodUsage],
        left: &BTreeMap<u16, u32>,
        except: &BTreeSet<u16>,
        of: impl Fn(&mut PodUsage) -> &mut u32,
    ) -> Result<(), MapError> {
        // Nobody else writes it.
        let removed = elements(&self.removed).map_err(MapError::of(names::REMOVED))?;
        for ((pod, mut added), mut removed) in (0..).zip(added.iter().copied()).zip(removed) {
            let now = of(&mut added).wrapping_sub(left.get(&pod).copied().unwrap_or(0));
            if *of(&mut removed) != now && !except.contains(&pod) {
                *of(&mut removed) = now;
                self.set_removed(pod, removed)?;
            }
        }
        Ok(())
    }

    /// Writes what the agent has removed of a pod.
    pub(crate) fn set_removed(&mut self, pod: u16, removed: PodUsage) -> Result<(), MapError> {
        self.removed.set(u32::from(pod), removed, 0).map_err(MapError::of(names::REMOVED))
    }
}

impl Dataplane {
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
