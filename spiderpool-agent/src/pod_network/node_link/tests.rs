//! Against the kernel, in namespaces of their own.

use std::path::PathBuf;

use spiderpool_api::agent::NetnsIdentity;
use spiderpool_api::agent::dataplane::{DefaultRoutes, Nic};
use spiderpool_core::coordinator::NodeLink;
use spiderpool_core::dataplane::PortRange;
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::PodName;
use spiderpool_net::netlink::{Netlink, NewVeth};

use super::super::record::{NicRecord, PodState};
use super::*;

const PEER: MacAddr = MacAddr([0xee; 6]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn record(id: u16, nic: &str, role: NicRole, addresses: &[&str]) -> NicRecord {
    let nic = Nic {
        name: name(nic),
        role,
        ifindex: 0,
        mac: MacAddr([2; 6]),
        peer_mac: (role == NicRole::Cluster).then_some(PEER),
        mtu: 1500,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        default_routes: DefaultRoutes::default(),
    };
    NicRecord { id, nic }
}

fn pod() -> PodRecord {
    PodRecord {
        container_id: "c0ffee".parse().unwrap(),
        netns: PathBuf::new(),
        netns_identity: NetnsIdentity { dev: 0, inode: 0 },
        pod: PodName::new("ns", "pod").unwrap(),
        pod_uid: None,
        profile: 1,
        ports: PortRange::DEFAULT,
        state: PodState::Attached,
        attachments: vec![],
        nics: vec![
            record(1, "eth0", NicRole::Cluster, &["10.244.0.2/32"]),
            record(2, "sp0", NicRole::NodeLink, &[]),
            record(3, "net1", NicRole::Underlay, &["10.6.0.9/16", "fd00:6::9/64"]),
        ],
    }
}

/// The node link and net1, whose host end has the node's addresses.
async fn links(netns: &NetNs, node_addresses: &[&str]) -> Netlink {
    links_of(netns, &NodeLink::new("c0ffee").unwrap(), "net1", node_addresses).await
}

async fn links_of(netns: &NetNs, link: &NodeLink, underlay: &str, node_addresses: &[&str]) -> Netlink {
    let mut node = Netlink::open().unwrap();
    for (host, nic, mac) in [(&link.host, link.pod.as_str(), link.host_mac), (&name("br0"), underlay, PEER)] {
        let veth = NewVeth {
            name: host,
            mac,
            peer_name: &name(nic),
            peer_mac: link.pod_mac,
            peer_netns: netns,
            mtu: 1500,
        };
        node.add_veth(&veth).await.unwrap();
        let index = node.link_by_name(host).await.unwrap().unwrap().index;
        node.set_up(index).await.unwrap();
        let mut pod = netns.netlink().unwrap();
        let index = pod.link_by_name(&name(nic)).await.unwrap().unwrap().index;
        pod.set_up(index).await.unwrap();
    }
    let index = node.link_by_name(&name("br0")).await.unwrap().unwrap().index;
    for address in node_addresses {
        node.add_address(index, address.parse().unwrap()).await.unwrap();
    }
    node
}

fn in_a_node(test: impl AsyncFnOnce() + Send) {
    if nix::unistd::geteuid().is_root() {
        let test = async || {
            test().await;
            Ok::<_, NamespaceError>(())
        };
        NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
    } else {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
    }
}

/// veth0 with `vethLinkAddress`, and eth0.
fn underlay_pod() -> PodRecord {
    let mut veth0 = record(1, "veth0", NicRole::NodeLink, &["169.254.100.1/32"]);
    veth0.nic.peer_mac = Some(NodeLink::underlay("c0ffee", None).unwrap().host_mac);
    PodRecord { nics: vec![veth0, record(2, "eth0", NicRole::Underlay, &["10.6.0.9/16"])], ..pod() }
}

#[test]
fn veth0_of_an_underlay_pod_follows_the_nodes_addresses() {
    in_a_node(async || {
        let (netns, pod) = (NetNs::create().unwrap(), underlay_pod());
        let link = pod.node_link().unwrap();
        let mut node = links_of(&netns, &link, "eth0", &["10.6.0.1/16"]).await;
        let nodes = ips(&["10.6.0.1", "172.18.0.3"]);
        // Neighbor and route of the host end, both addresses on veth0 and the connected one on eth0, vethLinkAddress.
        assert_eq!(plan_and_apply(&netns, &pod, &nodes).await.unwrap().len(), 2 + 3 + 1);
        assert_eq!(plan_and_apply(&netns, &pod, &nodes).await.unwrap().len(), 0);
        let (mut inside, contents) = (netns.netlink().unwrap(), Contents::PLAIN);
        let present = inside.snapshot(contents).await.unwrap();
        let macs: Vec<_> = present.neighbors.iter().map(|n| (n.dev.as_str(), n.mac)).collect();
        assert_eq!(macs.len(), 3);
        assert!(macs.iter().all(|(_, mac)| *mac == link.host_mac), "{macs:?}");
        let host = node.link_by_name(&link.host).await.unwrap().unwrap().index;
        let routes = node.routes_of(Family::V4, Some(host)).await.unwrap();
        let ours = routes.iter().filter(|route| route.is_ours());
        assert_eq!(ours.map(|route| route.dst.to_string()).collect::<Vec<_>>(), ["10.6.0.9/32"]);
    });
}

/// A virtual address moves to another node: the kernel takes the routes with it along.
#[test]
fn routes_that_went_with_a_node_address_come_back() {
    in_a_node(async || {
        let netns = NetNs::create().unwrap();
        let mut node = links(&netns, &["10.6.0.1/16", "10.6.0.2/16", "fd00:6::1/64"]).await;
        let (pod, link) = (pod(), NodeLink::new("c0ffee").unwrap());
        let before = ips(&["10.6.0.1", "10.6.0.2", "fd00:6::1"]);
        // Two neighbors and two routes of the host end, each node address on sp0 and on net1, the address of sp0.
        assert_eq!(plan_and_apply(&netns, &pod, &before).await.unwrap().len(), 4 + 6 + 1);
        assert_eq!(plan_and_apply(&netns, &pod, &before).await.unwrap().len(), 0);
        let host = node.link_by_name(&link.host).await.unwrap().unwrap().index;
        let sources = async |node: &mut Netlink| -> Vec<_> {
            let routes = node.routes_of(Family::V4, Some(host)).await.unwrap();
            routes.iter().filter(|r| r.is_ours()).map(|r| r.source.unwrap().to_string()).collect()
        };
        assert_eq!(sources(&mut node).await, ["10.6.0.1"]);

        let underlay = node.link_by_name(&name("br0")).await.unwrap().unwrap().index;
        node.add_address(underlay, "10.6.0.3/32".parse().unwrap()).await.unwrap();
        node.delete_address(underlay, "10.6.0.1/16".parse().unwrap()).await.unwrap();
        assert_eq!(
            sources(&mut node).await,
            Vec::<String>::new(),
            "the kernel deletes a route with its source"
        );
        let after = ips(&["10.6.0.3", "fd00:6::1"]);
        assert!(!plan_and_apply(&netns, &pod, &after).await.unwrap().is_empty());
        assert_eq!(sources(&mut node).await, ["10.6.0.3"]);
        let mut inside = netns.netlink().unwrap();
        for nic in ["sp0", "net1"] {
            let index = inside.link_by_name(&name(nic)).await.unwrap().unwrap().index;
            let mut known: Vec<_> =
                inside.permanent_neighbors(index).await.unwrap().iter().map(|n| n.address).collect();
            known.sort();
            assert_eq!(known, after, "{nic}");
        }
        assert_eq!(plan_and_apply(&netns, &pod, &after).await.unwrap().len(), 0);
    });
}
