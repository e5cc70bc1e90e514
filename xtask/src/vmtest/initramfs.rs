//! The files of a guest's first moments, as the kernel unpacks them: `cpio -H newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    process,
    setup::{Emulator, Image},
};

const INIT: &str = include_str!("init.sh");
const FOLDERS: [&str; 9] = ["bin", "modules", "proc", "sys", "dev", "host", "layer", "root", "tmp"];
/// What has to be loaded before the host's files are there. What comes later loads itself.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_console", "virtiofs", "overlay"];

/// The initramfs of a guest that starts the job in this folder of the host.
pub(super) fn build(emulator: &Emulator, image: &Image, job: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.entry(folder, 0o040_755, b"");
    }
    let busybox = emulator.busybox();
    let program = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    archive.entry("bin/busybox", 0o100_755, &program);
    archive.entry("init", 0o100_755, INIT.as_bytes());
    archive.entry("job", 0o100_644, job.as_os_str().as_encoded_bytes());
    let mut order = Vec::new();
    for module in MODULES {
        for file in image.module_files(emulator, module)? {
            let name = module_name(&file)?;
            if !order.contains(&name) {
                archive.entry(&format!("modules/{name}"), 0o100_644, &contents(&busybox, &file)?);
                order.push(name);
            }
        }
    }
    archive.entry("modules/order", 0o100_644, order.join("\n").as_bytes());
    Ok(archive.end())
}

/// Without what says how it is compressed.
fn module_name(file: &Path) -> Result<String> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.and_then(|name| name.split_once(".ko"));
    let (name, _) = name.with_context(|| format!("{} is not named as a module", file.display()))?;
    Ok(format!("{name}.ko"))
}

fn contents(busybox: &Path, file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut unpack: Command = process::command(busybox);
    let output = unpack.args(["xz", "-dc"]).arg(file).output()?;
    ensure!(output.status.success(), "`{}` failed", process::typed(&unpack));
    Ok(output.stdout)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        // ino, mode, nlink, uid, gid, mtime, filesize, four numbers of devices, namesize, check
        let fields: [usize; 13] =
            [self.entries as usize, mode as usize, 1, 0, 0, 0, contents.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::Write as _;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn archive_is_what_cpio_reads() {
        let mut archive = Archive::default();
        archive.entry("a", 0o040_755, b"");
        archive.entry("a/file", 0o100_755, b"12345");
        archive.entry("b", 0o100_644, b"");
        let folder = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("busybox");
        cpio.args(["cpio", "-i"]).current_dir(folder.path()).stdin(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut cpio) = cpio.spawn() else {
            assert!(env::var("CI").as_deref() != Ok("true"), "there is no busybox");
            eprintln!("skipped: there is no busybox");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive.end()).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(fs::read(folder.path().join("a/file")).unwrap(), b"12345");
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"");
    }

    #[test]
    fn modules_are_named_without_their_compression() {
        for file in ["/x/fuse.ko", "/x/fuse.ko.xz"] {
            assert_eq!(module_name(Path::new(file)).unwrap(), "fuse.ko");
        }
        assert!(module_name(Path::new("/x/fuse.o")).is_err());
    }
}
