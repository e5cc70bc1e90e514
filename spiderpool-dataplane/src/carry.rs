//! Entries of maps that are replaced: of another size, or of another layout whose members' meaning is the same. Established flows go
//! on, and what the agent cannot write at once, because it has to ask the API server, is there.
//!
//! Programs that are attached go on to write the maps that they were loaded with. So replaced maps of flows stay pinned, under
//! other names, until all filters are replaced: the agent may end before that.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use spiderpool_ebpf_common::maps::{FlowKey, names};

use crate::batch::NO_EXIST;
use crate::error::{LoadError, MapError};
use crate::layout::EntryConversion;
use crate::maps::Maps;
use crate::pins::{self, Replacements};
use crate::raw::RawWalk;
use crate::sys;

/// Maps that attached programs of an earlier version go on to write until their filters are replaced.
pub(crate) const FLOWS: [&str; 3] = [names::ARRIVALS, names::NAT, names::LINK_FLOWS];
/// Maps that only the agent writes, and not before it is told what.
pub(crate) const DESTINATIONS: [&str; 2] = [names::CLUSTER_CIDRS, names::NODE_DEVICES];

/// A replaced map whose entries cannot be carried over, as those of its kind are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// Its name.
    pub map: &'static str,
    /// What of its layout is in the way.
    pub why: String,
}

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

/// Behind the name of the map, before the id of the one that is replaced.
const EARLIER: &str = "_earlier_";

/// The replaced maps of flows.
#[derive(Debug, Default)]
pub(crate) struct EarlierFlows {
    /// By the kernel's ids, the latest first: its entries are newer.
    maps: BTreeMap<Reverse<u32>, EarlierMap>,
    /// Those whose entries cannot be carried over are pinned too: an agent that is rolled back can.
    pins: Vec<PathBuf>,
}

/// Entries that were copied.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// How many, by the pods' ids.
    pub(crate) pods: BTreeMap<u16, usize>,
    /// What could not be copied; the other maps were.
    pub(crate) error: Option<MapError>,
}

impl EarlierFlows {
    /// Those that an agent has left that ended before all filters were its own.
    pub(crate) fn find(
        pin_dir: &Path,
        maps: &Maps,
        discarded: &mut Vec<Discarded>,
    ) -> Result<Self, LoadError> {
        let failed = |path: &Path, source| LoadError::Pin { path: path.to_owned(), source };
        let mut found = Self::default();
        for entry in fs::read_dir(pin_dir).map_err(|e| failed(pin_dir, e))? {
            let path = entry.map_err(|e| failed(pin_dir, e))?.path();
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            let of = |name: &&str| file.strip_prefix(*name).is_some_and(|rest| rest.starts_with(EARLIER));
            let Some(name) = FLOWS.into_iter().find(of) else { continue };
            let Some(fd) = pins::open(&path).map_err(|e| failed(&path, e))? else { continue };
            found.add(name, fd, path, maps, discarded)?;
        }
        Ok(found)
    }

    /// Takes in a map that is about to be replaced, and pins it.
    pub(crate) fn replace(
        &mut self,
        (name, fd): (&'static str, OwnedFd),
        pin_dir: &Path,
        maps: &Maps,
        pins: &mut Replacements,
        discarded: &mut Vec<Discarded>,
    ) -> Result<(), LoadError> {
        let id = id_of(&fd).map_err(|source| LoadError::Pin { path: pin_dir.join(name), source })?;
        let path = pin_dir.join(format!("{name}{EARLIER}{id}"));
        if self.pins.contains(&path) {
            return Ok(()); // the agent ended just before it replaced it
        }
        pins.put(fd.as_fd(), path.clone())?;
        self.add(name, fd, path, maps, discarded)
    }

    fn add(
        &mut self,
        name: &'static str,
        fd: OwnedFd,
        path: PathBuf,
        maps: &Maps,
        discarded: &mut Vec<Discarded>,
    ) -> Result<(), LoadError> {
        let wanted = maps.fd(name).ok_or(MapError::Missing { map: name })?;
        match pins::entries(fd.as_fd(), wanted, name) {
            Ok(entries) => {
                let id = id_of(&fd).map_err(|source| LoadError::Pin { path: path.clone(), source })?;
                self.maps.insert(Reverse(id), EarlierMap { name, fd, entries });
            }
            Err(why) => discarded.push(Discarded { map: name, why: why.to_string() }),
        }
        self.pins.push(path);
        Ok(())
    }

    /// Copies their flows.
    pub(crate) fn copy_to(&self, maps: &Maps) -> Carried {
        let mut carried = Carried::default();
        for map in self.maps.values() {
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

    /// No program writes them any more.
    pub(crate) fn forget(&mut self) {
        self.maps.clear();
        for pin in self.pins.drain(..) {
            match fs::remove_file(&pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, pin = %pin.display(), "pin of a replaced map cannot be removed");
                }
                _ => {}
            }
        }
    }
}

/// The kernel's id of a map.
fn id_of(map: &OwnedFd) -> io::Result<u32> {
    sys::map_info(map.as_fd()).map(|info| info.id)
}

/// The pod of a [`FlowKey`].
fn pod_of(key: &[u8]) -> Option<u16> {
    key.get(offset_of!(FlowKey, pod)..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}
