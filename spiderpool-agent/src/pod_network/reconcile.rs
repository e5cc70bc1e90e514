//! Reconciles one pod's node link and route hints with the destinations.

use spiderpool_core::coordinator::Step;
use spiderpool_net::netns::NetNs;
use tracing::{info, warn};

use super::netns::{self, NamespaceError};
use super::record::PodRecord;
use super::{node_link, route_hints};
use crate::destinations::Destinations;

/// Reconciles a pod that runs; of one that does not there is nothing to do.
pub(super) fn reconcile_if_running(pod: &PodRecord, destinations: &Destinations) {
    match netns::open(pod) {
        Ok(Some(netns)) => drop(reconcile(&netns, pod, destinations)),
        Ok(None) => {}
        Err(error) => {
            warn!(%error, container_id = %pod.container_id, pod = %pod.pod, "network namespace cannot be reconciled");
        }
    }
}

/// What [`reconcile`] has done.
#[derive(Debug, Default)]
pub(crate) struct Reconciled {
    /// The steps that were necessary.
    pub steps: Vec<Step>,
    /// The pod has more in its namespace than may be read.
    pub is_too_large: bool,
}

/// Reconciles a pod in its namespace.
pub(super) fn reconcile(netns: &NetNs, pod: &PodRecord, destinations: &Destinations) -> Reconciled {
    let mut done = Reconciled::default();
    let (container_id, name) = (&pod.container_id, &pod.pod);
    if destinations.nodes.is_empty() {
        return done; // not listed yet: what is there for the node's addresses stays
    }
    match node_link::refresh(netns, pod, &destinations.nodes) {
        Ok(steps) if steps.is_empty() => {}
        Ok(steps) => {
            info!(%container_id, pod = %name, changes = steps.len(), "node link reconciled");
            done.steps.extend(steps);
        }
        Err(error) => {
            done.is_too_large |= error.is_too_large();
            warn!(%error, %container_id, pod = %name, "node link cannot be reconciled");
        }
    }
    match reconcile_hints(netns, pod, destinations) {
        Ok(steps) if steps.is_empty() => {}
        Ok(steps) => {
            info!(%container_id, pod = %name, changes = steps.len(), "route hints reconciled");
            done.steps.extend(steps);
        }
        Err(error) => {
            done.is_too_large |= error.is_too_large();
            warn!(%error, %container_id, pod = %name, "route hints cannot be reconciled");
        }
    }
    done
}

fn reconcile_hints(
    netns: &NetNs,
    pod: &PodRecord,
    destinations: &Destinations,
) -> Result<Vec<Step>, NamespaceError> {
    let Some(cluster) = destinations.cluster.as_ref().filter(|_| !pod.refuses_hints()) else {
        return Ok(Vec::new());
    };
    let cidrs = cluster.with_own(&pod.own_cidrs()).all();
    route_hints::refresh(netns, pod, &cidrs, &destinations.nodes)
}
