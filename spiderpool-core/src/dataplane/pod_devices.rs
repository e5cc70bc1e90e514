//! Which of a node's devices lead to pods: who sends by them is the default network's business.

use std::collections::{BTreeMap, BTreeSet};

use super::node_addresses::is_host_end;
use crate::net::{Address, Link};

/// A device by which pods send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodDevice {
    /// The node's end of the pair of one pod of this node.
    Veth,
    /// A tunnel to other nodes, with the pods there.
    Tunnel,
}

/// Kinds of tunnels that default networks use between nodes.
const TUNNELS: [&str; 8] = ["vxlan", "geneve", "ipip", "sit", "ip6tnl", "gre", "ip6gre", "wireguard"];

/// The devices of a node by which pods send, by index. `uplinks` as for [`super::node_addresses`]. What is not among them may
/// be an uplink.
pub fn pod_devices<'a>(
    links: impl IntoIterator<Item = &'a Link>,
    addresses: &[Address],
    uplinks: &BTreeSet<u32>,
) -> BTreeMap<u32, PodDevice> {
    let device = |link: &Link| {
        if TUNNELS.contains(&link.kind.as_str()) {
            return Some(PodDevice::Tunnel);
        }
        (is_host_end(link, addresses) && !uplinks.contains(&link.index)).then_some(PodDevice::Veth)
    };
    links.into_iter().filter_map(|link| Some((link.index, device(link)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str) -> Link {
        Link { peer_netns: Some(0), ..Link::of_kind(&format!("dev{index}"), index, kind) }
    }

    #[test]
    fn what_may_be_an_uplink_is_none() {
        let kinds = ["", "bond", "vlan", "bridge", "veth", "veth", "veth", "netkit", "vxlan", "ipip"];
        let mut links: Vec<Link> = (1..).zip(kinds).map(|(index, kind)| link(index, kind)).collect();
        // The uplink of a node that is a container: by its subnet, and by its next hop.
        let addresses = [Address::new(6, "172.18.0.3/16".parse().unwrap())];
        let found = pod_devices(&links, &addresses, &BTreeSet::from([7]));
        let expect =
            [(5, PodDevice::Veth), (8, PodDevice::Veth), (9, PodDevice::Tunnel), (10, PodDevice::Tunnel)];
        assert_eq!(found, BTreeMap::from(expect));
        // Both ends on the node.
        links[4].peer_netns = None;
        assert!(!pod_devices(&links, &addresses, &BTreeSet::new()).contains_key(&5));
    }
}
