//! The node's pods with NICs of ours and their node links, as inventory and kernel show them. Changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use spiderpool_core::coordinator::is_host_end_with;
use spiderpool_core::names::{IfName, PodName};
use spiderpool_core::net::Link;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::tc::Direction;
use thiserror::Error;

use crate::pod_network::{StateFileError, state_file};

/// Pods that run, and links that belong to none of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FoundOnNode {
    /// Pods of the inventory whose network namespace exists.
    pub(super) pods: BTreeSet<PodName>,
    /// Host ends of node links that no such pod has.
    pub(super) idle_links: Vec<IfName>,
    /// NICs whose pods the inventory does not know: it was lost while they ran.
    pub(super) orphaned_nics: usize,
}

/// Inventory or links cannot be read.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    State(#[from] StateFileError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Reads the inventory and compares it with the node's links.
pub(super) async fn read(state: &Path) -> Result<FoundOnNode, ReadError> {
    let inventory = state_file::read(state)?.unwrap_or_default();
    let links = Netlink::open()?.links().await?;
    let mut found = FoundOnNode { orphaned_nics: inventory.orphaned(), ..FoundOnNode::default() };
    let mut in_use = BTreeSet::new();
    for pod in inventory.pods() {
        let Ok(ends) = pod.node_link() else { continue };
        // It ends with the pod's network namespace.
        if links.iter().any(|link| link.name == ends.host && link.mac == Some(ends.host_mac)) {
            found.pods.insert(pod.pod.clone());
            in_use.insert(ends.host);
        }
    }
    let mut netlink = Netlink::open()?;
    for link in links.into_iter().filter(|link| is_host_end(link) && !in_use.contains(&link.name)) {
        // A veth0 without programs is a pod's with `dataplane: policy`, of which the inventory knows nothing.
        let has_programs = netlink.own_filter(link.index, Direction::Ingress).await?.is_some();
        if has_programs || !link.name.as_str().starts_with("veth") {
            found.idle_links.push(link.name);
        }
    }
    Ok(found)
}

/// By its name and MAC, which are made up together.
fn is_host_end(link: &Link) -> bool {
    link.mac.is_some_and(|mac| is_host_end_with(&link.name, mac))
}
