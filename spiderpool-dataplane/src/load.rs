//! Loads the programs, keeps the pinned maps that fit, and pins what is new.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::path::Path;
use std::thread;

use aya::programs::{Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use spiderpool_ebpf_common::maps::{PodUsage, names};

use crate::carry::{DESTINATIONS, Discarded, EarlierFlows, EarlierMap, FLOWS};
use crate::error::LoadError;
use crate::flush::Flush;
use crate::logs::Logs;
use crate::maps::Maps;
use crate::memlock;
use crate::pins::{self, KeptPins, Pinned, Replacements};
use crate::programs::{ProgramPair, Programs};
use crate::sweep::Sweep;
use crate::sys;

/// Name of the ring buffer in the object, which aya-log chose.
const RING_IN_OBJECT: &str = "AYA_LOGS";
/// Name of its pin.
const RING_PIN: &str = "events";
/// The maps as named in the object, with the names of their pins.
const PINS: [(&str, &str); 14] = [
    (names::NICS, names::NICS),
    (names::ADDRESSES, names::ADDRESSES),
    (names::CLUSTER_CIDRS, names::CLUSTER_CIDRS),
    (names::ARRIVALS, names::ARRIVALS),
    (names::NAT, names::NAT),
    (names::LINK_FLOWS, names::LINK_FLOWS),
    (names::LINK_FRAGMENTS, names::LINK_FRAGMENTS),
    (names::FRAGMENTS, names::FRAGMENTS),
    (names::ADDED, names::ADDED),
    (names::REMOVED, names::REMOVED),
    (names::POD_FLAGS, names::POD_FLAGS),
    (names::NODE_DEVICES, names::NODE_DEVICES),
    (names::STATS, names::STATS),
    (RING_IN_OBJECT, RING_PIN),
];

/// Entries of `addresses` for each NIC id: one of each family, and a few that others have added.
const ADDRESSES_PER_NIC: u32 = 6;

/// How many entries the maps have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// NIC ids, 0 included; also entries of `stats`.
    pub nics: u32,
    /// Entries of `cluster_cidrs`, all profiles together.
    pub cidrs: u32,
    /// Entries of `arrivals`.
    pub arrivals: u32,
    /// Entries of `nat`; a translated flow needs two.
    pub nat: u32,
    /// Entries of `link_flows`.
    pub link_flows: u32,
    /// How many entries of these three one pod may have.
    pub per_pod: PodUsage,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            nics: 1024,
            cidrs: 16_384,
            arrivals: 65_536,
            nat: 262_144,
            link_flows: 262_144,
            per_pod: PodUsage { link_flows: 32_768, arrivals: 8192, nat: 32_768 },
        }
    }
}

/// A pinned map that did not fit and was replaced by another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced(pub &'static str);

/// Where the map `nics` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicsOrigin {
    /// It was pinned, and fits: it has the entries of every NIC whose programs run.
    Kept,
    /// A pinned one did not fit. Programs that are attached already go on with that one, whose entries are not seen here.
    Replaced,
    /// None was pinned: since the node started no programs have run.
    New,
}

impl NicsOrigin {
    fn of(pinned: &[PinnedMap]) -> Self {
        match pinned.iter().find(|map| map.pin == names::NICS).map(|map| &map.pinned) {
            None | Some(Pinned::Nothing) => Self::New,
            Some(Pinned::Differs { .. }) => Self::Replaced,
            Some(Pinned::Fits) => Self::Kept,
        }
    }
}

/// The loaded programs and their maps. Dropping it leaves pins and attached programs as they are.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) maps: Maps,
    programs: Programs,
    logs: Option<Logs>,
    replaced: Vec<Replaced>,
    discarded: Vec<Discarded>,
    nics_origin: NicsOrigin,
    pub(crate) earlier: EarlierFlows,
    /// Of `cluster_cidrs`; `None` until they are counted.
    pub(crate) cidr_entries: Option<usize>,
    pub(crate) sweep: Option<Sweep>,
    pub(crate) flush: Option<Flush>,
    pins: KeptPins,
}

