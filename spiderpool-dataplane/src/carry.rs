//! Entries of maps that are replaced: of another size, or of another layout whose members' meaning is the same. Established flows go
//! on, and what the agent cannot write at once, because it has to ask the API server, is there.
//!
//! Programs that are attached go on to write the maps that they were loaded with. So replaced maps of flows stay pinned, under
//! other names, until all filters are replaced: the agent may end before that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::libc;
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, LinkFlow, NatEntry, names};

use crate::batch::{EXIST, NO_EXIST};
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

/// How many maps of one name, the latest, may be pinned beside the one in use: agents of changing versions that keep ending leave more.
const MOST_EARLIER: usize = 4;
/// How often an entry is written that the kernel has no memory for at the moment (it refills the memory of maps in the background), or
/// whose bucket is in use.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(1);

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
    /// Copies the entries whose new keys are wanted, where there is none or an older one, as many as fit; `met` gets these keys, and
    /// whether they were copied.
    pub(crate) fn copy_to(
        &self,
        maps: &Maps,
        is_wanted: impl Fn(&[u8]) -> bool,
        mut met: impl FnMut(&[u8], bool),
    ) -> Result<(), MapError> {
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
                if !is_wanted(&new_key) {
                    continue;
                }
                of_value.convert(value, &mut new_value);
                let copied =
                    self.put(to, &new_key, &new_value).map_err(|error| match error.raw_os_error() {
                        Some(libc::E2BIG | libc::ENOSPC) => MapError::Full { map: self.name },
                        _ => failed(error),
                    })?;
                met(&new_key, copied);
            }
        }
        Ok(())
    }

    /// Whether there was no such entry, or one of a flow that was seen longer ago: a copy that the program has not gone on to write.
    fn put(&self, to: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
        match insist(|| sys::update(to, key, value, NO_EXIST)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => return result.map(|()| true),
        }
        let Some(at) = last_seen_at(self.name) else { return Ok(false) };
        let seen = |value: &[u8]| value.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        let Some(current) = sys::lookup(to, key, value.len())? else { return Ok(false) };
        if seen(&current) >= seen(value) {
            return Ok(false);
        }
        match insist(|| sys::update(to, key, value, EXIST)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Where the value of a map of flows says when the flow was seen last, as all versions do.
fn last_seen_at(map: &str) -> Option<usize> {
    match map {
        names::ARRIVALS => Some(offset_of!(ArrivalEntry, last_seen)),
        names::NAT => Some(offset_of!(NatEntry, last_seen)),
        names::LINK_FLOWS => Some(offset_of!(LinkFlow, last_seen)),
        _ => None,
    }
}

/// Does it again where the kernel could not at that moment.
fn insist(mut update: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let is_passing = |error: &io::Error| {
        matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EBUSY | libc::EAGAIN | libc::EINTR))
    };
    for _ in 1..ATTEMPTS {
        match update() {
            Err(error) if is_passing(&error) => thread::sleep(PAUSE),
            result => return result,
        }
    }
    update()
}

/// Behind the name of the map, before the id of the one that is replaced.
const EARLIER: &str = "_earlier_";

/// The replaced maps of flows.
#[derive(Debug, Default)]
pub(crate) struct EarlierFlows {
    /// By the kernel's ids, the latest first.
    maps: BTreeMap<Reverse<u32>, EarlierMap>,
    /// Those whose entries cannot be carried over are pinned too: an agent that is rolled back can.
    pins: Vec<PathBuf>,
}

/// Entries that were copied.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// How many.
    pub(crate) entries: usize,
    /// The pods, by their ids, that have entries in earlier maps, copied now or before.
    pub(crate) pods: BTreeSet<u16>,
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
        let mut pins: BTreeMap<&str, BTreeMap<Reverse<u32>, (PathBuf, OwnedFd)>> = BTreeMap::new();
        for entry in fs::read_dir(pin_dir).map_err(|e| failed(pin_dir, e))? {
            let path = entry.map_err(|e| failed(pin_dir, e))?.path();
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            let of = |name: &&str| file.strip_prefix(*name).is_some_and(|rest| rest.starts_with(EARLIER));
            let Some(name) = FLOWS.into_iter().find(of) else { continue };
            // What cannot be used must not keep the programs from being loaded.
            match pins::open(&path).and_then(|map| map.map(|map| Ok((id_of(&map)?, map))).transpose()) {
                Ok(None) => {}
                Ok(Some((id, map))) => drop(pins.entry(name).or_default().insert(Reverse(id), (path, map))),
                Err(error) => {
                    discarded.push(Discarded { map: name, why: format!("{}: {error}", path.display()) });
                }
            }
        }
        for (name, pins) in FLOWS.into_iter().filter_map(|name| Some((name, pins.remove(name)?))) {
            for (number, (path, map)) in pins.into_values().enumerate() {
                if number < MOST_EARLIER {
                    found.add(name, map, path, maps, discarded)?;
                } else {
                    remove(&path);
                }
            }
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
        let failed = |source| LoadError::Pin { path: path.clone(), source };
        let (id, id_in_use) = (id_of(&fd).map_err(failed)?, sys::map_info(wanted).map_err(failed)?.id);
        match pins::entries(fd.as_fd(), wanted, name) {
            // The agent that pinned it has ended before it replaced it.
            _ if id == id_in_use => {}
            Ok(entries) => drop(self.maps.insert(Reverse(id), EarlierMap { name, fd, entries })),
            Err(why) => discarded.push(Discarded { map: name, why: why.to_string() }),
        }
        self.pins.push(path);
        Ok(())
    }

    /// Copies the flows of the pods that are wanted, by their ids.
    pub(crate) fn copy_to(&self, maps: &Maps, is_wanted: impl Fn(u16) -> bool) -> Carried {
        let mut carried = Carried::default();
        for map in self.maps.values() {
            let count = |key: &[u8], copied: bool| {
                carried.pods.extend(pod_of(key));
                carried.entries += usize::from(copied);
            };
            if let Err(error) = map.copy_to(maps, |key| pod_of(key).is_some_and(&is_wanted), count) {
                carried.error.get_or_insert(error);
            }
        }
        carried
    }

    /// No program writes them any more.
    pub(crate) fn forget(&mut self) {
        self.maps.clear();
        for pin in self.pins.drain(..) {
            remove(&pin);
        }
    }
}

fn remove(pin: &Path) {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, pin = %pin.display(), "pin of a replaced map cannot be removed");
        }
        _ => {}
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
