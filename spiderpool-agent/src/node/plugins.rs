//! The CNI plugins in the node's folder, replaced atomically: a container runtime may execute them at any moment.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where the image has them.
pub(super) const IN_IMAGE: &str = "/usr/lib/spiderpool/cni";

/// A plugin cannot be installed or removed.
#[derive(Debug, Error)]
#[error("CNI plugin {}: {operation}: {source}", path.display())]
pub struct PluginsError {
    path: PathBuf,
    operation: &'static str,
    source: io::Error,
}

impl PluginsError {
    pub(super) fn new(path: &Path, operation: &'static str, source: io::Error) -> Self {
        Self { path: path.to_owned(), operation, source }
    }

    /// The same of a file that was accessed by another path to its folder.
    pub(super) fn in_folder(self, folder: &Path) -> Self {
        Self { path: folder.join(self.path.file_name().unwrap_or_default()), ..self }
    }
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> PluginsError {
    move |source| PluginsError::new(path, operation, source)
}

/// What an installation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallOutcome {
    /// The same was there.
    Unchanged,
    /// It is new, or in the place of another version.
    Written,
}

/// The plugins of a folder, by name.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, PluginsError> {
    let entries = fs::read_dir(folder).map_err(failed(folder, "read"))?;
    let mut plugins: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    plugins.sort();
    Ok(plugins)
}

/// Installs a plugin atomically: an execution meanwhile gets the old file or the new one.
pub fn install(plugin: &Path, folder: &Path) -> Result<InstallOutcome, PluginsError> {
    install_as(plugin.file_name().unwrap_or_default(), plugin, folder)
}

/// The same by another name than it has in its own folder.
pub(super) fn install_as(name: &OsStr, plugin: &Path, folder: &Path) -> Result<InstallOutcome, PluginsError> {
    let to = folder.join(name);
    if have_same_content(plugin, &to).unwrap_or(false) {
        return Ok(InstallOutcome::Unchanged);
    }
    let beside = beside(folder, name, NEW);
    write(&beside, plugin)?;
    fs::rename(&beside, &to).map_err(failed(&to, "rename"))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder, "sync"))?;
    Ok(InstallOutcome::Written)
}

/// Installs a plugin atomically unless there is one of this name; whether it did. One that somebody else installs at the
/// same time, a newer one perhaps, stays.
pub(super) fn install_missing(plugin: &Path, folder: &Path) -> Result<bool, PluginsError> {
    let name = plugin.file_name().unwrap_or_default();
    let (to, beside) = (folder.join(name), beside(folder, name, RESTORED));
    write(&beside, plugin)?;
    let placed = place(&beside, &to, fs::hard_link(&beside, &to));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(&beside, "remove")(error));
        }
        _ => {}
    }
    placed.map_err(failed(&to, "link"))
}

/// Whether the file is at `to` now, after an attempt to link it there. Some file systems have no hard links: there it is
/// renamed, and who installs another one at the very same moment loses.
fn place(beside: &Path, to: &Path, linked: io::Result<()>) -> io::Result<bool> {
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // EPERM is what file systems without hard links answer.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) =>
        {
            if fs::symlink_metadata(to).is_ok() {
                return Ok(false);
            }
            fs::rename(beside, to).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// What the files are called that are written beside a plugin: always the same, so that the next try removes what a crash
/// has left; of an installation and of a restoration, which may meet.
const NEW: &str = "spiderpool-new";
const RESTORED: &str = "spiderpool-restored";

fn beside(folder: &Path, name: &OsStr, of: &str) -> PathBuf {
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(".");
    beside.push(of);
    folder.join(beside)
}

/// All files that an installation of this plugin may have left in the folder.
pub(super) fn files(folder: &Path, name: &OsStr) -> [PathBuf; 3] {
    [folder.join(name), beside(folder, name, NEW), beside(folder, name, RESTORED)]
}

/// Copies a plugin to where nothing else looks for one.
fn write(path: &Path, plugin: &Path) -> Result<(), PluginsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path, "remove")(error)),
        _ => {}
    }
    let mut from = File::open(plugin).map_err(failed(plugin, "open"))?;
    let mut file = File::create_new(path).map_err(failed(path, "create"))?;
    io::copy(&mut from, &mut file).map_err(failed(path, "write"))?;
    file.set_permissions(Permissions::from_mode(0o755)).map_err(failed(path, "change mode"))?;
    file.sync_all().map_err(failed(path, "sync"))
}

/// Compared piece by piece: memory for whole plugins, tens of MB, would stay with the daemon.
pub(super) fn have_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    const PIECE: u64 = 64 << 10;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    loop {
        ours.clear();
        theirs.clear();
        one.by_ref().take(PIECE).read_to_end(&mut ours)?;
        other.by_ref().take(PIECE).read_to_end(&mut theirs)?;
        if ours != theirs || ours.is_empty() {
            return Ok(ours == theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_plugin_is_replaced_and_nothing_is_left_beside() {
        let (image, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plugin = image.path().join("coordinator");
        fs::write(&plugin, "one").unwrap();
        assert_eq!(install(&plugin, node.path()).unwrap(), InstallOutcome::Written);
        assert_eq!(install(&plugin, node.path()).unwrap(), InstallOutcome::Unchanged);
        let installed = node.path().join("coordinator");
        let running = File::open(&installed).unwrap();
        fs::write(&plugin, "two").unwrap();
        // As after a crash in the middle.
        fs::write(node.path().join(".coordinator.spiderpool-new"), "half").unwrap();
        assert_eq!(install(&plugin, node.path()).unwrap(), InstallOutcome::Written);
        assert_eq!(io::read_to_string(running).unwrap(), "one");
        assert_eq!(fs::read_to_string(&installed).unwrap(), "two");
        assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(node.path()).unwrap().count(), 1);
    }

    /// The pieces' borders, and what is equal until the end of the shorter one.
    #[test]
    fn plugins_of_any_size_are_compared_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for size in [0, 1, 0xffff, 0x10000, 0x10001, 0x30000] {
            let mut content = vec![7; size];
            fs::write(&one, &content).unwrap();
            fs::write(&other, &content).unwrap();
            assert!(have_same_content(&one, &other).unwrap(), "{size}");
            content.push(7);
            fs::write(&other, &content).unwrap();
            assert!(!have_same_content(&one, &other).unwrap(), "{size}");
            fs::write(&one, &content).unwrap();
            content[size] = 8;
            fs::write(&other, &content).unwrap();
            assert!(!have_same_content(&one, &other).unwrap(), "{size}");
        }
        assert!(have_same_content(&one, &folder.path().join("none")).is_err());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let image = tempfile::tempdir().unwrap();
        let plugin = image.path().join("spiderpool");
        fs::write(&plugin, "x").unwrap();
        let error = install(&plugin, Path::new("/nowhere/bin")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/bin"), "{error}");
    }

    #[test]
    fn without_hard_links_a_missing_plugin_is_renamed_into_its_place_and_another_one_stays() {
        let node = tempfile::tempdir().unwrap();
        let (beside, to) = (node.path().join("beside"), node.path().join("coordinator"));
        let refused = || Err(io::Error::from_raw_os_error(nix::libc::EPERM));
        fs::write(&beside, "ours").unwrap();
        assert!(place(&beside, &to, refused()).unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "ours");
        fs::write(&beside, "ours again").unwrap();
        assert!(!place(&beside, &to, refused()).unwrap());
        assert_eq!(fs::read_to_string(&to).unwrap(), "ours");
    }
}