impl Dataplane {
    /// Loads the object, uses the pinned maps whose type, key, value, sizes, flags and BTF are those of the
    /// object, replaces the others (see [`Self::replaced`]), and pins maps and programs. Flows of replaced maps are taken over by
    /// [`Self::carry_flows`].
    ///
    /// The programs' pins are replaced by a rename, so that a plugin always finds one. Programs that are
    /// attached already go on with their maps until their filters are replaced. If anything fails, what was pinned
    /// before is pinned still, with its entries, and is found as such by the next call.
    pub fn load(object: &Path, pin_dir: &Path, sizes: &Sizes) -> Result<Self, LoadError> {
        let bytes = read(object)?;
        pins::make_dir(pin_dir)?;
        // Not earlier: the loader parses the types of the whole kernel, tens of MiB, whether they are needed or not.
        let loaded = Self::load_bytes(object, &bytes, pin_dir, sizes, EbpfLoader::new().btf(None));
        sys::trim_heap();
        loaded
    }

    /// As [`Self::load`], with a loader whose globals are set: for test runs of the programs.
    #[doc(hidden)]
    pub fn load_with<'a>(
        object: &Path,
        pin_dir: &'a Path,
        sizes: &'a Sizes,
        loader: &mut EbpfLoader<'a>,
    ) -> Result<Self, LoadError> {
        let bytes = read(object)?;
        pins::make_dir(pin_dir)?;
        Self::load_bytes(object, &bytes, pin_dir, sizes, loader)
    }

    fn load_bytes<'a>(
        object: &Path,
        bytes: &[u8],
        pin_dir: &'a Path,
        sizes: &'a Sizes,
        loader: &mut EbpfLoader<'a>,
    ) -> Result<Self, LoadError> {
        set_sizes(loader, sizes);
        loader.override_global(names::SHARE, &sizes.per_pod, true);
        let pinned = compare_pins(loader, object, bytes, pin_dir)?;
        for map in pinned.iter().filter(|map| matches!(map.pinned, Pinned::Fits)) {
            loader.map_pin_path(map.name, pin_dir.join(map.pin));
        }
        let mut ebpf = loader.load(bytes).map_err(|e| load_error(object, e))?;
        let programs = load_programs(&mut ebpf, object)?;
        let kept = kept_pins((&ebpf, object), &programs, pin_dir)?;
        let logs = Logs::take(&mut ebpf);
        let maps = Maps::take(&mut ebpf)?;
        let mut dataplane = Self {
            maps,
            programs,
            logs,
            replaced: Vec::new(),
            discarded: Vec::new(),
            nics_origin: NicsOrigin::of(&pinned),
            earlier: EarlierFlows::default(),
            cidr_entries: None,
            sweep: None,
            flush: None,
            pins: kept,
        };
        if !pinned.iter().any(|map| map.pin == names::POD_FLAGS && matches!(map.pinned, Pinned::Fits)) {
            dataplane.set_flags_of_kept_flows()?;
        }
        // Not earlier: what fails must leave an earlier version with its maps and flows.
        let to_replace = pinned.iter().filter(|map| !matches!(map.pinned, Pinned::Fits));
        let new: BTreeSet<_> = to_replace.map(|map| map.pin).collect();
        let is_new = |pin: &str| !PINS.iter().any(|(_, map)| *map == pin) || new.contains(pin);
        let mut pins = Replacements::default();
        let put = dataplane
            .take_over(pinned, pin_dir, &mut pins)
            .and_then(|()| dataplane.pins.put(&mut pins, is_new));
        if let Err(error) = put {
            pins.roll_back();
            return Err(error);
        }
        Ok(dataplane)
    }

    /// Keeps of the pinned maps that do not fit what has to be carried over, and does so at once where only the agent writes.
    fn take_over(
        &mut self,
        pinned: Vec<PinnedMap>,
        pin_dir: &Path,
        pins: &mut Replacements,
    ) -> Result<(), LoadError> {
        let (maps, discarded) = (&self.maps, &mut self.discarded);
        self.earlier = EarlierFlows::find(pin_dir, maps, discarded)?;
        for PinnedMap { pin, pinned, .. } in pinned {
            let Pinned::Differs { fd, entries } = pinned else { continue };
            tracing::warn!(map = pin, "pinned map does not fit this version and is replaced");
            self.replaced.push(Replaced(pin));
            if FLOWS.contains(&pin) {
                self.earlier.replace((pin, fd), pin_dir, maps, pins, discarded)?;
            } else if DESTINATIONS.contains(&pin) {
                let copied = entries.map_err(|why| why.to_string()).and_then(|entries| {
                    let earlier = EarlierMap { name: pin, fd, entries };
                    earlier.copy_to(maps, |_| true, |_, _| ()).map_err(|error| error.to_string())
                });
                discarded.extend(copied.err().map(|why| Discarded { map: pin, why }));
            }
            // The others are written by the agent before its programs run.
        }
        Ok(())
    }

    /// The programs, to attach them.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// All pins, to be put back. Attached programs need none, plugins do.
    pub const fn pins(&self) -> &KeptPins {
        &self.pins
    }

    /// Pinned maps that did not fit and were replaced: their contents must be written again.
    pub fn replaced(&self) -> &[Replaced] {
        &self.replaced
    }

    /// Those of them whose entries are lost, or some, although they are to be carried over.
    pub fn discarded(&self) -> &[Discarded] {
        &self.discarded
    }

    /// Where the map `nics` comes from.
    pub const fn nics_origin(&self) -> NicsOrigin {
        self.nics_origin
    }

    /// The programs' log; `None` the second time.
    pub const fn take_logs(&mut self) -> Option<Logs> {
        self.logs.take()
    }
}

