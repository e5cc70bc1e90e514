//! Plugins in the node's folder whose names are not ours alone, those of other projects and coordinator as `veth`: which of
//! them this chart has installed. Only those are replaced and removed; what somebody else has put there stays as it is.
//!
//! A second name of one of our programs needs no record while both files are equal: it is installed and removed first.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::plugins::{self, PluginsError};
use crate::atomic_file;

/// Beside the plugins, so that it goes where they go. Container runtimes execute plugins by name.
const FILE: &str = ".spiderpool-plugins.json";
/// Tasks of one process read and write the record.
static RECORD: Mutex<()> = Mutex::new(());

/// What became of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The same is there.
    Unchanged,
    /// It is new, or in the place of an older one of ours.
    Written,
    /// Another version is there, of somebody else.
    LeftAlone,
}

/// Installs a plugin by this name unless somebody else's is there.
pub(super) fn install(name: &OsStr, plugin: &Path, folder: &Path) -> Result<Outcome, PluginsError> {
    with_record(folder, |record| record.install(name, plugin, folder, plugins::install_as))
}

/// Removes a plugin that this chart has installed, and whatever an installation left beside it; the paths that are gone.
pub(crate) fn remove(name: &str, folder: &Path) -> Result<Vec<PathBuf>, PluginsError> {
    with_record(folder, |record| record.remove(name, Path::new(name), folder))
}

/// The same for the second name of this plugin.
pub(super) fn remove_second(name: &str, plugin: &Path, folder: &Path) -> Result<Vec<PathBuf>, PluginsError> {
    with_record(folder, |record| record.remove(name, plugin, folder))
}

/// Whether this chart has installed a plugin of this name.
pub(crate) fn is_recorded(name: &str, folder: &Path) -> bool {
    with_record(folder, |record| record.digests.contains_key(name))
}

fn with_record<T>(folder: &Path, f: impl FnOnce(&mut Record) -> T) -> T {
    let _one_at_a_time = RECORD.lock().unwrap_or_else(PoisonError::into_inner);
    f(&mut Record::read(folder))
}

/// Digests of the plugins that were installed, by name. Two while one is replaced.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    path: PathBuf,
    digests: BTreeMap<String, Vec<String>>,
}

/// What has a plugin's name in the node's folder.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// With its digest.
    File(String),
    /// Somebody else's, which may lead to where this container sees nothing.
    Link,
}

impl Record {
    /// A record that cannot be read counts as none: nothing is replaced then.
    fn read(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let digests = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { path, digests: digests.unwrap_or_default() }
    }

    fn has(&self, name: &str, digest: &str) -> bool {
        self.digests.get(name).is_some_and(|digests| digests.iter().any(|known| known == digest))
    }

    fn install<T>(
        &mut self,
        name: &OsStr,
        plugin: &Path,
        folder: &Path,
        write: impl FnOnce(&OsStr, &Path, &Path) -> Result<T, PluginsError>,
    ) -> Result<Outcome, PluginsError> {
        let wanted = File::open(plugin).and_then(digest);
        let wanted = wanted.map_err(|error| PluginsError::new(plugin, "read", error))?;
        let mut known = vec![wanted.clone()];
        let key = name.to_string_lossy().into_owned();
        match There::read(&folder.join(name))? {
            There::File(there) if there == wanted => return Ok(Outcome::Unchanged),
            There::File(there) if self.has(&key, &there) || is_second(name, plugin, &there, folder) => {
                known.push(there);
            }
            There::File(_) | There::Link => {
                self.forget(&key)?;
                return Ok(Outcome::LeftAlone);
            }
            There::Nothing => {}
        }
        // Recorded first, beside the one that is there: whichever a crash leaves is known for ours.
        self.digests.insert(key.clone(), known);
        self.write()?;
        write(name, plugin, folder)?;
        self.digests.insert(key, vec![wanted]);
        self.write()?;
        Ok(Outcome::Written)
    }

    fn remove(&mut self, name: &str, plugin: &Path, folder: &Path) -> Result<Vec<PathBuf>, PluginsError> {
        let mut removed = Vec::new();
        if let There::File(there) = There::read(&folder.join(name))?
            && (self.has(name, &there) || is_second(name.as_ref(), plugin, &there, folder))
        {
            for path in plugins::files(folder, name.as_ref()) {
                match fs::remove_file(&path) {
                    Ok(()) => removed.push(path),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(PluginsError::new(&path, "remove", error)),
                }
            }
        }
        self.forget(name)?;
        Ok(removed)
    }

    fn forget(&mut self, name: &str) -> Result<(), PluginsError> {
        if self.digests.remove(name).is_some() { self.write() } else { Ok(()) }
    }

    fn write(&self) -> Result<(), PluginsError> {
        let written = if self.digests.is_empty() {
            fs::remove_file(&self.path)
        } else {
            let text = serde_json::to_vec(&self.digests).unwrap_or_default();
            atomic_file::write(&self.path, &text, 0o644)
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PluginsError::new(&self.path, "write", error))
            }
            _ => Ok(()),
        }
    }
}

impl There {
    fn read(path: &Path) -> Result<Self, PluginsError> {
        let found = fs::symlink_metadata(path).and_then(|found| {
            if found.is_symlink() {
                Ok(Self::Link)
            } else {
                File::open(path).and_then(digest).map(Self::File)
            }
        });
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Nothing),
            found => found.map_err(|error| PluginsError::new(path, "read", error)),
        }
    }
}

