//! Plugins of other projects in the node's folder: which of them this chart has installed. Only those are replaced and
//! removed; what somebody else has put there stays as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::plugins::{self, PluginsError};
use crate::atomic_file;

/// Beside the plugins, so that it goes where they go. Container runtimes execute plugins by name.
const FILE: &str = ".spiderpool-plugins.json";

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

/// Digests of the plugins that were installed, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    path: PathBuf,
    digests: BTreeMap<String, String>,
}

impl Record {
    /// A record that cannot be read counts as none: nothing is replaced then.
    pub(super) fn read(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let digests = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { path, digests: digests.unwrap_or_default() }
    }

    /// Installs a plugin unless somebody else's is there.
    pub(super) fn install(&mut self, plugin: &Path, folder: &Path) -> Result<Outcome, PluginsError> {
        let wanted = read(plugin)?.ok_or_else(|| missing(plugin))?;
        let name = name(plugin);
        let there = read(&folder.join(&name))?;
        let is_ours = there.as_ref().is_none_or(|there| self.digests.get(&name) == Some(there));
        if there.as_ref() == Some(&wanted) {
            return Ok(Outcome::Unchanged);
        }
        if !is_ours {
            self.forget(&name)?;
            return Ok(Outcome::LeftAlone);
        }
        // Recorded first: after a crash the older one would count as somebody else's, and the new one too.
        self.digests.insert(name, wanted);
        plugins::install(plugin, folder)?;
        self.write()?;
        Ok(Outcome::Written)
    }

    /// Removes a plugin that this chart has installed, and whatever an installation left beside it; the paths that are gone.
    pub(super) fn remove(&mut self, name: &str) -> Result<Vec<PathBuf>, PluginsError> {
        let folder = self.path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut removed = Vec::new();
        let there = read(&folder.join(name))?;
        if there.is_some() && self.digests.get(name) == there.as_ref() {
            for path in plugins::files(&folder, name.as_ref()) {
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

fn name(plugin: &Path) -> String {
    plugin.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn missing(path: &Path) -> PluginsError {
    PluginsError::new(path, "read", io::ErrorKind::NotFound.into())
}

/// The digest of a file, if there is one.
fn read(path: &Path) -> Result<Option<String>, PluginsError> {
    match File::open(path).and_then(digest) {
        Ok(digest) => Ok(Some(digest)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PluginsError::new(path, "read", error)),
    }
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
            Record::read(self.bin.path()).install(&plugin, self.bin.path()).unwrap()
        }

        fn there(&self) -> String {
            fs::read_to_string(self.bin.path().join("macvlan")).unwrap()
        }

        fn remove(&self) -> usize {
            Record::read(self.bin.path()).remove("macvlan").unwrap().len()
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
}
