//! The inventory on disk, so that a restarted agent knows its pods. Replaced atomically.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::inventory::Inventory;

/// Raised when an older agent could not read the file any more.
const VERSION: u32 = 2;
/// The oldest that this one reads.
const OLDEST: u32 = 1;

/// The file cannot be read or written.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// Input or output failed.
    #[error("inventory {} of the node's pods: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not an inventory.
    #[error("inventory {} of the node's pods is unreadable: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A later version wrote it.
    #[error("inventory {} of the node's pods has version {found}, this agent knows {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    inventory: &'a Inventory,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    inventory: Inventory,
}

/// The inventory; `None` if there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<Inventory>, StateFileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateFileError::Io { path: path.to_owned(), source }),
    };
    let state: Read = serde_json::from_slice(&bytes)
        .map_err(|source| StateFileError::Format { path: path.to_owned(), source })?;
    if !(OLDEST..=VERSION).contains(&state.version) {
        return Err(StateFileError::Version { path: path.to_owned(), found: state.version });
    }
    Ok(Some(state.inventory))
}

/// Replaces the file. After a crash it holds the old inventory or the new one, whole.
pub(crate) fn write(path: &Path, inventory: &Inventory) -> Result<(), StateFileError> {
    let bytes = serde_json::to_vec(&Written { version: VERSION, inventory })
        .map_err(|source| StateFileError::Format { path: path.to_owned(), source })?;
    replace(path, &bytes).map_err(|source| StateFileError::Io { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/dataplane.json");
        assert!(read(&path).unwrap().is_none());
        write(&path, &Inventory::default()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(Inventory::default()));
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 1);
    }

    /// Its records lack what version 1 had to have, so an agent of then must not take it for one of its own.
    #[test]
    fn version_1_is_read_and_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataplane.json");
        fs::write(&path, r#"{"version":1,"inventory":{"pods":{},"lastId":7}}"#).unwrap();
        let inventory = read(&path).unwrap().unwrap();
        write(&path, &inventory).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with(r#"{"version":2,"#));
        assert_eq!(read(&path).unwrap(), Some(inventory));
    }

    #[test]
    fn a_file_of_another_format_or_version_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataplane.json");
        fs::write(&path, "{").unwrap();
        assert!(matches!(read(&path), Err(StateFileError::Format { .. })));
        fs::write(&path, r#"{"version":3,"inventory":{"pods":{},"lastId":0}}"#).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("version 3, this agent knows 2"));
    }
}
