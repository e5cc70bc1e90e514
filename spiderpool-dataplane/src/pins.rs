//! Pins on the BPF file system: which can be kept, and how one is replaced without a moment of nothing.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH};
use spiderpool_ebpf_common::maps::OPTIONAL_MEMBERS;

use crate::btf::Btf;
use crate::error::LoadError;
use crate::layout::{Conversion, EntryConversion, Inconvertible, Layout};
use crate::sys;

/// All that must be equal for a pinned map to be used by newly loaded programs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    ty: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    /// Key and value as BTF has them; `None` without BTF (the ring buffer has none).
    layout: Option<(Layout, Layout)>,
}

impl Shape {
    /// How the entries of a map of this shape become those of another one, which is named `name`.
    fn entries_for(&self, to: &Self, name: &str) -> Result<EntryConversion, Inconvertible> {
        let refused = |what: &str, why| Err(Inconvertible { member: format!("{name}{what}"), why });
        let is_hash =
            |shape: &Self| [BPF_MAP_TYPE_HASH as u32, BPF_MAP_TYPE_LRU_HASH as u32].contains(&shape.ty);
        let is_trie = |shape: &Self| shape.ty == BPF_MAP_TYPE_LPM_TRIE as u32;
        if !(is_hash(self) && is_hash(to) || is_trie(self) && is_trie(to)) {
            return refused("", "is another kind of map");
        }
        let conversion = match (&self.layout, &to.layout) {
            (Some((key, value)), Some((to_key, to_value))) => {
                let plan =
                    |from, to, part| Conversion::plan(from, to, &format!("{name}.{part}"), &OPTIONAL_MEMBERS);
                EntryConversion { key: plan(key, to_key, "key")?, value: plan(value, to_value, "value")? }
            }
            (None, None) => EntryConversion {
                key: Conversion::identity(self.key_size as usize),
                value: Conversion::identity(self.value_size as usize),
            },
            _ => return refused("", "has no BTF in one of the maps"),
        };
        let is_of = |conversion: &Conversion, from: u32, to: u32| {
            (conversion.old_size(), conversion.new_size()) == (from as usize, to as usize)
        };
        // Prefix lengths count bits from the key's begin.
        if is_trie(to) && !conversion.key.is_in_place() {
            return refused(".key", "has members at other places in the pinned map");
        }
        if !is_of(&conversion.key, self.key_size, to.key_size)
            || !is_of(&conversion.value, self.value_size, to.value_size)
        {
            return refused("", "has another size than its BTF says");
        }
        Ok(conversion)
    }
}

/// The shape of a map.
pub(crate) fn shape(fd: BorrowedFd<'_>) -> io::Result<Shape> {
    let info = sys::map_info(fd)?;
    let layout = if info.btf_id == 0 || info.btf_value_type_id == 0 {
        None
    } else {
        let blob = sys::btf_blob(info.btf_id)?;
        let layout = |id| Btf::parse(&blob).and_then(|b| b.layout(id));
        let pair = (layout(info.btf_key_type_id), layout(info.btf_value_type_id));
        let (Ok(key), Ok(value)) = pair else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "unreadable BTF"));
        };
        Some((key, value))
    };
    Ok(Shape {
        ty: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
        layout,
    })
}

