//! Removes what agents have installed. Continues after a failure; a missing file is none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spiderpool_core::coordinator::second_name;
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use tracing::info;

use crate::atomic_file;
use crate::node::{installed, plugins};

/// Where agents have put what on the node, as this container sees it.
pub(super) struct Installed {
    /// The plugins in the image, which name those on the node.
    pub(super) plugins: Vec<PathBuf>,
    pub(super) cni_bin: PathBuf,
    pub(super) logs: PathBuf,
    pub(super) pins: PathBuf,
    /// The list of pods, and that of pods that virtual machines move to.
    pub(super) state: [PathBuf; 2],
    pub(super) socket: PathBuf,
}

/// Removes node links.
pub(super) async fn links(hosts: &[IfName]) -> Vec<String> {
    let mut failures = Vec::new();
    for host in hosts {
        failures.extend(link(host).await.err().map(|error| error.to_string()));
    }
    failures
}

async fn link(host: &IfName) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    if netlink.link_by_name(host).await?.is_some() {
        netlink.delete_link(host).await?;
        info!(link = %host, "idle node link removed");
    }
    Ok(())
}

/// Removes the rules of dataplane policy that no pod needs any more.
pub(super) async fn rules() -> Vec<String> {
    let remove = async { Netlink::open()?.delete_idle_rules().await };
    remove.await.err().map(|error: NetlinkError| error.to_string()).into_iter().collect()
}

impl Installed {
    /// Removes the socket; the agent that listened has ended.
    pub(super) fn socket(&self) -> Vec<String> {
        collect([file(&self.socket)])
    }

    /// Removes plugins, pins, state and logs, and folders that are empty then.
    pub(super) fn everything(&self) -> Vec<String> {
        let names: Vec<&str> =
            self.plugins.iter().filter_map(|plugin| plugin.file_name()?.to_str()).collect();
        let mut outcomes = Vec::new();
        // First, while the program is there that tells whether this is ours.
        for plugin in &self.plugins {
            if let Some(name) = second_name(plugin) {
                let removed = installed::remove_second(name, plugin, &self.cni_bin);
                outcomes.push(removed.map(drop).map_err(|error| error.to_string()));
            }
        }
        for name in &names {
            outcomes.extend(plugins::files(&self.cni_bin, name.as_ref()).iter().map(|path| file(path)));
        }
        outcomes.push(tree(&self.pins));
        let [pods, migrations] = &self.state;
        for path in [pods, &pods.with_extension("new"), migrations, &atomic_file::beside(migrations)] {
            outcomes.push(file(path));
        }
        outcomes.extend(logs(&self.logs, &names).iter().map(|log| file(log)));
        for folder in [self.pins.parent(), pods.parent(), self.socket.parent(), Some(&self.logs)] {
            outcomes.extend(folder.map(empty_folder));
        }
        collect(outcomes)
    }
}

/// The plugins' logs, also those that were renamed for their size.
fn logs(folder: &Path, plugins: &[&str]) -> Vec<PathBuf> {
    // PLUGIN.log and PLUGIN-TIME.log.
    let is_of = |name: &str, plugin: &str| {
        let rest = name.strip_suffix(".log").and_then(|name| name.strip_prefix(plugin));
        rest.is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix('-').is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let is_ours = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        plugins.iter().any(|plugin| is_of(name, plugin))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| is_ours(path)).collect()
}

type Outcome = Result<(), String>;

fn collect(outcomes: impl IntoIterator<Item = Outcome>) -> Vec<String> {
    outcomes.into_iter().filter_map(Result::err).collect()
}

fn file(path: &Path) -> Outcome {
    removed(path, fs::remove_file(path))
}

fn tree(path: &Path) -> Outcome {
    removed(path, fs::remove_dir_all(path))
}

/// A folder that is not empty is shared with others and stays.
fn empty_folder(path: &Path) -> Outcome {
    match fs::remove_dir(path) {
        // A mount point is busy: whoever mounted it removes it.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) =>
        {
            Ok(())
        }
        outcome => removed(path, outcome),
    }
}

fn removed(path: &Path, outcome: io::Result<()>) -> Outcome {
    match outcome {
        Ok(()) => {
            info!(path = %path.display(), "removed");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_what_agents_installed_and_nothing_else() {
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        for file in [
            "opt/cni/bin/coordinator",
            "opt/cni/bin/.coordinator.spiderpool-new",
            "opt/cni/bin/.coordinator.spiderpool-restored",
            "opt/cni/bin/macvlan",
            "bpf/spiderpool/v1/nics",
            "run/spidernet/dataplane.json",
            "run/spidernet/migrations.json",
            "run/spidernet/.migrations.json.spiderpool-new",
            "run/spidernet/spiderpool.sock",
            "log/spidernet/coordinator.log",
            "log/spidernet/coordinator-2026-01-02T03-04-05.log",
            "log/spidernet/other.log",
            "log/spidernet/spiderpool-other.log",
        ] {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "").unwrap();
        }
        let image = tempfile::tempdir().unwrap();
        let coordinator = image.path().join("coordinator");
        fs::write(&coordinator, "ours").unwrap();
        installed::install("veth".as_ref(), &coordinator, &at("opt/cni/bin")).unwrap();
        let installed = Installed {
            plugins: vec![coordinator, "/image/spiderpool".into()],
            cni_bin: at("opt/cni/bin"),
            logs: at("log/spidernet"),
            pins: at("bpf/spiderpool/v1"),
            state: ["dataplane.json", "migrations.json"].map(|file| at("run/spidernet").join(file)),
            socket: at("run/spidernet/spiderpool.sock"),
        };
        assert_eq!(installed.socket(), Vec::<String>::new());
        assert_eq!(installed.everything(), Vec::<String>::new());
        let left = |folder: &str| fs::read_dir(at(folder)).map(Iterator::count).ok();
        assert_eq!((left("opt/cni/bin"), left("log/spidernet")), (Some(1), Some(2)));
        assert_eq!((left("bpf/spiderpool"), left("run/spidernet")), (None, None));
        assert_eq!(installed.everything(), Vec::<String>::new(), "a second time as well");
    }
}
