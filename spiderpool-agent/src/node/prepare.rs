//! `spiderpool-agent prepare-node`: what a node needs before the daemon starts, and the daemon has no privileges for.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::logging::{self, Level};
use tracing::info;

use super::plugins::IN_IMAGE;
use super::{bpffs, install, sysctls};
use crate::config::{ConfigFile, DEFAULT_CONFIG};

/// Arguments of `spiderpool-agent prepare-node`.
#[derive(Debug, Clone, Args)]
pub struct PrepareNode {
    /// The agent's configuration file; `tuneSysctlConfig` in it asks for kernel parameters.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config_path: PathBuf,
    /// Where the BPF file system is to be mounted; not at all if absent.
    #[arg(long, value_name = "FOLDER")]
    bpffs: Option<PathBuf>,
    /// The node's mount namespace, which it is mounted in; this container's own if absent.
    #[arg(long, value_name = "FILE")]
    mount_namespace: Option<PathBuf>,
    /// The folder with the plugins of the image.
    #[arg(long, value_name = "FOLDER", default_value = IN_IMAGE)]
    cni_plugins: PathBuf,
    /// The node's folder for CNI plugins, as this container sees it: they are installed there; not if absent.
    #[arg(long, value_name = "FOLDER")]
    plugins_to: Option<PathBuf>,
    /// A folder with plugins of other projects, which are installed too; of those, a version that somebody else has
    /// installed stays.
    #[arg(long, value_name = "FOLDER", requires = "plugins_to")]
    other_plugins: Option<PathBuf>,
}

/// Mounts the BPF file system, writes kernel parameters and installs the plugins. One command, because a kubelet takes a
/// second for each init container.
pub fn run(options: &PrepareNode) -> anyhow::Result<()> {
    logging::init(Level::Info);
    if let Some(path) = &options.bpffs {
        let mounted = match &options.mount_namespace {
            Some(namespace) => bpffs::mount_in(namespace, path)?,
            None => bpffs::mount(path)?,
        };
        info!(path = %path.display(), ?mounted, "BPF file system mounted");
    }
    let file = ConfigFile::load(&options.config_path).context("node cannot be prepared")?;
    if file.tune_sysctl_config {
        sysctls::tune(&file.families());
    }
    if let Some(to) = &options.plugins_to {
        install::install_all(&options.cni_plugins, options.other_plugins.as_deref(), to)?;
    }
    Ok(())
}
