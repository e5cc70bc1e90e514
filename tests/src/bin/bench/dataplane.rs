//! What the programs cost: round trips, connections and streams through the same topology, with and without them, in turns.

mod agent_start;
mod agent_thread;
mod builds;
mod connection;
mod lab;
mod round_trip;
mod run_time;

use anyhow::Result;

use crate::arguments::DataplaneArguments;
use crate::samples::Report;

pub(crate) fn measure(arguments: &DataplaneArguments, report: &mut Report) -> Result<()> {
    match (&arguments.peer_build, arguments.flows) {
        (Some(peer), _) => builds::measure(arguments, peer, report),
        (None, Some(flows)) => agent_thread::measure(arguments, flows, report),
        (None, None) => lab::measure(arguments, report),
    }
}
