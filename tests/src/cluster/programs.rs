//! Programs that machines run.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::tools;

/// The program of machines.
pub(super) fn testbox() -> Result<PathBuf> {
    tools::spiderpool("testbox")
}

/// A program of the distribution.
pub(super) fn program(name: &str) -> Result<String> {
    for folder in ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"] {
        let path = Path::new(folder).join(name);
        if path.exists() {
            return Ok(path.display().to_string());
        }
    }
    bail!("there is no {name} on this machine: run `cargo xtask setup`")
}
