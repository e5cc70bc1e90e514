//! `spiderpool-agent prepare-node`: what needs privileges that the daemon does not have.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::logging::{self, Level};
use tracing::info;

use super::{bpffs, sysctls};
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
}

/// Mounts the BPF file system and writes kernel parameters.
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
    Ok(())
}