fn read(object: &Path) -> Result<Vec<u8>, LoadError> {
    fs::read(object).map_err(|source| LoadError::Object { path: object.to_owned(), source })
}

fn set_sizes(loader: &mut EbpfLoader<'_>, sizes: &Sizes) {
    loader
        .map_max_entries(names::NICS, sizes.nics)
        .map_max_entries(names::STATS, sizes.nics)
        .map_max_entries(names::ADDRESSES, sizes.nics.saturating_mul(ADDRESSES_PER_NIC))
        .map_max_entries(names::CLUSTER_CIDRS, sizes.cidrs)
        .map_max_entries(names::ARRIVALS, sizes.arrivals)
        .map_max_entries(names::NAT, sizes.nat)
        .map_max_entries(names::LINK_FLOWS, sizes.link_flows)
        .map_max_entries(names::ADDED, sizes.nics)
        .map_max_entries(names::REMOVED, sizes.nics)
        .map_max_entries(names::POD_FLAGS, sizes.nics)
        .map_max_entries(names::REPORTED, sizes.nics);
}

/// A map of the object, and what is pinned in its place.
struct PinnedMap {
    /// In the object.
    name: &'static str,
    pin: &'static str,
    pinned: Pinned,
}

/// Makes the object's maps once unpinned, only to compare the pinned ones with them: aya takes whatever is pinned.
fn compare_pins(
    loader: &mut EbpfLoader<'_>,
    object: &Path,
    bytes: &[u8],
    pin_dir: &Path,
) -> Result<Vec<PinnedMap>, LoadError> {
    if !PINS.iter().any(|(_, pin)| pin_dir.join(pin).exists()) {
        return Ok(PINS.map(|(name, pin)| PinnedMap { name, pin, pinned: Pinned::Nothing }).into());
    }
    let wanted = loader.load(bytes).map_err(|e| load_error(object, e))?;
    let compare = |(name, pin)| {
        let path = pin_dir.join(pin);
        let fd = object_map(&wanted, object, name)?;
        let pinned = pins::compare(&path, fd, pin).map_err(|source| LoadError::Pin { path, source })?;
        Ok(PinnedMap { name, pin, pinned })
    };
    PINS.into_iter().map(compare).collect()
}

