//! Many addresses in use, as agents make them: pods get them by ADDs, and have endpoints. The agents end then, the pods stay.

use std::ops::Range;

use anyhow::{Result, ensure};
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::tools;

use crate::adds::add_all;
use crate::agents::Agents;
use crate::leader::{Leader, control_plane};
use crate::pods::{create_nodes, create_pods, spread};
use crate::pool::Pool;

/// The nodes of these pods; nothing is measured on them.
const NODES: Range<usize> = 1000..1010;
/// ADDs in flight per agent: so many addresses it creates at a time.
const IN_FLIGHT: usize = 10;

/// A control plane, its leader, and how many addresses are in use by pods that stay.
pub(crate) struct Filled {
    pub(crate) leader: Leader,
    pub(crate) plane: ControlPlane,
    in_use: usize,
}

impl Filled {
    /// With nothing in use.
    pub(crate) async fn start() -> Result<Self> {
        let plane = control_plane()?;
        let leader = Leader::start(&plane).await?;
        Ok(Self { leader, plane, in_use: 0 })
    }

    /// Has more pods get addresses of this pool, until so many are in use. No other pods may have any.
    pub(crate) async fn fill(&mut self, pool: &Pool, in_use: usize) -> Result<()> {
        let Some(more) = in_use.checked_sub(self.in_use).filter(|more| *more > 0) else { return Ok(()) };
        eprintln!("{more} pods get addresses");
        let client = self.plane.client().await?;
        create_nodes(&client, NODES).await?;
        let prefix = format!("{}-from-{}", pool.name, self.in_use);
        let wants = create_pods(&client, &prefix, spread(more, NODES)).await?;
        let agents = Agents::start(&self.plane, &tools::spiderpool("spiderpool-agent")?, NODES).await?;
        let outcomes = add_all(&agents, &wants, pool, IN_FLIGHT).await?;
        ensure!(outcomes.iter().all(|outcome| outcome.got.is_some()), "some pods have no address");
        self.in_use = in_use;
        self.wait_settled().await
    }

    /// Waits until all pods but those that stay are gone, with their addresses and endpoints, and the leader knows it.
    pub(crate) async fn wait_settled(&self) -> Result<()> {
        self.leader.wait_settled(&self.plane, self.in_use).await
    }
}
