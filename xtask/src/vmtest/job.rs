//! The folder of a guest on the host: what it starts with, and what it leaves.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::initramfs;
use crate::setup::{Emulator, Image};

const START: &str = include_str!("start.sh");
/// How much of the console an error shows.
const TAIL: usize = 50;

/// The ports of a guest, each a file of the host with this name.
pub(super) const PORTS: [&str; 3] = ["stdout", "stderr", "code"];

pub(super) struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    /// A job that runs `script` with bash.
    pub(super) fn new(emulator: &Emulator, image: &Image, script: &str) -> Result<Self> {
        let job = Self { folder: tempfile::Builder::new().prefix("spiderpool-vmtest-").tempdir()? };
        let modules = image.modules();
        let header = format!("job={}\nmodules={}\n", job.folder.path().display(), modules.display());
        job.write("start.sh", &(header + START))?;
        job.write("script.sh", script)?;
        // Called by the kernel, which gives it no place of libraries.
        fs::create_dir(job.path("kmod"))?;
        symlink(emulator.kmod(), job.path("kmod/modprobe"))?;
        let libraries = emulator.libraries();
        let modprobe = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {} \"$@\"\n",
            job.path("kmod/modprobe").display()
        );
        job.write("modprobe", &modprobe)?;
        fs::set_permissions(job.path("modprobe"), fs::Permissions::from_mode(0o755))?;
        fs::write(job.path("initramfs"), initramfs::build(emulator, image, job.folder.path())?)?;
        Ok(job)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the guest has written to a port so far.
    pub(super) fn read(&self, port: &str) -> Vec<u8> {
        fs::read(self.path(port)).unwrap_or_default()
    }

    /// The exit code of the script, when it has ended.
    pub(super) fn code(&self) -> Option<u8> {
        String::from_utf8_lossy(&self.read("code")).trim().parse().ok()
    }

    /// What kernel and qemu have said at last.
    pub(super) fn last_words(&self) -> String {
        let files = ["console", "qemu.log", "virtiofsd.log"];
        files.map(|name| tail(&self.path(name))).concat()
    }
}

/// The last lines of a file, each indented on a line of its own.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    last.iter().fold(String::new(), |text, line| text + "\n    " + line)
}