/// All that is to be pinned, in this order: maps first, because a plugin attaches the pinned programs, whose maps must be those of
/// the agent; `nics` last of them: if the process ends in between, the next one sees still that it replaces the map.
fn kept_pins(
    (ebpf, object): (&Ebpf, &Path),
    programs: &Programs,
    pin_dir: &Path,
) -> Result<KeptPins, LoadError> {
    let mut kept = KeptPins::default();
    let (last, first): (Vec<_>, Vec<_>) = PINS.into_iter().partition(|(_, pin)| *pin == names::NICS);
    for (name, pin) in first.into_iter().chain(last) {
        kept.add(object_map(ebpf, object, name)?, pin_dir.join(pin))?;
    }
    for (name, fd) in programs.by_name() {
        kept.add(fd, pin_dir.join(name))?;
    }
    Ok(kept)
}

/// The descriptor of one of the object's maps.
fn object_map<'a>(ebpf: &'a Ebpf, object: &Path, name: &'static str) -> Result<BorrowedFd<'a>, LoadError> {
    let fd = ebpf.map(name).and_then(map_fd);
    fd.ok_or_else(|| LoadError::Incomplete { path: object.to_owned(), what: name })
}

fn map_fd(map: &aya::maps::Map) -> Option<BorrowedFd<'_>> {
    use aya::maps::Map;
    match map {
        Map::Array(m)
        | Map::HashMap(m)
        | Map::LruHashMap(m)
        | Map::LpmTrie(m)
        | Map::PerCpuArray(m)
        | Map::RingBuf(m) => Some(m.fd().as_fd()),
        _ => None,
    }
}

/// All programs, two at a time: the kernel verifies those of the pod's NICs for about half a second each.
fn load_programs(ebpf: &mut Ebpf, object: &Path) -> Result<Programs, LoadError> {
    let mut programs: HashMap<_, _> = ebpf.programs_mut().collect();
    let mut take = |name| {
        let missing = || LoadError::Incomplete { path: object.to_owned(), what: name };
        programs.remove(name).map(|program| (program, name)).ok_or_else(missing)
    };
    let egress = [take(names::EGRESS)?, take(names::HOST_EGRESS)?];
    let ingress = [take(names::INGRESS)?, take(names::HOST_INGRESS)?];
    let load = |[nic, host_end]: [(&mut Program, &'static str); 2]| {
        Ok::<_, LoadError>([load_program(nic.0, nic.1)?, load_program(host_end.0, host_end.1)?])
    };
    thread::scope(|scope| {
        let ingress = scope.spawn(move || load(ingress));
        let [egress, host_egress] = load(egress)?;
        let [ingress, host_ingress] = ingress.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        Ok(Programs {
            nic: ProgramPair { egress, ingress },
            host_end: ProgramPair { egress: host_egress, ingress: host_ingress },
        })
    })
}

fn load_program(program: &mut Program, name: &'static str) -> Result<OwnedFd, LoadError> {
    let failed = |source| program_error(name, source);
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    program.load().map_err(failed)?;
    let fd = program.fd().map_err(failed)?;
    fd.as_fd().try_clone_to_owned().map_err(|source| LoadError::Program {
        program: name,
        source: Box::new(ProgramError::IOError(source)),
    })
}

/// The last lines of a verifier log are what says why.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(24)..].join("\n")
}

fn program_error(program: &'static str, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = tail(&verifier_log.to_string());
            if io_error.kind() == io::ErrorKind::PermissionDenied && log.is_empty() {
                memlock::not_permitted("load a program")
            } else {
                LoadError::Verifier { program, source: io_error, log }
            }
        }
        source => LoadError::Program { program, source: Box::new(source) },
    }
}

fn load_error(object: &Path, error: EbpfError) -> LoadError {
    if let EbpfError::MapError(aya::maps::MapError::CreateError { io_error, .. }) = &error
        && io_error.kind() == io::ErrorKind::PermissionDenied
    {
        return memlock::not_permitted("create a map");
    }
    LoadError::Aya { path: object.to_owned(), source: Box::new(error) }
}
