//! The agent's configuration: command line, environment and configuration file.

mod environment;
mod file;

use spiderpool_core::ip::Family;

pub use environment::{Daemon, Environment, MapSizes};
pub use file::ConfigFile;

/// Where the chart mounts the configuration file.
pub const DEFAULT_CONFIG: &str = "/tmp/spiderpool/config-map/conf.yml";

impl ConfigFile {
    /// The families that pods get addresses of.
    pub fn families(&self) -> Vec<Family> {
        let enabled = [(Family::V4, self.enable_ipv4), (Family::V6, self.enable_ipv6)];
        enabled.into_iter().filter_map(|(family, enabled)| enabled.then_some(family)).collect()
    }
}
