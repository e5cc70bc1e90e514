//! What a start finds: the addresses of the node, and endpoints that were not written.

use std::time::Duration;

use spiderpool_api::crd::EndpointIp;
use spiderpool_api::endpoint::{self, HeldAddress, Record};
use spiderpool_core::ipam::PodAnnotations;
use spiderpool_core::names::PoolName;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Ipam;
use crate::watches::Pod;

/// Pause before the list is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

impl Ipam {
    /// Reads what the node holds, as often as it takes.
    pub async fn load(&self, shutdown: &CancellationToken) {
        loop {
            match self.stock.load().await {
                Ok(addresses) => {
                    info!(addresses, "addresses of the node listed");
                    return;
                }
                Err(error) => warn!(%error, "addresses of the node cannot be listed, trying again"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
        }
    }

    /// Has the endpoint of a pod that is alive written if it lacks something.
    pub(super) async fn restore_endpoint(&self, found: &Pod) -> anyhow::Result<()> {
        let endpoint = self.endpoints.get(&found.namespace, &found.name).await?;
        let status =
            endpoint.and_then(|endpoint| endpoint.status).filter(|status| status.current.uid == found.uid);
        let ips = self.recorded(found).await?;
        if endpoint::lacks(status.as_ref().map_or(&[], |status| &status.current.ips), &ips) {
            let top = self.owners.top(found).await?;
            self.endpoints.put(Record::new(found, (&top.kind, &top.name), ips));
        }
        Ok(())
    }

    /// What the endpoint should say of all that the pod holds.
    async fn recorded(&self, pod: &Pod) -> anyhow::Result<Vec<EndpointIp>> {
        let annotations = PodAnnotations::parse(&pod.annotations)?;
        let held = self.stock.held().read(|index| index.of_pod(&pod.uid));
        let pools: Vec<PoolName> = held.iter().filter_map(|held| held.pool.parse().ok()).collect();
        let pools = self.pool_table(&pools).await?;
        let addresses = held.iter().map(|held| HeldAddress {
            interface: &held.interface,
            net: held.net,
            pool: &held.pool,
        });
        let find = |name: &PoolName| pools.get(name)?.spec.clone().ok();
        Ok(endpoint::restore(addresses, &annotations, find))
    }
}
