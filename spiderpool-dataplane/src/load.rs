//! Loads the programs, keeps the pinned maps that fit, and pins what is new.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use spiderpool_ebpf_common::maps::names;

use crate::error::LoadError;
use crate::logs::Logs;
use crate::maps::Maps;
use crate::pins;
use crate::programs::Programs;
use crate::sys;

/// Name of the ring buffer in the object, which aya-log chose.
const RING_IN_OBJECT: &str = "AYA_LOGS";
/// Name of its pin.
const RING_PIN: &str = "events";
/// The maps as named in the object, with the names of their pins.
const PINS: [(&str, &str); 7] = [
    (names::NICS, names::NICS),
    (names::ADDRESSES, names::ADDRESSES),
    (names::CLUSTER_CIDRS, names::CLUSTER_CIDRS),
    (names::ARRIVALS, names::ARRIVALS),
    (names::NAT, names::NAT),
    (names::STATS, names::STATS),
    (RING_IN_OBJECT, RING_PIN),
];

/// Entries of `addresses` for each NIC id.
const ADDRESSES_PER_NIC: u32 = 4;

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
}

impl Default for Sizes {
    fn default() -> Self {
        Self { nics: 1024, cidrs: 16_384, arrivals: 65_536, nat: 65_536 }
    }
}

/// A pinned map that did not fit and was replaced by an empty one.
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

/// The loaded programs and their maps. Dropping it leaves pins and attached programs as they are.
#[derive(Debug)]
pub struct Dataplane {
    pub(crate) maps: Maps,
    programs: Programs,
    logs: Option<Logs>,
    replaced: Vec<Replaced>,
    nics_origin: NicsOrigin,
}

impl Dataplane {
    /// Loads the object, uses the pinned maps whose type, key, value, sizes, flags and BTF are those of the
    /// object, replaces the others by empty ones (see [`Self::replaced`]), and pins maps and programs.
    ///
    /// The programs' pins are replaced by a rename, so that a plugin always finds one. Programs that are
    /// attached already go on with their maps until their filters are replaced.
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
        sizes: &Sizes,
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
        sizes: &Sizes,
        loader: &mut EbpfLoader<'a>,
    ) -> Result<Self, LoadError> {
        set_sizes(loader, sizes);
        let was_pinned = pin_dir.join(names::NICS).exists();
        let replaced = unpin_incompatible(loader, object, bytes, pin_dir)?;
        for (map, pin) in PINS {
            loader.map_pin_path(map, pin_dir.join(pin));
        }
        let mut ebpf = loader.load(bytes).map_err(|e| load_error(object, e))?;
        let egress = load_program(&mut ebpf, object, names::EGRESS)?;
        let ingress = load_program(&mut ebpf, object, names::INGRESS)?;
        pins::replace(egress.as_fd(), &pin_dir.join(names::EGRESS))?;
        pins::replace(ingress.as_fd(), &pin_dir.join(names::INGRESS))?;
        let maps = Maps::take(&mut ebpf)?;
        let logs = Logs::take(&mut ebpf);
        let nics_origin = match was_pinned {
            false => NicsOrigin::New,
            true if replaced.contains(&Replaced(names::NICS)) => NicsOrigin::Replaced,
            true => NicsOrigin::Kept,
        };
        Ok(Self { maps, programs: Programs::new(egress, ingress), logs, replaced, nics_origin })
    }

    /// The programs, to attach them.
    pub const fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Pinned maps that did not fit and were replaced by empty ones: their contents must be written again.
    pub fn replaced(&self) -> &[Replaced] {
        &self.replaced
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
        .map_max_entries(names::NAT, sizes.nat);
}

/// Makes the object's maps once unpinned, only to compare the pinned ones with them (aya takes whatever is
/// pinned), and unpins those that do not fit.
fn unpin_incompatible(
    loader: &mut EbpfLoader<'_>,
    object: &Path,
    bytes: &[u8],
    pin_dir: &Path,
) -> Result<Vec<Replaced>, LoadError> {
    let mut replaced = Vec::new();
    if !PINS.iter().any(|(_, pin)| pin_dir.join(pin).exists()) {
        return Ok(replaced);
    }
    let wanted = loader.load(bytes).map_err(|e| load_error(object, e))?;
    for (name, pin) in PINS {
        let path = pin_dir.join(pin);
        let map = wanted.map(name).ok_or(LoadError::Incomplete { path: object.to_owned(), what: name })?;
        let fits = map_fd(map).map(|fd| pins::is_compatible(&path, fd));
        match fits {
            Some(Ok(None | Some(true))) => {}
            Some(Err(source)) => return Err(LoadError::Pin { path, source }),
            Some(Ok(Some(false))) | None => {
                tracing::warn!(map = pin, "pinned map does not fit this version and is replaced");
                fs::remove_file(&path).map_err(|source| LoadError::Pin { path, source })?;
                replaced.push(Replaced(pin));
            }
        }
    }
    Ok(replaced)
}

fn map_fd(map: &aya::maps::Map) -> Option<std::os::fd::BorrowedFd<'_>> {
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

fn load_program(
    ebpf: &mut Ebpf,
    object: &Path,
    name: &'static str,
) -> Result<std::os::fd::OwnedFd, LoadError> {
    let missing = || LoadError::Incomplete { path: object.to_owned(), what: name };
    let failed = |source| program_error(name, source);
    let program: &mut SchedClassifier =
        ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(failed)?;
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
                LoadError::NotPermitted { what: "load a program" }
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
        return LoadError::NotPermitted { what: "create a map" };
    }
    LoadError::Aya { path: object.to_owned(), source: Box::new(error) }
}
