//! Next hops of a pod whose eth0 is behind a switch, asked of the kernel.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use spiderpool_core::coordinator::{NamespaceState, PeerMacs};
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::net::{Neighbor, Route};
use spiderpool_net::netlink::{Netlink, NewVeth};
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::sysctl;

use super::super::next_hops::{NextHops, peer_macs};
use super::super::state::host_veth;
use super::{in_a_node, name};

const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 0]);
const ROUTER_V4: MacAddr = MacAddr([2, 0, 0, 0, 0, 4]);
const ROUTER_V6: MacAddr = MacAddr([2, 0, 0, 0, 0, 6]);
/// What an ADD has recorded.
const RECORDED: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const NODES: [&str; 2] = ["10.6.212.132", "fd00:10:6::132"];
const HOPS: [&str; 2] = ["10.233.73.1", "fe80::1"];
/// Addresses that nobody has.
const SILENT: [&str; 2] = ["10.233.73.99", "fe80::99"];

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn ip_in(netns: &NetNs, commands: &[String]) {
    netns.run(|| commands.iter().for_each(|command| ip(command))).unwrap();
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Connects a namespace to the switch by a NIC of this name; answers its index there.
async fn plug(node: &mut Netlink, port: &str, peer_netns: &NetNs, nic: &str, peer_mac: MacAddr) -> u32 {
    let (port_name, nic) = (name(port), name(nic));
    let veth = NewVeth { name: &port_name, mac: HOST_MAC, peer_name: &nic, peer_mac, peer_netns, mtu: 1500 };
    node.add_veth(&veth).await.unwrap();
    ip(&format!("link set {port} master switch up"));
    let mut inside = peer_netns.netlink().unwrap();
    let index = inside.link_by_name(&nic).await.unwrap().unwrap().index;
    inside.set_up(index).await.unwrap();
    index
}

/// A pod and a router of each family on a switch.
struct Pod {
    netlink: Netlink,
    eth0: u32,
    netns: [NetNs; 3],
}

impl Pod {
    async fn new(hops: [&str; 2], link_local: Option<&str>) -> Self {
        let mut node = Netlink::open().unwrap();
        ip("link add switch type bridge mcast_snooping 0");
        ip("link set switch up");
        let netns = [(); 3].map(|()| NetNs::create().unwrap());
        for (index, port, addresses, mac) in [
            (1, "port4", ["10.233.73.1/24"].as_slice(), ROUTER_V4),
            (2, "port6", ["fe80::1/64", "fd00:233::1/64"].as_slice(), ROUTER_V6),
        ] {
            let nic = plug(&mut node, port, &netns[index], "up", mac).await;
            let mut router = netns[index].netlink().unwrap();
            for address in addresses {
                router.add_address(nic, address.parse().unwrap()).await.unwrap();
            }
        }
        // Of what the kernel makes itself, nothing gets further than this.
        let slow = || {
            sysctl::write("net/ipv6/conf/default/accept_dad", "1").unwrap();
            sysctl::write("net/ipv6/conf/default/dad_transmits", "1000").unwrap();
        };
        netns[0].run(slow).unwrap();
        let eth0 = plug(&mut node, "port0", &netns[0], "eth0", MacAddr([2, 0, 0, 0, 0, 1])).await;
        let mut netlink = netns[0].netlink().unwrap();
        let own: Vec<IpNet> = ["10.233.73.210/24", "fd00:233::210/64"]
            .into_iter()
            .chain(link_local)
            .map(|net| net.parse().unwrap())
            .collect();
        for address in own {
            netlink.add_address(eth0, address).await.unwrap();
        }
        for hop in hops.map(addr) {
            let default = Family::of(hop).default_route();
            let route = Route { gateway: Some(hop), protocol: 3, ..Route::new(default, eth0) };
            netlink.append_route(&route).await.unwrap();
        }
        Self { netlink, eth0, netns }
    }

    async fn look(&mut self) -> NamespaceState {
        self.netlink.snapshot(Contents::PLAIN).await.unwrap()
    }

    async fn peers(&mut self, wanted: NextHops) -> PeerMacs {
        let (pod, eth0) = (self.look().await, name("eth0"));
        let found = host_veth(&mut Netlink::open().unwrap(), &pod, &eth0).await.unwrap();
        assert!(found.is_port);
        let nodes = NODES.map(addr);
        peer_macs(&mut self.netlink, &pod, &nodes, &eth0, &found, wanted).await.unwrap()
    }

    /// The switch may need a moment before it forwards.
    async fn expect(&mut self, wanted: NextHops, expected: PeerMacs) {
        let mut found = self.peers(wanted).await;
        for _ in 0..20 {
            if found == expected {
                break;
            }
            found = self.peers(wanted).await;
        }
        assert_eq!(found, expected);
    }

    async fn record(&mut self, node: &str) {
        self.record_as(node, RECORDED).await;
    }

    async fn record_as(&mut self, node: &str, mac: MacAddr) {
        let neighbor = Neighbor { dev: self.eth0, address: addr(node), mac };
        self.netlink.set_neighbor(&neighbor).await.unwrap();
    }

    /// Whether the kernel has been asked for an address, answered or not.
    fn has_entry(&self, address: &str) -> bool {
        let list =
            || Command::new("ip").args(["neigh", "show", "nud", "all", address, "dev", "eth0"]).output();
        let listed = self.netns[0].run(list).unwrap().unwrap();
        assert!(listed.status.success());
        !listed.stdout.is_empty()
    }
}

#[test]
fn each_family_has_its_own_next_hop() {
    in_a_node(async || {
        let mut pod = Pod::new(HOPS, Some("fe80::2/64")).await;
        pod.expect(NextHops::OfEachFamily, PeerMacs { v4: ROUTER_V4, v6: ROUTER_V6 }).await;
    });
}

#[test]
fn a_silent_next_hop_is_what_an_earlier_nic_has_found() {
    in_a_node(async || {
        let mut pod = Pod::new([SILENT[0], HOPS[1]], Some("fe80::2/64")).await;
        // Most routers are of both families.
        pod.expect(NextHops::OfEachFamily, PeerMacs::both(ROUTER_V6)).await;
        pod.record(NODES[0]).await;
        pod.expect(NextHops::OfEachFamily, PeerMacs { v4: RECORDED, v6: ROUTER_V6 }).await;
        // One that answers wins over what was found.
        pod.record(NODES[1]).await;
        pod.expect(NextHops::OfEachFamily, PeerMacs { v4: RECORDED, v6: ROUTER_V6 }).await;
    });
}

#[test]
fn without_any_next_hop_it_is_the_host_end() {
    in_a_node(async || {
        let mut pod = Pod::new(SILENT, Some("fe80::2/64")).await;
        assert_eq!(pod.peers(NextHops::OfEachFamily).await, PeerMacs::both(HOST_MAC));
        pod.record(NODES[1]).await;
        assert_eq!(pod.peers(NextHops::Any).await, PeerMacs::both(RECORDED));
    });
}

/// Nobody answered at the ADD before.
#[test]
fn what_an_earlier_nic_fell_back_on_is_no_next_hop() {
    in_a_node(async || {
        let mut pod = Pod::new([HOPS[0], SILENT[1]], Some("fe80::2/64")).await;
        for node in NODES {
            pod.record_as(node, HOST_MAC).await;
        }
        pod.expect(NextHops::OfEachFamily, PeerMacs::both(ROUTER_V4)).await;
        pod.expect(NextHops::Any, PeerMacs::both(ROUTER_V4)).await;
        assert_eq!(pod.peers(NextHops::AsFound).await, PeerMacs::both(HOST_MAC));
    });
}

/// As of an IPv6-only pod whose default network does not wait for duplicate address detection.
#[test]
fn a_tentative_address_is_waited_for_where_nothing_else_is_known() {
    in_a_node(async || {
        let mut pod = Pod::new([SILENT[0], HOPS[1]], None).await;
        // The kernel gives it in a work queue of its own.
        let (deadline, mut own) = (Instant::now() + Duration::from_secs(20), None);
        while own.is_none() && Instant::now() < deadline {
            let state = pod.look().await;
            let mut all = state.addresses.iter().map(|address| address.net.to_string());
            own = all.find(|net| net.starts_with("fe80:"));
            thread::sleep(Duration::from_millis(10));
        }
        let own = own.unwrap();
        let mut found = None;
        // On a machine that stands still, what settles it may come too late.
        for _ in 0..10 {
            ip_in(&pod.netns[0], &[format!("addr del {own} dev eth0"), format!("addr add {own} dev eth0")]);
            let netns = pod.netns[0].run(NetNs::current).unwrap().unwrap();
            let settled = [format!("addr del {own} dev eth0"), format!("addr add {own} dev eth0 nodad")];
            let settle = thread::spawn(move || {
                thread::sleep(Duration::from_millis(100));
                ip_in(&netns, &settled);
            });
            found = Some(pod.peers(NextHops::OfEachFamily).await);
            settle.join().unwrap();
            if found == Some(PeerMacs::both(ROUTER_V6)) {
                break;
            }
        }
        assert_eq!(found, Some(PeerMacs::both(ROUTER_V6)));
    });
}

/// A next hop that is silent for a moment is no fault of the pod, and nobody waits for it.
#[test]
fn check_asks_nobody() {
    in_a_node(async || {
        let mut pod = Pod::new(HOPS, Some("fe80::2/64")).await;
        assert_eq!(pod.peers(NextHops::AsFound).await, PeerMacs::both(HOST_MAC));
        pod.record(NODES[0]).await;
        assert_eq!(pod.peers(NextHops::AsFound).await, PeerMacs::both(RECORDED));
        assert!(!pod.has_entry(HOPS[0]) && !pod.has_entry(HOPS[1]));
        // Also where the next hop has another one by now.
        pod.expect(NextHops::OfEachFamily, PeerMacs { v4: ROUTER_V4, v6: ROUTER_V6 }).await;
        assert_eq!(pod.peers(NextHops::AsFound).await, PeerMacs { v4: RECORDED, v6: ROUTER_V6 });
        assert!(pod.has_entry(HOPS[0]) && pod.has_entry(HOPS[1]));
    });
}

/// The kernel sends no solicitation then.
#[test]
fn nobody_waits_for_an_ipv6_next_hop_while_the_pods_address_is_tentative() {
    in_a_node(async || {
        let mut pod = Pod::new(HOPS, None).await;
        pod.expect(NextHops::OfEachFamily, PeerMacs::both(ROUTER_V4)).await;
        assert!(!pod.has_entry(HOPS[1]), "it was asked for");
        pod.record(NODES[1]).await;
        pod.expect(NextHops::OfEachFamily, PeerMacs { v4: ROUTER_V4, v6: RECORDED }).await;
        assert!(!pod.has_entry(HOPS[1]), "it was asked for");
    });
}
