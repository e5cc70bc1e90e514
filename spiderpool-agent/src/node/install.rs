//! `spiderpool-agent install-plugins`: our plugins and those of other projects, before the agent starts.

use std::path::PathBuf;

use clap::Args;
use spiderpool_runtime::logging::{self, Level};
use tracing::info;

use super::installed;
use super::plugins::{IN_IMAGE, install, list};

/// Arguments of `spiderpool-agent install-plugins`.
#[derive(Debug, Clone, Args)]
pub struct InstallPlugins {
    /// The folder with the plugins.
    #[arg(long, value_name = "FOLDER", default_value = IN_IMAGE)]
    from: PathBuf,
    /// The node's folder for plugins, as this container sees it.
    #[arg(long, value_name = "FOLDER", default_value = "/host/opt/cni/bin")]
    to: PathBuf,
    /// A folder with plugins of other projects, of which a version that somebody else has installed stays.
    #[arg(long, value_name = "FOLDER")]
    others: Option<PathBuf>,
}

/// Installs all plugins.
pub fn run(options: &InstallPlugins) -> anyhow::Result<()> {
    logging::init(Level::Info);
    for plugin in list(&options.from)? {
        let outcome = install(&plugin, &options.to)?;
        info!(plugin = %plugin.display(), to = %options.to.display(), ?outcome, "CNI plugin installed");
    }
    if let Some(others) = &options.others {
        for plugin in list(others)? {
            let outcome = installed::install(&plugin, &options.to)?;
            info!(plugin = %plugin.display(), to = %options.to.display(), ?outcome, "CNI plugin of another project");
        }
    }
    Ok(())
}
