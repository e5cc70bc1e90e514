//! The files of an image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// What is at a path.
#[derive(Debug, Clone)]
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { to: String },
}

/// Files and folders, all root's. Folders above a file come by themselves.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// By path from the root, without the leading slash: a folder sorts before what is in it.
    entries: BTreeMap<PathBuf, Entry>,
}

impl Layer {
    /// A file that everybody may read.
    #[must_use]
    pub fn file(self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.put(path, Entry::File { mode: 0o644, content: content.into() })
    }

    /// A program of this machine, under the name that it has in the image.
    pub fn program(self, path: &str, from: &Path) -> Result<Self> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(self.put(path, Entry::File { mode: 0o755, content }))
    }

    /// A file of this machine that everybody may read.
    pub fn copy(self, path: &str, from: &Path) -> Result<Self> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(self.file(path, content))
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(self, path: &str, to: &str) -> Self {
        self.put(path, Entry::Link { to: to.to_owned() })
    }

    /// A folder with a mode of its own.
    #[must_use]
    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.put(path, Entry::Folder { mode })
    }

    fn put(mut self, path: &str, entry: Entry) -> Self {
        let path = Path::new(path.trim_start_matches('/'));
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
        self
    }

    pub(super) fn tar(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder { mode } => append(&mut tar, path, EntryType::Directory, *mode, &[])?,
                Entry::File { mode, content } => append(&mut tar, path, EntryType::Regular, *mode, content)?,
                Entry::Link { to } => append_link(&mut tar, path, to)?,
            }
        }
        Ok(tar.into_inner()?)
    }
}

/// One entry of root's, at the beginning of time.
pub(super) fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &Path,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = header(kind, mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).with_context(|| format!("tar entry {}", path.display()))
}

fn append_link(tar: &mut Builder<Vec<u8>>, path: &Path, to: &str) -> Result<()> {
    let mut header = header(EntryType::Symlink, 0o777);
    header.set_size(0);
    tar.append_link(&mut header, path, to).with_context(|| format!("tar entry {}", path.display()))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
