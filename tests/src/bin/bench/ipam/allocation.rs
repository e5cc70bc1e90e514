//! Addresses for many pods from a roomy pool and from one that has just enough: a real API server with fsync, one agent per node.

use std::path::Path;

use anyhow::{Context as _, Result};
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::tools;

use super::arguments::IpamArguments;
use super::burst::{Burst, BurstRows};
use crate::adds::release_all;
use crate::agents::Agents;
use crate::leader::{Leader, control_plane};
use crate::pods::{create_nodes, create_pods, spread};
use crate::pool::Pool;
use crate::samples::{Report, Side};

/// Addresses for each pod.
const POOLS: [(&str, usize); 2] = [("roomy pool", 4), ("tight pool", 1)];

pub(super) fn measure(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    if arguments.rounds == 0 {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(measure_all(arguments, report))
}

async fn measure_all(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    let plane = control_plane()?;
    let _leader = if arguments.leader { Some(Leader::start(&plane).await?) } else { None };
    let ours = tools::spiderpool("spiderpool-agent")?;
    for in_flight in &arguments.in_flight {
        for (kind, addresses) in POOLS {
            let title = format!("{} ADDs, {in_flight} in flight, {kind}", arguments.pods);
            let mut rows = BurstRows::default();
            for round in 0..arguments.rounds {
                let mut sides = [(Side::Ours, Some(&ours)), (Side::Peer, arguments.peer_agent.as_ref())];
                // Each is the first in turn.
                if round % 2 == 1 {
                    sides.reverse();
                }
                for (side, agent) in sides {
                    let Some(agent) = agent else { continue };
                    let name = format!("bench-{kind}-{in_flight}-{round}-{side:?}").replace(' ', "-");
                    let pool = Pool::of_size(&name.to_lowercase(), arguments.pods * addresses)?;
                    let context = || format!("{side:?}, {title}, round {round}");
                    let burst =
                        run(&plane, agent, arguments, &pool, *in_flight).await.with_context(context)?;
                    if side == Side::Ours {
                        burst.must_be_complete().with_context(context)?;
                    }
                    rows.add(side, &burst);
                }
            }
            rows.report(&title, report);
        }
    }
    Ok(())
}

/// One round: the pool is made, agents started, then pods, every one of which gets its address; then all is removed.
async fn run(
    plane: &ControlPlane,
    agent: &Path,
    arguments: &IpamArguments,
    pool: &Pool,
    in_flight: usize,
) -> Result<Burst> {
    let (client, nodes) = (plane.client().await?, 0..arguments.agents);
    pool.create(plane)?;
    create_nodes(&client, nodes.clone()).await?;
    let agents = Agents::start(plane, agent, nodes.clone()).await?;
    let wants = create_pods(&client, &pool.name, spread(arguments.pods, nodes)).await?;
    let mut burst = Burst::run(plane, &agents, &wants, pool, in_flight).await?;
    burst.failed_releases = release_all(&client, &agents, &wants).await?;
    drop(agents);
    pool.delete(plane)?;
    Ok(burst)
}
