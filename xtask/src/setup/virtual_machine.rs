//! Other kernels, and the emulator that they run in: packages of Debian, unpacked into the tools folder. Nothing of them is
//! installed; `qemu` is replaced, and kernels are updated, when their folder is removed.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    debian::Archive,
    stamp::{self, Stamp},
};
use crate::{architecture::Architecture, kernel::Kernel, process, workspace::Workspace};

/// What the emulator consists of; what these need comes with them.
const EMULATOR: [&str; 3] = ["qemu-system-x86", "busybox-static", "kmod"];
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// qemu, its file server, and programs of the guest's first moments.
#[derive(Clone, Debug)]
pub(crate) struct Emulator {
    root: PathBuf,
}

impl Emulator {
    /// The program of this path below its folder, with its libraries.
    fn command(&self, program: &str) -> Command {
        let mut command = process::command(self.root.join(program));
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    /// The same, for a process that ends with whoever starts it, and that leaves the machine to those who have deadlines.
    fn attendant(&self, program: &str) -> Command {
        let mut command = process::command("nice");
        command.args(["-n", "10", "setpriv", "--pdeathsig", "KILL"]).arg(self.root.join(program));
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    /// In the form of `LD_LIBRARY_PATH`.
    pub(crate) fn libraries(&self) -> String {
        LIBRARIES.map(|folder| self.root.join(folder).display().to_string()).join(":")
    }

    pub(crate) fn qemu(&self) -> Command {
        let mut qemu = self.attendant("usr/bin/qemu-system-x86_64");
        for folder in ["usr/share/seabios", "usr/share/qemu"] {
            qemu.arg("-L").arg(self.root.join(folder));
        }
        qemu
    }

    /// The server of a folder of this machine for a guest.
    pub(crate) fn virtiofsd(&self) -> Command {
        self.attendant("usr/lib/qemu/virtiofsd")
    }

    /// A static program.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    pub(crate) fn kmod(&self) -> PathBuf {
        self.root.join("bin/kmod")
    }

    /// kmod, which looks by which name it was called.
    fn kmod_as(&self, name: &str) -> Command {
        let mut command = self.command("bin/kmod");
        command.arg0(name);
        command
    }
}

/// A kernel with its modules.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// What `uname -r` says there.
    pub(crate) release: String,
    root: PathBuf,
}

impl Image {
    pub(crate) fn path(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// What is `/lib/modules/RELEASE` there.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// The files of `module` and of what it needs, in the order in which they are loaded.
    pub(crate) fn module_files(&self, emulator: &Emulator, module: &str) -> Result<Vec<PathBuf>> {
        let mut modprobe = emulator.kmod_as("modprobe");
        modprobe.arg("-d").arg(&self.root).args(["-S", &self.release, "--show-depends", module]);
        let answer = process::output(&mut modprobe)
            .with_context(|| format!("Linux {} has no module {module}", self.release))?;
        let files = answer.lines().filter_map(|line| line.strip_prefix("insmod "));
        Ok(files.map(|file| PathBuf::from(file.trim())).collect())
    }
}

pub(super) fn ensure(workspace: &Workspace, kernels: &[Kernel]) -> Result<(Emulator, Vec<Image>)> {
    ensure!(
        Architecture::HOST == Architecture::Amd64,
        "other kernels are supported on amd64 only: the test programs run there as they are here"
    );
    let emulator = emulator(workspace)?;
    let images = kernels.iter().map(|kernel| image(workspace, &emulator, *kernel)).collect::<Result<_>>()?;
    Ok((emulator, images))
}

fn emulator(workspace: &Workspace) -> Result<Emulator> {
    let emulator = Emulator { root: workspace.tools().join("qemu") };
    let stamp = Stamp::new(workspace, &emulator.root, stamp::digest(&EMULATOR));
    let is_usable = || process::output(emulator.qemu().arg("--version")).is_some();
    if stamp.origin().is_some() && is_usable() {
        return Ok(emulator);
    }
    eprintln!("setup: qemu, for tests on other kernels");
    let archive = Archive::configured()?;
    replace(&emulator.root, |folder| archive.unpack(&archive.missing(&EMULATOR)?, folder))?;
    for program in [emulator.busybox(), emulator.kmod(), emulator.root.join("usr/lib/qemu/virtiofsd")] {
        ensure!(program.exists(), "{} is not in the packages: this needs Debian 12", program.display());
    }
    if !is_usable() {
        let output = emulator.qemu().arg("--version").output()?;
        bail!("qemu cannot be started: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    stamp.write("apt-get download")?;
    Ok(emulator)
}

fn image(workspace: &Workspace, emulator: &Emulator, kernel: Kernel) -> Result<Image> {
    let root = workspace.tools().join(format!("linux-{}", kernel.name()));
    let stamp = Stamp::new(workspace, &root, stamp::digest(&[kernel.package(), kernel.suite()]));
    if let Some(release) = stamp.origin() {
        return Ok(Image { release, root });
    }
    eprintln!("setup: Linux {} of Debian, for tests", kernel.name());
    let lists = tempfile::tempdir()?;
    let archive = Archive::security(kernel.suite(), lists.path())?;
    let package = archive
        .depends(kernel.package())?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{} depends on no linux-image", kernel.package()))?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    replace(&root, |folder| {
        archive.unpack(std::slice::from_ref(&package), folder)?;
        process::step("depmod", emulator.kmod_as("depmod").arg("-b").arg(folder).arg(&release))
    })?;
    stamp.write(&release)?;
    Ok(Image { release, root })
}

/// Makes `folder` anew: whoever uses the old one keeps its files, and nobody takes half a new one for a whole.
fn replace(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut fresh = folder.to_owned().into_os_string();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    for old in [&*fresh, folder] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    fill(&fresh)?;
    fs::rename(&fresh, folder).with_context(|| format!("cannot write {}", folder.display()))
}
