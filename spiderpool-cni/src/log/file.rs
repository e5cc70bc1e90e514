//! Opens log files below one folder. What a network's configuration names may lead nowhere else: no component of the
//! path is a link, and the file is a regular one. Works with any kernel: `openat2` would need Linux 5.6.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open as open_path, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// When a file is renamed, and which renamed ones are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Size in bytes at which the file is renamed.
    pub(super) size: u64,
    /// Age at which renamed files are deleted.
    pub(super) age: Option<Duration>,
    /// How many renamed files are kept; 0 keeps all.
    pub(super) count: usize,
}

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

/// Opens the file at `path` below `root` for appending, and makes it and its folders if they are not there.
pub(super) fn open(root: &Path, path: &Path, limits: &Limits) -> io::Result<File> {
    let (folder, name) = open_folder(root, path)?;
    let mut file = append(&folder, name)?;
    if file.metadata()?.len() >= limits.size {
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusive) {
            // Another process may have renamed it while this one waited.
            let now = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW);
            if now.is_ok_and(|now| fstat(&*lock).is_ok_and(|open| open.st_ino == now.st_ino)) {
                renameat(&folder, name, &folder, renamed(name).as_str())?;
                prune(&folder, name, limits)?;
            }
        }
        file = append(&folder, name)?;
    }
    Ok(file)
}

/// The folder that the file is in, and the file's name.
fn open_folder<'a>(root: &Path, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file below the folder");
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(refused()),
        }
    }
    let name = names.pop().ok_or_else(refused)?;
    let mut folder = open_path(root, FOLDER, Mode::empty())?;
    for name in names {
        let open = |folder: &OwnedFd| openat(folder, name, FOLDER | OFlag::O_NOFOLLOW, Mode::empty());
        folder = match open(&folder) {
            Err(Errno::ENOENT) => match mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => open(&folder)?,
                Err(error) => return Err(error.into()),
            },
            opened => opened?,
        };
    }
    Ok((folder, name))
}

fn append(folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO waits for a reader.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_CLOEXEC
        | OFlag::O_NOFOLLOW
        | OFlag::O_NOCTTY
        | OFlag::O_NONBLOCK;
    let file = openat(folder, name, flags, Mode::from_bits_truncate(0o644))?;
    if SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(File::from(file))
}

/// `NAME-MILLISECONDS.EXT`
fn renamed(name: &OsStr) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (stem, extension) = parts(name);
    format!("{stem}-{time}.{extension}")
}

fn parts(name: &OsStr) -> (String, String) {
    let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let path = Path::new(name);
    (text(path.file_stem()), text(path.extension()))
}

/// Deletes renamed files that are too many or too old.
fn prune(folder: &OwnedFd, name: &OsStr, limits: &Limits) -> io::Result<()> {
    let (stem, extension) = parts(name);
    let (prefix, suffix) = (format!("{stem}-"), format!(".{extension}"));
    let mut old = Vec::new();
    for entry in Dir::from_fd(folder.as_fd().try_clone_to_owned()?)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let middle = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix));
        if !middle.is_some_and(|m| !m.is_empty() && m.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let Ok(stat) = fstatat(folder, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        let modified = UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
        old.push((modified, name));
    }
    old.sort();
    let surplus = if limits.count == 0 { 0 } else { old.len().saturating_sub(limits.count) };
    let oldest = limits.age.and_then(|age| SystemTime::now().checked_sub(age));
    for (position, (modified, name)) in old.iter().enumerate() {
        if position < surplus || oldest.is_some_and(|oldest| *modified < oldest) {
            match unlinkat(folder, name.as_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
