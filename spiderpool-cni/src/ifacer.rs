//! The plugin `ifacer`: runs before the main plugin and makes the node's interface that it works on, a VLAN or a bond.
//!
//! All pods of the network share the interface: DEL leaves it, and it is gone with the next start of the node, after which
//! the first pod's ADD makes it again. The agent is not asked.

mod add;
mod check;
pub mod config;

use serde_json::Value;
use spiderpool_core::gc::ValidAttachments;
use spiderpool_net::block_on;

pub use config::NetConf;

use crate::env::{Command, Request};
use crate::error::PluginError;
use crate::log::LogOptions;
use crate::run::Plugin;
use crate::spec::Version;

/// The plugin.
pub struct Ifacer;

impl Plugin for Ifacer {
    type Config = NetConf;
    const NAME: &'static str = "ifacer";

    fn parse(bytes: &[u8], command: Command) -> Result<NetConf, PluginError> {
        NetConf::parse(bytes, command)
    }

    fn log_options(config: &NetConf) -> LogOptions {
        config.log_options()
    }

    fn network(config: &NetConf) -> &str {
        &config.base.name
    }

    /// The kernel is always there.
    fn status(_: &NetConf) -> Result<(), PluginError> {
        Ok(())
    }

    fn add(request: &Request, config: NetConf, version: Version) -> Result<Value, PluginError> {
        block_on(add::add(request, config, version))
    }

    /// Other pods use the interfaces.
    fn del(_: &Request, _: NetConf) -> Result<(), PluginError> {
        Ok(())
    }

    fn check(request: &Request, config: NetConf) -> Result<(), PluginError> {
        block_on(check::check(request, &config))
    }

    /// There is nothing of one attachment.
    fn gc(_: &NetConf, _: ValidAttachments) -> Result<(), PluginError> {
        Ok(())
    }
}
