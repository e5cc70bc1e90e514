//! `bench ipam`: the IPAM plugin, and addresses from one pool.

mod allocation;
mod arguments;
mod burst;
mod full_pool;
mod growth;
mod instant_agent;
mod plugin;

use anyhow::Result;

pub(crate) use self::arguments::IpamArguments;
use crate::samples::Report;

pub(crate) fn measure(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    if let Some(size) = arguments.full_pool {
        return full_pool::measure(arguments, size, report);
    }
    if !arguments.in_use.is_empty() {
        return growth::measure(arguments, report);
    }
    plugin::measure(arguments, report)?;
    allocation::measure(arguments, report)
}
