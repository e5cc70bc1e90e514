//! What the programs cost: round trips, connections and streams through the same topology, with and without them, in turns.

mod agent_start;
mod builds;
mod connection;
mod lab;
mod round_trip;
mod run_time;

use anyhow::Result;

use crate::arguments::DataplaneArguments;
use crate::samples::Report;

pub(crate) fn measure(arguments: &DataplaneArguments, report: &mut Report) -> Result<()> {
    match &arguments.peer_build {
        Some(peer) => builds::measure(arguments, peer, report),
        None => lab::measure(arguments, report),
    }
}
