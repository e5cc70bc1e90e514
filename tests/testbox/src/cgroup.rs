//! Cgroup directories of machines: one in every hierarchy that is mounted, version 1 or 2.
//!
//! They are the register of what runs: whoever finds a directory finds the processes in it, whatever happened to
//! those who started them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Mount options of a version 1 hierarchy (`cpu,cpuacct`, `name=systemd`); none for version 2.
    pub options: Option<String>,
}

/// All hierarchies of this machine.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    // A machine without version 1 need not have the file.
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, &controllers))
}

fn parse(mountinfo: &str, controllers: &str) -> Vec<Hierarchy> {
    let known: BTreeSet<&str> =
        controllers.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let hierarchy = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let mount = PathBuf::from(mount.split_whitespace().nth(4)?);
        let mut words = system.split_whitespace();
        match words.next()? {
            "cgroup2" => Some(Hierarchy { mount, options: None }),
            "cgroup" => {
                let options = words.nth(1)?.split(',');
                let own = options.filter(|option| known.contains(option) || option.starts_with("name="));
                Some(Hierarchy { mount, options: Some(own.collect::<Vec<_>>().join(",")) })
            }
            _ => None,
        }
    };
    mountinfo.lines().filter_map(hierarchy).collect()
}

/// Makes the directory `group` (a path with one or two parts) in every hierarchy, ready to take processes.
pub fn create(group: &Path) -> Result<()> {
    for Hierarchy { mount, options } in hierarchies()? {
        let mut folder = mount.clone();
        for part in group {
            if options.is_none() {
                delegate(&folder)?;
            }
            let parent = folder.clone();
            folder.push(part);
            fs::create_dir_all(&folder).with_context(|| format!("cgroup {}", folder.display()))?;
            // A new cpuset is empty and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if options.is_some() && folder.join(file).exists() {
                    fs::write(folder.join(file), fs::read(parent.join(file))?)
                        .with_context(|| folder.join(file).display().to_string())?;
                }
            }
        }
    }
    Ok(())
}

/// Gives all controllers of a version 2 directory to its children.
pub(crate) fn delegate(folder: &Path) -> Result<()> {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("delegate {controller} in {}", folder.display()))?;
    }
    Ok(())
}

/// Moves this process into `group`.
pub fn join(group: &Path) -> Result<()> {
    for hierarchy in hierarchies()? {
        let file = hierarchy.mount.join(group).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Moves this process into the cgroups of another one.
pub fn join_those_of(process: u32) -> Result<()> {
    let own = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    for Hierarchy { mount, options } in hierarchies()? {
        // "4:cpu,cpuacct:/path", "0::/path" for version 2.
        let path = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            (controllers == options.as_deref().unwrap_or_default()).then_some(path)
        });
        let path = path.with_context(|| format!("process {process} is not in {}", mount.display()))?;
        let file = mount.join(path.trim_start_matches('/')).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Whether any hierarchy has the directory.
pub fn exists(group: &Path) -> Result<bool> {
    Ok(hierarchies()?.iter().any(|hierarchy| hierarchy.mount.join(group).exists()))
}

/// The processes in `group` and below.
pub fn processes(group: &Path) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies()? {
        for folder in folders(&hierarchy.mount.join(group)) {
            // It may be removed meanwhile.
            let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            // 0 stands for a process that this namespace does not see.
            found.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|id| *id > 0));
        }
    }
    Ok(found)
}

/// Removes the directory everywhere, as far as it is empty; whether nothing is left.
pub fn remove(group: &Path) -> Result<bool> {
    let mut left = false;
    for hierarchy in hierarchies()? {
        let top = hierarchy.mount.join(group);
        for folder in folders(&top) {
            // Not needed for the removal: it returns the page cache's memory with the directory.
            drop(fs::write(folder.join("memory.force_empty"), "0"));
            drop(fs::remove_dir(&folder));
        }
        left |= top.exists();
    }
    Ok(!left)
}

/// A directory and all below it, the deepest first.
fn folders(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(top) else { return found };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(folders(&entry.path()));
        }
    }
    found.push(top.to_owned());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mountinfo = "\
            30 1 0:20 / /proc rw - proc proc rw\n\
            31 1 0:21 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            32 1 0:22 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            33 1 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = parse(mountinfo, "#subsys_name\thierarchy\ncpu\t1\ncpuacct\t1\n");
        let options: Vec<_> = found.iter().map(|hierarchy| hierarchy.options.as_deref()).collect();
        assert_eq!(options, [Some("cpu,cpuacct"), Some("name=systemd"), None]);
        assert_eq!(found[2].mount, Path::new("/sys/fs/cgroup/unified"));
    }
}
