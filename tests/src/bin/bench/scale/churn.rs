//! Pods that come, get an address, run for a moment and go, at a steady rate: a pod does not wait for the one before.

use std::time::{Duration, Instant};

use anyhow::Result;
use kube::Client;

use crate::adds::{add, del};
use crate::agents::Agents;
use crate::pods::{create_pod, delete_pod, set_running};
use crate::pool::Pool;
use crate::samples::Samples;

/// How long a pod runs.
const LIFETIME: Duration = Duration::from_secs(1);

/// What pods come and go on.
#[derive(Clone, Copy)]
pub(super) struct Churn<'a> {
    pub(super) client: &'a Client,
    pub(super) pool: &'a Pool,
    /// Those of the nodes 0 to `nodes`; without them, pods get no addresses.
    pub(super) agents: Option<&'a Agents>,
    pub(super) nodes: usize,
    /// Pods a second.
    pub(super) rate: u32,
}

/// What came of the ADDs and DELs.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    pub(super) latencies_ms: Samples,
    pub(super) failed_adds: usize,
    /// The agent finds these pods' addresses itself.
    pub(super) failed_dels: usize,
}

/// What came of one pod.
struct Outcome {
    /// Without agents there are none.
    add: Option<Result<Duration>>,
    del: Result<()>,
}

impl Churn<'_> {
    /// So many pods, on all nodes in turn; calls `ended` when the last one was due.
    pub(super) async fn run<T>(
        self,
        pods: u32,
        prefix: &str,
        ended: impl FnOnce() -> Result<T>,
    ) -> Result<(Outcomes, T)> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let mut running = Vec::new();
        for index in 0..pods as usize {
            ticks.tick().await;
            let (client, pool, prefix) = (self.client.clone(), self.pool.clone(), prefix.to_owned());
            let node = index % self.nodes;
            let socket = self.agents.map(|agents| agents.socket(node).to_owned());
            running.push(tokio::spawn(async move {
                let want = create_pod(&client, &prefix, index, node).await?;
                let add = match &socket {
                    Some(socket) => {
                        let begun = Instant::now();
                        Some(add(socket, &want, &pool).await.map(|_| begun.elapsed()))
                    }
                    None => None,
                };
                set_running(&client, &want).await?;
                tokio::time::sleep(LIFETIME).await;
                delete_pod(&client, &want).await?;
                let del = match &socket {
                    Some(socket) => del(socket, &want).await,
                    None => Ok(()),
                };
                Ok::<_, anyhow::Error>(Outcome { add, del })
            }));
        }
        let at_the_end = ended()?;
        let mut outcomes = Outcomes::default();
        for pod in running {
            let Outcome { add, del } = pod.await??;
            match add {
                Some(Ok(latency)) => outcomes.latencies_ms.push(latency.as_secs_f64() * 1000.0),
                Some(Err(reason)) => {
                    eprintln!("ADD failed: {reason:#}");
                    outcomes.failed_adds += 1;
                }
                None => {}
            }
            if let Err(reason) = del {
                eprintln!("DEL failed: {reason:#}");
                outcomes.failed_dels += 1;
            }
        }
        Ok((outcomes, at_the_end))
    }
}
