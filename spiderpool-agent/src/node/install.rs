//! CNI plugins, ours and those of other projects, in the node's folder before the agent starts; and
//! `spiderpool-agent install-plugins`, which does that alone.

use std::path::{Path, PathBuf};

use clap::Args;
use spiderpool_core::coordinator::second_name;
use spiderpool_runtime::logging::{self, Level};
use tracing::{info, warn};

use super::installed::{self, Outcome};
use super::plugins::{IN_IMAGE, PluginsError, install, list};

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
    Ok(install_all(&options.from, options.others.as_deref(), &options.to)?)
}

/// Installs the plugins of the folder `from`, and those of other projects in the folder `others`. Their names are not ours, and
/// neither is the second name of one of ours: what somebody else has there stays.
pub(super) fn install_all(from: &Path, others: Option<&Path>, to: &Path) -> Result<(), PluginsError> {
    for plugin in list(from)? {
        // First, while the program is there that tells whether this is ours.
        if let Some(name) = second_name(&plugin) {
            let outcome = installed::install(name.as_ref(), &plugin, to)?;
            if outcome == Outcome::LeftAlone {
                warn!(to = %to.display(), "another project's plugin {name} is in the folder, leaving it");
            } else {
                info!(
                    plugin = %plugin.display(), name, to = %to.display(), ?outcome,
                    "CNI plugin's second name"
                );
            }
        }
        let outcome = install(&plugin, to)?;
        info!(plugin = %plugin.display(), to = %to.display(), ?outcome, "CNI plugin installed");
    }
    let Some(others) = others else { return Ok(()) };
    for plugin in list(others)? {
        let outcome = installed::install(plugin.file_name().unwrap_or_default(), &plugin, to)?;
        info!(plugin = %plugin.display(), to = %to.display(), ?outcome, "CNI plugin of another project");
    }
    Ok(())
}
