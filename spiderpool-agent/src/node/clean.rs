//! `spiderpool-agent clean-node`: at uninstall, removes what agents have installed on the node.
//!
//! Keeps what running pods need: the runtime executes the plugins at their DEL, and their NICs have the pinned
//! programs.

mod api;
mod kernel;
mod multus;
mod plan;
mod remove;

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use spiderpool_core::names::NodeName;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::logging::{self, Level};
use tracing::{error, info, warn};

use super::plugins::IN_IMAGE;
use crate::config::{ConfigFile, DEFAULT_CONFIG};
use crate::{ipam, pod_network};
use plan::{CleanPlan, plan};
use remove::Installed;

/// Arguments of `spiderpool-agent clean-node`.
#[derive(Debug, Clone, Args)]
pub struct CleanNode {
    /// The agent's configuration file.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config_path: PathBuf,
    /// This node.
    #[arg(long, env = "SPIDERPOOL_NODE_NAME")]
    node_name: NodeName,
    /// Where the node's own folders are mounted.
    #[arg(long, value_name = "FOLDER", default_value = "/host")]
    host: PathBuf,
    /// The folder with the plugins that were installed.
    #[arg(long, value_name = "FOLDER", default_value = IN_IMAGE)]
    plugins: PathBuf,
    /// The node's folder for plugins, as the node names it.
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    cni_bin: PathBuf,
    /// Where the plugins log, as the node names it.
    #[arg(long, value_name = "FOLDER", default_value = "/var/log/spidernet")]
    logs: PathBuf,
    /// Where programs and maps are pinned, as this container sees it.
    #[arg(
        long,
        env = "SPIDERPOOL_BPF_DIR",
        value_name = "FOLDER",
        default_value = "/sys/fs/bpf/spiderpool/v1"
    )]
    bpf_dir: PathBuf,
    /// Where the inventory of the node's pods is, as the node names it.
    #[arg(long, env = "SPIDERPOOL_STATE_DIR", value_name = "FOLDER", default_value = "/var/run/spidernet")]
    state_dir: PathBuf,
    /// The node's folder for CNI configuration, as the node names it, if Multus is to be removed: its configuration in any
    /// case, its program and kubeconfig unless pods run that need them for their end.
    #[arg(long, value_name = "FOLDER")]
    multus: Option<PathBuf>,
}

impl CleanNode {
    fn on_host(&self, path: &Path) -> PathBuf {
        self.host.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Fails if something that is not in use cannot be removed.
pub async fn run(options: CleanNode) -> anyhow::Result<()> {
    logging::init(Level::Info);
    let socket = ConfigFile::load(&options.config_path)?.socket().to_owned();
    let folder = options.on_host(&options.state_dir);
    let state = pod_network::state_path(&folder);
    let in_kernel = kernel::read(&state).await.map_err(|error| error.to_string());
    let in_api = api::pods_with_addresses(&options.node_name).await;
    let CleanPlan { idle_links, keep } = plan(in_kernel, in_api);
    let installed = Installed {
        plugins: super::plugins::list(&options.plugins)?,
        cni_bin: options.on_host(&options.cni_bin),
        logs: options.on_host(&options.logs),
        pins: options.bpf_dir.clone(),
        state: [state, ipam::state_path(&folder)],
        socket: options.on_host(&socket),
    };
    let mut failures = remove::links(&idle_links).await;
    failures.extend(remove::rules().await);
    failures.extend(installed.socket());
    if let Some(conf_dir) = &options.multus {
        let conf_dir = options.on_host(conf_dir);
        failures.extend(multus::clean(&conf_dir, &installed.cni_bin, &options.node_name, &keep).await);
    }
    if keep.is_empty() {
        failures.extend(installed.everything());
    } else {
        for why in &keep {
            warn!(node = %options.node_name, why, "node is in use, keeping plugins, programs and state");
        }
        let (bin, pins) = (options.cni_bin.display(), options.bpf_dir.display());
        let state = pod_network::state_path(&options.state_dir);
        warn!(%bin, %pins, state = %state.display(), "CNI plugins, pinned programs and the list of pods are kept: remove them when these pods have terminated, or install Spiderpool again");
    }
    for failure in &failures {
        error!(failure, "removal failed");
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    info!(node = %options.node_name, in_use = keep.len(), "node cleaned");
    Ok(())
}
