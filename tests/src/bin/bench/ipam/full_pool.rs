//! A pool that is nearly full, where a pick without knowledge collides 99 times in 100.

use anyhow::{Context as _, Result, ensure};
use spiderpool_tests::tools;

use super::arguments::IpamArguments;
use super::burst::{Burst, BurstRows};
use crate::adds::release_all;
use crate::agents::Agents;
use crate::fill::Filled;
use crate::pods::{create_nodes, create_pods, spread};
use crate::pool::Pool;
use crate::samples::{Report, Side};

pub(super) fn measure(arguments: &IpamArguments, size: usize, report: &mut Report) -> Result<()> {
    ensure!(size >= 200, "1 % of {size} addresses is less than the two that are needed");
    tokio::runtime::Runtime::new()?.block_on(async {
        let pool = Pool::of_size("full", size)?;
        let left = size / 100;
        let mut filled = Filled::start().await?;
        pool.create(&filled.plane)?;
        filled.fill(&pool, size - left).await?;
        let (client, nodes) = (filled.plane.client().await?, 0..arguments.agents);
        create_nodes(&client, nodes.clone()).await?;
        for in_flight in &arguments.in_flight {
            let mut rows = BurstRows::default();
            let title = format!("{} ADDs, {in_flight} in flight, pool of {size} with {left} free", left / 2);
            for round in 0..arguments.rounds {
                let prefix = format!("more-{in_flight}-{round}");
                let wants = create_pods(&client, &prefix, spread(left / 2, nodes.clone())).await?;
                // New ones, which know nothing of the pool.
                let agents =
                    Agents::start(&filled.plane, &tools::spiderpool("spiderpool-agent")?, nodes.clone())
                        .await?;
                let mut burst = Burst::run(&filled.plane, &agents, &wants, &pool, *in_flight).await?;
                burst.failed_releases = release_all(&client, &agents, &wants).await?;
                burst.must_be_complete().with_context(|| format!("{title}, round {round}"))?;
                rows.add(Side::Ours, &burst);
                filled.wait_settled().await?;
            }
            rows.report(&title, report);
        }
        Ok(())
    })
}