/// Whether what is there by a second name of this plugin of ours, with this digest, is what the folder has by its first one.
fn is_second(name: &OsStr, plugin: &Path, there: &str, folder: &Path) -> bool {
    let Some(first) = plugin.file_name().filter(|first| *first != name) else { return false };
    matches!(There::read(&folder.join(first)), Ok(There::File(known)) if known == there)
}

/// Piece by piece: Multus has 50 MB.
fn digest(mut file: File) -> io::Result<String> {
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => hash.update(&piece[..length]),
        }
    }
    let mut digest = String::new();
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ok = write!(digest, "{byte:02x}");
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        image: tempfile::TempDir,
        bin: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            Self { image: tempfile::tempdir().unwrap(), bin: tempfile::tempdir().unwrap() }
        }

        /// As another agent does it, with this content in the image.
        fn install(&self, content: &str) -> Outcome {
            let plugin = self.image.path().join("macvlan");
            fs::write(&plugin, content).unwrap();
            install("macvlan".as_ref(), &plugin, self.bin.path()).unwrap()
        }

        fn there(&self) -> String {
            fs::read_to_string(self.bin.path().join("macvlan")).unwrap()
        }

        fn remove(&self) -> usize {
            remove("macvlan", self.bin.path()).unwrap().len()
        }

        fn files(&self) -> usize {
            fs::read_dir(self.bin.path()).unwrap().count()
        }
    }

    #[test]
    fn a_plugin_that_this_chart_installed_is_replaced_and_removed() {
        let node = Node::new();
        assert_eq!((node.install("one"), node.install("one")), (Outcome::Written, Outcome::Unchanged));
        assert_eq!((node.install("two"), node.there()), (Outcome::Written, "two".to_owned()));
        assert_eq!((node.remove(), node.files()), (1, 0));
    }

    #[test]
    fn the_plugin_of_somebody_else_stays() {
        let node = Node::new();
        fs::write(node.bin.path().join("macvlan"), "theirs").unwrap();
        assert_eq!((node.install("ours"), node.there()), (Outcome::LeftAlone, "theirs".to_owned()));
        assert_eq!(node.remove(), 0);
        assert_eq!(node.there(), "theirs");
    }

    #[test]
    fn a_plugin_that_somebody_else_has_replaced_is_theirs() {
        let node = Node::new();
        node.install("one");
        fs::write(node.bin.path().join("macvlan"), "theirs").unwrap();
        assert_eq!((node.install("two"), node.remove()), (Outcome::LeftAlone, 0));
        assert_eq!((node.there(), node.files()), ("theirs".to_owned(), 1));
    }

    #[test]
    fn the_same_plugin_of_somebody_else_is_not_removed() {
        let node = Node::new();
        fs::write(node.bin.path().join("macvlan"), "same").unwrap();
        assert_eq!(
            (node.install("same"), node.remove(), node.there()),
            (Outcome::Unchanged, 0, "same".to_owned())
        );
    }

    /// Ours would become somebody else's for ever: no upgrade would replace it, and no uninstallation remove it.
    #[test]
    fn a_crash_before_or_after_the_file_is_written_makes_no_stranger_of_it() {
        let node = Node::new();
        node.install("one");
        let crash = |content: &str, is_written: bool| {
            let plugin = node.image.path().join("macvlan");
            fs::write(&plugin, content).unwrap();
            let mut record = Record::read(node.bin.path());
            let crashed =
                record.install("macvlan".as_ref(), &plugin, node.bin.path(), |name, plugin, folder| {
                    if is_written {
                        plugins::install_as(name, plugin, folder)?;
                    }
                    Err::<(), _>(PluginsError::new(plugin, "write", io::ErrorKind::Interrupted.into()))
                });
            crashed.unwrap_err();
        };
        crash("two", false);
        assert_eq!((node.there(), node.install("two")), ("one".to_owned(), Outcome::Written));
        crash("three", true);
        assert_eq!((node.there(), node.install("four")), ("three".to_owned(), Outcome::Written));
        crash("five", true);
        assert_eq!((node.remove(), node.files()), (1, 0));
    }

    /// Another release would never replace it.
    #[test]
    fn a_second_name_is_known_without_the_record_by_the_program_beside_it() {
        let node = Node::new();
        let (plugin, bin) = (node.image.path().join("coordinator"), node.bin.path());
        let (record, veth) = (bin.join(FILE), bin.join("veth"));
        let install_both = |content: &str| {
            fs::write(&plugin, content).unwrap();
            let outcome = install("veth".as_ref(), &plugin, bin).unwrap();
            plugins::install(&plugin, bin).unwrap();
            (outcome, fs::read_to_string(&veth).unwrap())
        };
        assert_eq!(install_both("one"), (Outcome::Written, "one".to_owned()));
        fs::remove_file(&record).unwrap();
        assert_eq!(install_both("two"), (Outcome::Written, "two".to_owned()));
        fs::remove_file(&record).unwrap();
        assert_eq!(remove_second("veth", &plugin, bin).unwrap(), std::slice::from_ref(&veth));
        fs::write(&veth, "theirs").unwrap();
        assert_eq!(install_both("three"), (Outcome::LeftAlone, "theirs".to_owned()));
        assert_eq!(remove_second("veth", &plugin, bin).unwrap(), Vec::<PathBuf>::new());
    }

    /// k3s and others have links there, which lead to where this container sees nothing.
    #[test]
    fn a_link_is_of_somebody_else_wherever_it_leads() {
        let node = Node::new();
        let link = node.bin.path().join("macvlan");
        std::os::unix::fs::symlink("/on/the/node", &link).unwrap();
        assert_eq!((node.install("ours"), node.remove()), (Outcome::LeftAlone, 0));
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/on/the/node"));
        assert_eq!(node.files(), 1);
    }
}
