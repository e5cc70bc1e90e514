//! Pins on the BPF file system: which can be kept, and how one is replaced without a moment of nothing.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::btf::Btf;
use crate::error::LoadError;
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
    layout: Option<(String, String)>,
}

/// The shape of a map.
pub(crate) fn shape(fd: BorrowedFd<'_>) -> io::Result<Shape> {
    let info = sys::map_info(fd)?;
    let layout = if info.btf_id == 0 || info.btf_value_type_id == 0 {
        None
    } else {
        let blob = sys::btf_blob(info.btf_id)?;
        let describe = |id| Btf::parse(&blob).and_then(|b| b.describe(id));
        let pair = (describe(info.btf_key_type_id), describe(info.btf_value_type_id));
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
pub(crate) fn replace(fd: BorrowedFd<'_>, path: &Path) -> Result<(), LoadError> {
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

/// Whether what is pinned at `path` has the shape of `wanted`; `None` if nothing is pinned there.
pub(crate) fn is_compatible(path: &Path, wanted: BorrowedFd<'_>) -> io::Result<Option<bool>> {
    let pinned = match sys::obj_get(path) {
        Ok(fd) => fd,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    // A pin that cannot be described (a program under a map's name, odd BTF) does not fit.
    Ok(Some(shape(pinned.as_fd()).is_ok_and(|have| shape(wanted).is_ok_and(|want| have == want))))
}
