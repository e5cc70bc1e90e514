//! Reconciles one pod's node link and route hints with the destinations.

use spiderpool_net::netns::NetNs;
use tracing::{info, warn};

use super::netns::{self, NamespaceError};
use super::record::PodRecord;
use super::{node_link, route_hints};
use crate::destinations::Destinations;

/// Reconciles a pod that runs; of one that does not there is nothing to do.
pub(super) fn reconcile_if_running(pod: &PodRecord, destinations: &Destinations) {
    match netns::open(pod) {
        Ok(Some(netns)) => reconcile(&netns, pod, destinations),
        Ok(None) => {}
        Err(error) => {
            warn!(%error, container_id = %pod.container_id, pod = %pod.pod, "network namespace cannot be reconciled");
        }
    }
}

/// Reconciles a pod in its namespace.
pub(super) fn reconcile(netns: &NetNs, pod: &PodRecord, destinations: &Destinations) {
    let (container_id, name) = (&pod.container_id, &pod.pod);
    if destinations.nodes.is_empty() {
        return; // not listed yet: what is there for the node's addresses stays
    }
    match node_link::refresh(netns, pod, &destinations.nodes) {
        Ok(0) => {}
        Ok(changes) => info!(%container_id, pod = %name, changes, "node link reconciled"),
        Err(error) => warn!(%error, %container_id, pod = %name, "node link cannot be reconciled"),
    }
    match reconcile_hints(netns, pod, destinations) {
        Ok(0) => {}
        Ok(changes) => info!(%container_id, pod = %name, changes, "route hints reconciled"),
        Err(error) => warn!(%error, %container_id, pod = %name, "route hints cannot be reconciled"),
    }
}

fn reconcile_hints(
    netns: &NetNs,
    pod: &PodRecord,
    destinations: &Destinations,
) -> Result<usize, NamespaceError> {
    let Some(cluster) = destinations.cluster.as_ref().filter(|_| !pod.refuses_hints()) else { return Ok(0) };
    let cidrs = cluster.with_own(&pod.own_cidrs()).all();
    route_hints::refresh(netns, pod, &cidrs, &destinations.nodes)
}
