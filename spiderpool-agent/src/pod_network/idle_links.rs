//! Deletes the node links of pods that go on running without an underlay NIC.

use std::collections::BTreeMap;
use std::thread;

use spiderpool_core::names::{ContainerId, IfName};
use spiderpool_net::block_on;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use tracing::{error, info, warn};

use super::record::PodRecord;

/// Node links of sandboxes whose last underlay NIC was deleted. Usually the pod terminates and its links with it, long before the
/// next resync; a pod that goes on running must not keep an idle link.
#[derive(Debug, Default)]
pub(crate) struct IdleLinks(BTreeMap<ContainerId, IfName>);

impl IdleLinks {
    /// The pod's last underlay NIC was deleted.
    pub(crate) fn add(&mut self, pod: &PodRecord) {
        if let Ok(link) = pod.node_link() {
            self.0.insert(pod.container_id.clone(), link.host);
        }
    }

    /// It has one again.
    pub(crate) fn cancel(&mut self, container_id: &ContainerId) {
        self.0.remove(container_id);
    }

    /// Deletes the links that are still there, on a thread of its own: each waits for the kernel, 15 to 25 ms.
    pub(crate) fn delete_links(&mut self) {
        let left: Vec<IfName> = std::mem::take(&mut self.0).into_values().collect();
        if left.is_empty() {
            return;
        }
        let delete = move || {
            if let Err(error) = block_on(delete_links(&left)) {
                warn!(%error, "idle node link cannot be deleted");
            }
        };
        if let Err(error) = thread::Builder::new().name("node-links".to_owned()).spawn(delete) {
            error!(%error, "idle node links are not deleted");
        }
    }
}

async fn delete_links(hosts: &[IfName]) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    for host in hosts {
        if netlink.link_by_name(host).await?.is_some() {
            netlink.delete_link(host).await?;
            info!(link = %host, "idle node link deleted");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spiderpool_core::coordinator::NodeLink;
    use spiderpool_core::mac::MacAddr;
    use spiderpool_net::block_on;
    use spiderpool_net::netlink::NewVeth;
    use spiderpool_net::netns::NetNs;

    use super::*;

    #[test]
    fn the_idle_link_of_a_running_pod_is_deleted_unless_it_is_used_again() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let mut idle = IdleLinks::default();
        let container_id: ContainerId = "c0ffee".parse().unwrap();
        let link = NodeLink::new("c0ffee").unwrap();
        idle.0.insert(container_id.clone(), link.host);
        idle.cancel(&container_id);
        assert!(idle.0.is_empty());
        let test = async || {
            let (pod, mut node) = (NetNs::create().unwrap(), Netlink::open().unwrap());
            let link = NodeLink::new("c0ffee").unwrap();
            let veth = NewVeth {
                name: &link.host,
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                peer_name: &link.pod,
                peer_mac: link.pod_mac,
                peer_netns: &pod,
                mtu: 1500,
            };
            node.add_veth(&veth).await.unwrap();
            delete_links(std::slice::from_ref(&link.host)).await.unwrap();
            assert_eq!(node.link_by_name(&link.host).await.unwrap(), None);
            delete_links(&[link.host]).await
        };
        NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
    }
}
