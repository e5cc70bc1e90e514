//! What containerd has from the beginning: the tests' own images, imported once and copied to each node.
//!
//! A private containerd imports them into a folder of the target folder; nodes get hard links of its files. Nobody
//! changes a file in place there but the databases, which are copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::programs::{program, testbox};
use crate::oci::{Image, Layer};
use crate::process::Process;
use crate::{poll, process, tools};

/// containerd's root on a node.
pub(super) const ROOT: &str = "/var/lib/containerd";
/// The image of pods' sandboxes.
pub(super) const PAUSE: &str = "spiderpool.test/pause:1";
/// The image of servers and clients.
const PROBE: &str = "spiderpool.test/probe:1";
/// What users start for a try: the distribution's busybox under its public name.
const BUSYBOX: &str = "docker.io/library/busybox:1.35";
const APPLETS: &[&str] = &["cat", "hostname", "httpd", "ip", "mkdir", "ping", "sh", "sleep", "wget"];
/// What containerd would look for devices with, or report to nobody.
pub(super) const DISABLED_PLUGINS: &str = r#""io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp""#;

const LIMIT: Duration = Duration::from_secs(20);
/// A store that nobody has used for that long is removed.
const UNUSED: Duration = Duration::from_hours(1);

/// A folder with all images imported; made if there is none of these images yet.
pub(super) fn store() -> Result<PathBuf> {
    let folder = tools::cluster_images()?;
    let lock = fs::File::create(folder.join(".lock"))?;
    lock.lock()?;
    let (archives, key) = write(&folder)?;
    let store = folder.join(key);
    if !store.exists() {
        let fresh = folder.join("new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        import(&archives, &fresh).context("import the images of the cluster")?;
        fs::rename(&fresh, &store)?;
    }
    // Its age is the time since its last use.
    fs::File::open(&store)?.set_modified(SystemTime::now())?;
    remove_unused(&folder)?;
    Ok(store)
}

/// Removes stores of former builds, but not one that a cluster may be copying from.
fn remove_unused(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if entry.path().is_dir() && age > UNUSED {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Writes the archives, and answers with a key for their contents and containerd's version.
fn write(folder: &Path) -> Result<(Vec<PathBuf>, String)> {
    let layer = Layer::default().program("/usr/bin/testbox", &testbox()?)?.folder("/tmp", 0o1777);
    let image =
        |name: &str, what: &str| Image::new(name, layer.clone()).entrypoint(&["/usr/bin/testbox", what]);
    let version = process::run(program("containerd")?, &["--version"])?;
    let mut key = version.split_whitespace().nth(2).unwrap_or_default().replace(['+', '~', ':'], "-");
    let mut archives = Vec::new();
    for (file, image) in [
        ("pause.tar", image(PAUSE, "pause")),
        ("probe.tar", image(PROBE, "serve")),
        ("busybox.tar", busybox()?),
    ] {
        let path = folder.join(file);
        let digest = image.write(&path)?;
        key.push('-');
        key.push_str(digest.trim_start_matches("sha256:").get(..12).unwrap_or_default());
        archives.push(path);
    }
    Ok((archives, key))
}

fn busybox() -> Result<Image> {
    let layer =
        Layer::default().program("/bin/busybox", Path::new(&program("busybox")?))?.folder("/tmp", 0o1777);
    let layer = APPLETS.iter().fold(layer, |layer, applet| layer.link(&format!("/bin/{applet}"), "busybox"));
    Ok(Image::new(BUSYBOX, layer).entrypoint(&["/bin/sh"]))
}

fn import(archives: &[PathBuf], root: &Path) -> Result<()> {
    // Sockets' paths must be short.
    let state = tempfile::tempdir()?;
    let (socket, config) = (state.path().join("s"), state.path().join("config.toml"));
    let text = format!(
        "version = 2\nroot = \"{}\"\nstate = \"{}\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", {DISABLED_PLUGINS}]\n\
         [grpc]\n  address = \"{}\"\n",
        root.display(),
        state.path().join("state").display(),
        socket.display()
    );
    fs::write(&config, text)?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .arg(program("containerd")?)
        .arg("--config")
        .arg(&config);
    let mut containerd = Process::start("containerd", &command, &state.path().join("log"))?;
    let ctr = program("ctr")?;
    let address = socket.display().to_string();
    let ctr = |arguments: &[&str]| {
        process::run(&ctr, &[&["--address", &address, "--namespace", "k8s.io"], arguments].concat())
    };
    poll::until("containerd for images", LIMIT, || {
        if let Err(ended) = containerd.check_running() {
            return Ok(Err(ended));
        }
        ctr(&["version"]).map(|_| Ok(()))
    })??;
    for archive in archives {
        ctr(&["images", "import", &archive.display().to_string()])?;
    }
    containerd.terminate(LIMIT)?;
    Ok(())
}

/// Gives a node its copy.
pub(super) fn copy(store: &Path, machine: &Path) -> Result<()> {
    let target = machine.join("volumes").join(ROOT.trim_start_matches('/'));
    fs::create_dir_all(&target)?;
    process::run("cp", &["-al".into(), store.join("."), target.clone()])?;
    unlink_databases(&target)
}

fn unlink_databases(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() && path.file_name().is_none_or(|name| name != "snapshots") {
            unlink_databases(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "db") {
            let fresh = path.with_extension("db-new");
            fs::copy(&path, &fresh)?;
            fs::rename(&fresh, &path)?;
        }
    }
    Ok(())
}