/// Pins under a temporary name and renames: whoever opens `path` finds the old object or the new one.
fn replace(fd: BorrowedFd<'_>, path: &Path) -> Result<(), LoadError> {
    let failed = |source| LoadError::Pin { path: path.to_owned(), source };
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("_new");
    let fresh = Path::new(&fresh);
    match fs::remove_file(fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    sys::obj_pin(fd, fresh).map_err(failed)?;
    fs::rename(fresh, path).map_err(failed)
}

/// Makes the pin directory; it must be on a BPF file system.
pub(crate) fn make_dir(dir: &Path) -> Result<(), LoadError> {
    let existing = dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let statfs = nix::sys::statfs::statfs(existing)
        .map_err(|e| LoadError::Pin { path: existing.to_owned(), source: e.into() })?;
    if statfs.filesystem_type() != nix::sys::statfs::BPF_FS_MAGIC {
        return Err(LoadError::NotBpffs { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(|source| LoadError::Pin { path: dir.to_owned(), source })
}

/// What is pinned where a map belongs.
#[derive(Debug)]
pub(crate) enum Pinned {
    Nothing,
    /// Newly loaded programs can use it.
    Fits,
    /// A map of another shape, or no map at all.
    Differs {
        fd: OwnedFd,
        /// How its entries become those of the wanted map, or why they cannot.
        entries: Result<EntryConversion, Inconvertible>,
    },
}

/// Compares what is pinned at `path` with the wanted map, which is named `name`.
pub(crate) fn compare(path: &Path, wanted: BorrowedFd<'_>, name: &str) -> io::Result<Pinned> {
    let Some(fd) = open(path)? else { return Ok(Pinned::Nothing) };
    if let (Ok(have), Ok(want)) = (shape(fd.as_fd()), shape(wanted))
        && have == want
    {
        return Ok(Pinned::Fits);
    }
    let entries = entries(fd.as_fd(), wanted, name);
    Ok(Pinned::Differs { fd, entries })
}

/// How the entries of a map become those of the wanted one, which is named `name`.
pub(crate) fn entries(
    map: BorrowedFd<'_>,
    wanted: BorrowedFd<'_>,
    name: &str,
) -> Result<EntryConversion, Inconvertible> {
    match (shape(map), shape(wanted)) {
        (Ok(have), Ok(want)) => have.entries_for(&want, name),
        // A program under a map's name, odd BTF.
        _ => Err(Inconvertible { member: name.to_owned(), why: "cannot be described" }),
    }
}

/// What is pinned there.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    match sys::obj_get(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What is pinned while the process runs, to be pinned again if somebody unmounts the BPF file system or removes a pin.
#[derive(Debug, Default)]
pub struct KeptPins(Vec<(PathBuf, OwnedFd)>);

impl KeptPins {
    /// Remembers a pin.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, path: PathBuf) -> Result<(), LoadError> {
        match fd.try_clone_to_owned() {
            Ok(fd) => self.0.push((path, fd)),
            Err(source) => return Err(LoadError::Pin { path, source }),
        }
        Ok(())
    }

    /// Puts those in place, in their order, whose names are new.
    pub(crate) fn put(
        &self,
        pins: &mut Replacements,
        is_new: impl Fn(&str) -> bool,
    ) -> Result<(), LoadError> {
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str().map(str::to_owned));
        for (path, fd) in self.0.iter().filter(|(path, _)| name(path).is_some_and(|name| is_new(&name))) {
            pins.put(fd.as_fd(), path.clone())?;
        }
        Ok(())
    }

    /// Whether all are where they belong, below the root directory of another mount namespace.
    pub fn are_below(&self, root: &Path) -> bool {
        let there = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path)).exists();
        self.0.iter().all(|(path, _)| there(path))
    }

    /// Pins what is missing in the mount namespace of the calling thread; how many that were.
    pub fn restore(&self) -> Result<usize, LoadError> {
        let missing: Vec<_> = self.0.iter().filter(|(path, _)| !path.exists()).collect();
        for (path, fd) in &missing {
            if let Some(dir) = path.parent() {
                make_dir(dir)?;
            }
            replace(fd.as_fd(), path)?;
        }
        Ok(missing.len())
    }
}

/// Pins that are put in place one after the other, and all taken back if one fails.
#[derive(Debug, Default)]
pub(crate) struct Replacements(Vec<(PathBuf, Option<OwnedFd>)>);

impl Replacements {
    /// Pins `fd` at `path`, in place of what is there.
    pub(crate) fn put(&mut self, fd: BorrowedFd<'_>, path: PathBuf) -> Result<(), LoadError> {
        let before = open(&path).map_err(|source| LoadError::Pin { path: path.clone(), source })?;
        replace(fd, &path)?;
        self.0.push((path, before));
        Ok(())
    }

    /// Pins again what was there.
    pub(crate) fn roll_back(self) {
        for (path, before) in self.0.into_iter().rev() {
            let restored = match before {
                Some(fd) => replace(fd.as_fd(), &path),
                None => fs::remove_file(&path).map_err(|source| LoadError::Pin { path, source }),
            };
            if let Err(error) = restored {
                tracing::warn!(%error, "pin cannot be restored");
            }
        }
    }
}
