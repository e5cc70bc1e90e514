//! A machine's own file system: an overlay over the real root, whose changes go to the machine's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use crate::cgroup::{self, Hierarchy};
use crate::machine::Spec;

/// What the kubelet and others set, which is not a namespace's but the whole kernel's: they write to files of ours.
const KERNEL_SYSCTLS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
];

/// How long the controllers of version 2 may be busy.
const DELEGATION_LIMIT: Duration = Duration::from_secs(2);

/// Folders of the real machine that would look like this machine's own.
const EMPTY: &[&str] = &["etc/cni/net.d", "opt/cni/bin", "var/lib/cni", "var/log/pods", "etc/kubernetes"];

pub(super) fn set_up(spec: &Spec) -> Result<()> {
    change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    // Before the new root hides them.
    let hierarchies = cgroup::hierarchies()?;
    let root = mount_root(spec)?;
    bind(Path::new("/dev"), &root.join("dev"), MsFlags::MS_REC)?;
    fresh("proc", &root.join("proc"), "")?;
    fresh("sysfs", &root.join("sys"), "")?;
    mount_cgroups(&hierarchies, &root)?;
    fresh("bpf", &root.join("sys/fs/bpf"), "")?;
    fresh("tmpfs", &root.join("run"), "mode=755")?;
    fresh("tmpfs", &root.join("tmp"), "mode=1777")?;
    for folder in ["run/lock", "run/netns", "mnt/old-root"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in &spec.shared {
        bind(folder, &below(&root, folder), MsFlags::empty())?;
    }
    for volume in &spec.volumes {
        let disk = below(&spec.folder.join("volumes"), volume);
        fs::create_dir_all(&disk)?;
        bind(&disk, &below(&root, volume), MsFlags::empty())?;
    }
    pivot_root(&root, &root.join("mnt/old-root")).context("pivot_root")?;
    chdir("/")?;
    umount2("/mnt/old-root", MntFlags::MNT_DETACH).context("the old root")?;
    fs::remove_dir("/mnt/old-root")?;
    // For volumes whose mounts pass between host and container.
    change("/", MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    shadow_sysctls()
}

fn mount_root(spec: &Spec) -> Result<PathBuf> {
    let part = |name: &str| spec.folder.join("disk").join(name);
    let (upper, work, root) = (part("upper"), part("work"), part("root"));
    let is_new = !upper.exists();
    for folder in [&upper, &work, &root] {
        fs::create_dir_all(folder)?;
    }
    let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("overlay over /")?;
    for folder in EMPTY.iter().map(|folder| root.join(folder)) {
        if is_new && folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
    }
    Ok(root)
}

/// As on the real machine, but seen from this machine's cgroup namespace.
fn mount_cgroups(hierarchies: &[Hierarchy], root: &Path) -> Result<()> {
    let only_version_2 = hierarchies.iter().all(|hierarchy| hierarchy.options.is_none());
    if !only_version_2 {
        fresh("tmpfs", &root.join("sys/fs/cgroup"), "mode=755")?;
    }
    for hierarchy in hierarchies {
        let target = below(root, &hierarchy.mount);
        fs::create_dir_all(&target)?;
        match hierarchy.options.as_deref() {
            None => fresh("cgroup2", &target, "")?,
            Some(options) if options.starts_with("name=") => {
                fresh("cgroup", &target, &format!("none,{options}"))?;
            }
            Some(options) => fresh("cgroup", &target, options)?,
        }
    }
    if only_version_2 {
        // A directory with processes of its own can give no controllers to its children.
        let top = root.join("sys/fs/cgroup");
        fs::create_dir_all(top.join("init"))?;
        fs::write(top.join("init/cgroup.procs"), "0")?;
        // Who started this process is in the directory for a moment still.
        let deadline = Instant::now() + DELEGATION_LIMIT;
        while let Err(error) = cgroup::delegate(&top) {
            if Instant::now() >= deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

fn shadow_sysctls() -> Result<()> {
    fs::create_dir_all("/run/sysctl")?;
    for (path, value) in KERNEL_SYSCTLS {
        let file = Path::new("/run/sysctl").join(path.replace('/', "."));
        fs::write(&file, format!("{value}\n"))?;
        let target = Path::new("/proc/sys").join(path);
        mount(Some(&file), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| target.display().to_string())?;
    }
    Ok(())
}

/// An absolute path, seen from another root.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn fresh(kind: &str, target: &Path, options: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("{kind} at {}", target.display()))
}

fn bind(source: &Path, target: &Path, more: MsFlags) -> Result<()> {
    fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | more, None::<&str>)
        .with_context(|| format!("{} at {}", source.display(), target.display()))
}

fn change(target: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).with_context(|| target.to_owned())
}
