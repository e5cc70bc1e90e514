//! Puts CNI plugins back that vanish from the node's folder while the agent runs: an update of the node empties it, or
//! makes another folder of it (k3s). Until then no pod starts, and none ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use spiderpool_core::coordinator::second_name;
use spiderpool_runtime::backoff;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::host_path::HostFolder;
use super::installed;
use super::plugins::{self, IN_IMAGE, PluginsError};

/// How often the folder is looked at.
const PERIOD: Duration = Duration::from_secs(3);

/// How long until the next look: longer after each failure, which may have written megabytes.
fn next_pause(last: Duration, has_failed: bool) -> Duration {
    if has_failed { last.saturating_mul(2).min(backoff::MAX_PAUSE) } else { PERIOD }
}

/// Which plugins are kept where.
#[derive(Debug, Clone, Args)]
pub struct PluginFolders {
    /// The node's folder for CNI plugins, as the node names it; plugins that vanish from it are put back. Not if absent.
    #[arg(long, env = "SPIDERPOOL_CNI_BIN_DIR", value_name = "FOLDER")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Where the node's own folders are mounted.
    #[arg(long, value_name = "FOLDER", default_value = "/host")]
    pub host: PathBuf,
    /// The folder with the plugins of the image.
    #[arg(long, value_name = "FOLDER", default_value = IN_IMAGE)]
    pub cni_plugins: PathBuf,
    /// A folder with plugins of other projects that were installed too.
    #[arg(long, value_name = "FOLDER")]
    pub other_plugins: Option<PathBuf>,
}

/// Puts missing plugins back until shutdown.
pub(crate) async fn restore(folders: PluginFolders, shutdown: CancellationToken) {
    let Some(cni_bin) = folders.cni_bin_dir else { return };
    let (host, image, others) = (folders.host, folders.cni_plugins, folders.other_plugins);
    let mut check = Check { host, cni_bin, image, others, ..Check::default() };
    let mut pause = PERIOD;
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let ran = tokio::task::spawn_blocking(move || {
            check.run();
            check
        });
        let Ok(after) = ran.await else { return };
        check = after;
        pause = next_pause(pause, check.failure.is_some());
    }
}

/// A file, without its content.
type Identity = (u64, u64, i64, i64, u64);

fn identity(file: &Metadata) -> Identity {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len())
}

#[derive(Debug, Default)]
struct Check {
    host: PathBuf,
    cni_bin: PathBuf,
    image: PathBuf,
    others: Option<PathBuf>,
    /// The files that have been compared with those of the image.
    compared: BTreeMap<PathBuf, Identity>,
    /// The failure that was logged last.
    failure: Option<String>,
}

impl Check {
    fn run(&mut self) {
        let outcome = self.restore_missing();
        let failure = outcome.err().map(|error| error.to_string());
        if let Some(error) = &failure
            && self.failure != failure
        {
            let folder = self.cni_bin.display();
            warn!(error, %folder, "CNI plugins cannot be looked after, trying again");
        }
        self.failure = failure;
    }

    /// Answers the first failure; it keeps no other plugin from being put back.
    fn restore_missing(&mut self) -> Result<(), PluginsError> {
        let opened = HostFolder::open(&self.host, &self.cni_bin);
        let folder = opened.map_err(|error| PluginsError::new(&self.cni_bin, "open", error))?;
        let mut outcome = Ok(());
        for plugin in plugins::list(&self.image)? {
            let mut restored = self.restore(&plugin, &folder.path());
            if let Some(name) = second_name(&plugin) {
                restored = restored.and(self.restore_other(name.as_ref(), &plugin, &folder.path()));
            }
            outcome = outcome.and(restored.map_err(|error| error.in_folder(&self.cni_bin)));
        }
        let others = self.others.as_ref().map(|others| plugins::list(others)).transpose()?;
        for plugin in others.unwrap_or_default() {
            let name = plugin.file_name().unwrap_or_default();
            let restored = self.restore_other(name, &plugin, &folder.path());
            outcome = outcome.and(restored.map_err(|error| error.in_folder(&self.cni_bin)));
        }
        outcome
    }

    /// What is there by this name stays, whosever it is.
    fn restore_other(&self, name: &OsStr, plugin: &Path, folder: &Path) -> Result<(), PluginsError> {
        if fs::symlink_metadata(folder.join(name)).is_ok() {
            return Ok(());
        }
        installed::install(name, plugin, folder)?;
        let (name, folder) = (name.display(), self.cni_bin.display());
        info!(plugin = %plugin.display(), %name, %folder, "CNI plugin was missing and is put back");
        Ok(())
    }

    fn restore(&mut self, plugin: &Path, folder: &Path) -> Result<(), PluginsError> {
        let installed = folder.join(plugin.file_name().unwrap_or_default());
        match fs::metadata(&installed) {
            Ok(there) => self.compare(plugin, &installed, identity(&there)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link may lead to somewhere on the node that this container does not see.
                if fs::symlink_metadata(&installed).is_ok() {
                    return Err(PluginsError::new(&installed, "follow link", error));
                }
                if plugins::install_missing(plugin, folder)? {
                    let folder = self.cni_bin.display();
                    info!(plugin = %plugin.display(), %folder, "CNI plugin was missing and is put back");
                }
            }
            Err(error) => return Err(PluginsError::new(&installed, "stat", error)),
        }
        Ok(())
    }

