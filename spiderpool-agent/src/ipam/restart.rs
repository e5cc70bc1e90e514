//! What a start finds: the addresses of the node, and endpoints that were not written.

use std::sync::Arc;
use std::time::Duration;

use spiderpool_api::crd::EndpointIp;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::candidates::DefaultRoute;
use spiderpool_core::ipam::{Allocated, PodAnnotations, Pool, build_response};
use spiderpool_runtime::shutdown::Shutdown;
use tracing::{info, warn};

use super::Ipam;
use super::endpoints::Record;
use super::held::Held;
use super::record;
use crate::watches::Pod;

/// Pause before the list is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

impl Ipam {
    /// Reads what the node holds, as often as it takes.
    pub async fn load(&self, shutdown: &Shutdown) {
        loop {
            match self.stock.load().await {
                Ok(addresses) => {
                    info!(addresses, "addresses of the node listed");
                    return;
                }
                Err(error) => warn!(%error, "addresses of the node cannot be listed, trying again"),
            }
            if !shutdown.sleep(PAUSE).await {
                return;
            }
        }
    }

    /// Has the endpoint of a pod that is alive written if it lacks something.
    pub(super) async fn restore_endpoint(&self, found: &Pod) -> anyhow::Result<()> {
        let endpoint = self.endpoints.get(&found.namespace, &found.name).await?;
        let status =
            endpoint.and_then(|endpoint| endpoint.status).filter(|status| status.current.uid == found.uid);
        let ips = self.recorded(found)?;
        let lacks = |entry: &EndpointIp| {
            let known = status
                .iter()
                .flat_map(|status| &status.current.ips)
                .find(|ip| ip.interface == entry.interface);
            known.is_none_or(|known| (&known.ipv4, &known.ipv6) != (&entry.ipv4, &entry.ipv6))
        };
        if ips.iter().any(lacks) {
            let top = self.owners.top(found).await?;
            self.endpoints.put(Record::new(found, &top, ips));
        }
        Ok(())
    }

    /// What the endpoint should say of all that the pod holds.
    fn recorded(&self, pod: &Pod) -> anyhow::Result<Vec<EndpointIp>> {
        let annotations = PodAnnotations::parse(&pod.annotations)?;
        let held = self.stock.held().read(|index| index.of_pod(&pod.uid));
        let mut allocated: Vec<Allocated> = Vec::new();
        for held in held {
            let Some(next) = self.restored(&held, &annotations) else { continue };
            let same = |a: &Allocated| a.nic == next.nic && Family::of_net(&a.address) == held.family();
            // Two for one NIC and family: only the next ADD knows which one stays.
            if !allocated.iter().any(same) {
                allocated.push(next);
            }
        }
        Ok(record::endpoint_ips(&build_response(allocated, &annotations.routes).addresses))
    }

    fn restored(&self, held: &Arc<Held>, annotations: &PodAnnotations) -> Option<Allocated> {
        let (nic, name) = (held.interface.parse().ok()?, held.pool.parse().ok()?);
        let pool: Option<Pool> = self.indexes.pools.read(|pools| pools.get(&name)?.clone().ok());
        let named = annotations.ippools.iter().flatten().find(|entry| entry.nic == nic);
        Some(Allocated {
            default_route: named.map_or(DefaultRoute::Keep, |entry| entry.default_route),
            nic,
            address: held.net,
            pool: name,
            gateway: pool.as_ref().and_then(|pool| pool.gateway),
            routes: pool.map(|pool| pool.routes).unwrap_or_default(),
        })
    }
}
