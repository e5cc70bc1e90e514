//! The plugin `coordinator`: runs after the main plugin and makes a pod with several NICs reach everything.

mod add;
mod attach;
mod check;
pub mod config;
mod del;
mod ebpf;
mod next_hops;
mod policy;
mod register;
mod setup;
mod state;
#[cfg(test)]
mod tests;

use serde_json::Value;
use spiderpool_core::coordinator::COORDINATOR;
use spiderpool_core::gc::ValidAttachments;
use spiderpool_net::block_on;

pub use config::NetConf;

use crate::env::{Command, Request};
use crate::error::PluginError;
use crate::log::LogOptions;
use crate::run::Plugin;
use crate::spec::Version;

/// The plugin.
pub struct Coordinator;

impl Plugin for Coordinator {
    type Config = NetConf;
    const NAME: &'static str = COORDINATOR;

    fn parse(bytes: &[u8], command: Command) -> Result<NetConf, PluginError> {
        NetConf::parse(bytes, command)
    }

    fn log_options(config: &NetConf) -> LogOptions {
        config.log_options()
    }

    fn network(config: &NetConf) -> &str {
        &config.base.name
    }

    fn status(config: &NetConf) -> Result<(), PluginError> {
        config.client().healthy().map_err(PluginError::NotAvailable)
    }

    fn add(request: &Request, config: NetConf, version: Version) -> Result<Value, PluginError> {
        block_on(add::add(request, config, version))
    }

    fn del(request: &Request, config: NetConf) -> Result<(), PluginError> {
        del::del(request, &config);
        Ok(())
    }

    fn check(request: &Request, config: NetConf) -> Result<(), PluginError> {
        block_on(check::check(request, &config))
    }

    /// The agent knows which NICs are registered, and removes what they have on the node.
    fn gc(config: &NetConf, valid: ValidAttachments) -> Result<(), PluginError> {
        let collected = config.client().collect_nics(&valid.into());
        collected.map_err(|error| PluginError::of_client(error, PluginError::Gc))
    }
}