    /// Another version is left alone: who wrote it may be newer.
    fn compare(&mut self, plugin: &Path, installed: &Path, identity: Identity) {
        if self.compared.insert(plugin.to_owned(), identity) == Some(identity) {
            return;
        }
        if !plugins::have_same_content(plugin, installed).unwrap_or(false) {
            let folder = self.cni_bin.display();
            warn!(plugin = %plugin.display(), %folder, "CNI plugin on the node is not this agent's, leaving it");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `/opt/bin` of a node below `host`, with the plugins spiderpool and coordinator in the image.
    fn node() -> (tempfile::TempDir, Check) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["image", "host/opt/bin"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for plugin in ["spiderpool", "coordinator"] {
            fs::write(root.path().join("image").join(plugin), plugin).unwrap();
        }
        let (host, image) = (root.path().join("host"), root.path().join("image"));
        (root, Check { host, cni_bin: "/opt/bin".into(), image, ..Check::default() })
    }

    /// Without the record of what is ours.
    fn content(folder: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_plugin_that_vanished_is_put_back_and_another_version_is_left() {
        let (root, mut check) = node();
        let bin = root.path().join("host/opt/bin");
        fs::write(bin.join("coordinator"), "newer").unwrap();
        check.run();
        let expected = [("coordinator", "newer"), ("spiderpool", "spiderpool"), ("veth", "coordinator")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(content(&bin), expected);
        for name in ["spiderpool", "veth"] {
            fs::remove_file(bin.join(name)).unwrap();
        }
        check.run();
        assert_eq!(content(&bin), expected);
        assert_eq!(check.failure, None);
    }

    /// Multus, the reference plugins.
    #[test]
    fn plugins_of_other_projects_are_put_back_too() {
        let (root, mut check) = node();
        let (others, bin) = (root.path().join("others"), root.path().join("host/opt/bin"));
        fs::create_dir(&others).unwrap();
        for plugin in ["multus", "macvlan"] {
            fs::write(others.join(plugin), plugin).unwrap();
        }
        check.others = Some(others);
        fs::write(bin.join("macvlan"), "of the distribution").unwrap();
        check.run();
        assert_eq!(fs::read_to_string(bin.join("multus")).unwrap(), "multus");
        assert_eq!(fs::read_to_string(bin.join("macvlan")).unwrap(), "of the distribution");
        fs::remove_file(bin.join("multus")).unwrap();
        check.run();
        assert_eq!((bin.join("multus").exists(), check.failure), (true, None));
    }

    /// As k3s does: `current` is an absolute link that an upgrade moves.
    #[test]
    fn a_folder_that_moved_gets_the_plugins() {
        let (root, mut check) = node();
        check.cni_bin = "/data/current/bin".into();
        let data = root.path().join("host/data");
        for version in ["one", "two"] {
            fs::create_dir_all(data.join(version).join("bin")).unwrap();
            drop(fs::remove_file(data.join("current")));
            symlink(Path::new("/data").join(version), data.join("current")).unwrap();
            check.run();
            assert_eq!(content(&data.join(version).join("bin")).len(), 3, "{version}: {:?}", check.failure);
        }
    }

    /// `/proc/self/fd/N` would be another failure each time.
    #[test]
    fn a_failure_names_the_nodes_path_and_keeps_no_other_plugin_away() {
        let (root, mut check) = node();
        let bin = root.path().join("host/opt/bin");
        symlink("coordinator", bin.join("coordinator")).unwrap();
        check.run();
        let failure = check.failure.clone().unwrap();
        assert!(failure.starts_with("CNI plugin /opt/bin/coordinator: stat: "), "{failure}");
        assert!(bin.join("spiderpool").exists());
    }

    /// Each try wrote, synced and removed tens of MB for nothing.
    #[test]
    fn a_link_that_leads_nowhere_is_named_and_left() {
        let (root, mut check) = node();
        let bin = root.path().join("host/opt/bin");
        symlink("/on/the/node", bin.join("spiderpool")).unwrap();
        check.run();
        let failure = check.failure.clone().unwrap();
        assert!(failure.starts_with("CNI plugin /opt/bin/spiderpool: follow link: "), "{failure}");
        assert_eq!(fs::read_link(bin.join("spiderpool")).unwrap(), Path::new("/on/the/node"));
        let mut names: Vec<_> = fs::read_dir(&bin).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".spiderpool-plugins.json", "coordinator", "spiderpool", "veth"]);
    }

    #[test]
    fn failures_are_tried_again_less_and_less_often() {
        let pause = (0..9).fold(PERIOD, |pause, _| next_pause(pause, true));
        assert_eq!(pause, backoff::MAX_PAUSE);
        assert_eq!((next_pause(PERIOD, true), next_pause(pause, false)), (PERIOD * 2, PERIOD));
    }

    #[test]
    fn a_missing_folder_is_named_and_tried_again() {
        let (root, mut check) = node();
        let bin = root.path().join("host/opt/bin");
        fs::remove_dir(&bin).unwrap();
        check.run();
        assert!(check.failure.as_ref().unwrap().contains("/opt/bin"), "{:?}", check.failure);
        fs::create_dir(&bin).unwrap();
        check.run();
        assert_eq!((check.failure.as_ref(), content(&bin).len()), (None, 3));
    }
}
