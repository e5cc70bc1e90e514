//! Entries of maps that are replaced: of another size, or of another layout whose members' meaning is the same. Established flows go
//! on, and what the agent cannot write at once, because it has to ask the API server, is there.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::libc;
use spiderpool_ebpf_common::maps::{FlowKey, names};

use crate::batch::NO_EXIST;
use crate::error::MapError;
use crate::layout::EntryConversion;
use crate::maps::Maps;
use crate::raw::RawWalk;
use crate::sys;

/// Maps that attached programs of an earlier version go on to write until their filters are replaced.
pub(crate) const FLOWS: [&str; 3] = [names::ARRIVALS, names::NAT, names::LINK_FLOWS];
/// Maps that only the agent writes, and not before it is told what.
pub(crate) const DESTINATIONS: [&str; 2] = [names::CLUSTER_CIDRS, names::NODE_DEVICES];

/// A map that was pinned, and how its entries become those of the map in its place.
#[derive(Debug)]
pub(crate) struct EarlierMap {
    pub(crate) name: &'static str,
    pub(crate) fd: OwnedFd,
    pub(crate) entries: EntryConversion,
}

impl EarlierMap {
    /// Copies what `to` lacks, as much as fits; `added` gets the new keys.
    pub(crate) fn copy_to(&self, maps: &Maps, mut added: impl FnMut(&[u8])) -> Result<(), MapError> {
        let failed = |error| MapError::of(self.name)(aya::maps::MapError::IoError(error));
        let to = maps.fd(self.name).ok_or(MapError::Missing { map: self.name })?;
        let EntryConversion { key: of_key, value: of_value } = &self.entries;
        let mut walk = RawWalk::new(of_key.old_size(), of_value.old_size());
        let (mut new_key, mut new_value) = (vec![0; of_key.new_size()], vec![0; of_value.new_size()]);
        while walk.step(self.fd.as_fd()).map_err(failed)? {
            for (key, value) in walk.entries() {
                // Another entry for whoever knows what is left out: not this one.
                if of_key.drops_any(key) {
                    continue;
                }
                of_key.convert(key, &mut new_key);
                of_value.convert(value, &mut new_value);
                if self.insert(to, &new_key, &new_value)? {
                    added(&new_key);
                }
            }
        }
        Ok(())
    }

    /// Whether there was no such entry.
    fn insert(&self, to: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<bool, MapError> {
        // What the new programs have recorded is newer.
        match sys::update(to, key, value, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EEXIST) => Ok(false),
                Some(libc::E2BIG | libc::ENOSPC) => Err(MapError::Full { map: self.name }),
                _ => Err(MapError::of(self.name)(aya::maps::MapError::IoError(error))),
            },
        }
    }
}

/// Entries that were copied.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// How many, by the pods' ids.
    pub(crate) pods: BTreeMap<u16, usize>,
    /// What could not be copied; the other maps were.
    pub(crate) error: Option<MapError>,
}

/// Copies flows.
pub(crate) fn copy_flows(earlier: &[EarlierMap], maps: &Maps) -> Carried {
    let mut carried = Carried::default();
    for map in earlier {
        let count = |key: &[u8]| {
            if let Some(pod) = pod_of(key) {
                *carried.pods.entry(pod).or_default() += 1;
            }
        };
        if let Err(error) = map.copy_to(maps, count) {
            carried.error.get_or_insert(error);
        }
    }
    carried
}

/// The pod of a [`FlowKey`].
fn pod_of(key: &[u8]) -> Option<u16> {
    key.get(offset_of!(FlowKey, pod)..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}
