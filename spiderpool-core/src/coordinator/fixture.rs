//! A pod of a Calico-like node, for the tests of plans.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Config, Inputs, Namespace, NamespaceState, Settings, Step, project};
use crate::go_json::from_go_json;
use crate::ip::Family;
use crate::mac::MacAddr;
use crate::names::IfName;
use crate::net::{Address, Link, MAIN_TABLE, Medium, PROTOCOL_KERNEL, Route};

const EE: MacAddr = MacAddr([0xee; 6]);

pub(super) fn nic(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(super) fn link(index: u32, name: &str, kind: &str) -> Link {
    let medium = if name == "lo" { Medium::Loopback } else { Medium::Ethernet };
    let mac = (name != "lo").then_some(MacAddr([2, 0, 0, 0, 0, index as u8]));
    Link {
        index,
        name: nic(name),
        mac,
        mtu: 1500,
        tx_queue_len: 1000,
        up: true,
        kind: kind.to_owned(),
        medium,
        peer: None,
        peer_netns: None,
        master: None,
        detail: crate::net::LinkDetail::Nothing,
    }
}

pub(super) fn route(dst: &str, dev: &str, gateway: Option<&str>, metric: u32) -> Route {
    let protocol = if gateway.is_some() { 3 } else { PROTOCOL_KERNEL };
    let gateway = gateway.map(|g| g.parse().unwrap());
    Route { gateway, metric, protocol, ..Route::new(dst.parse().unwrap(), nic(dev)) }
}

/// A pod and its node.
pub(super) struct Pod {
    pub(super) namespace: NamespaceState,
    pub(super) host_end: NamespaceState,
    pub(super) config: Config,
    pub(super) nodes: Vec<IpAddr>,
    pub(super) expected: Option<Vec<IfName>>,
}

impl Pod {
    /// eth0 as Calico makes it, net1 as the macvlan plugin makes it, dual stack.
    pub(super) fn new(settings: &str) -> Self {
        let addresses = [
            ("eth0", "10.233.73.210/32"),
            ("eth0", "fd00:233::210/128"),
            ("net1", "10.6.212.145/16"),
            ("net1", "fd00:10:6::145/64"),
        ];
        let agent = r#"{"mode":"auto","overlayPodCIDR":["10.233.64.0/18","fd00:233::/64"],
            "serviceCIDR":["10.233.0.0/18","fd00:96::/108"],"hijackCIDR":["169.254.0.0/16"],"podRPFilter":0,
            "dataplane":"ebpf"}"#;
        let [own, agent] = [settings, agent].map(|json| from_go_json::<Settings>(json).unwrap());
        Self {
            namespace: NamespaceState {
                links: vec![link(1, "lo", ""), link(2, "eth0", "veth"), link(3, "net1", "macvlan")],
                addresses: addresses.map(|(dev, net)| Address::new(nic(dev), net.parse().unwrap())).to_vec(),
                routes: vec![
                    route("0.0.0.0/0", "net1", Some("10.6.0.1"), 0),
                    route("0.0.0.0/0", "eth0", Some("169.254.1.1"), 0),
                    route("169.254.1.1/32", "eth0", None, 0),
                    route("10.6.0.0/16", "net1", None, 0),
                    route("::/0", "eth0", Some("fe80::ecee:eeff:feee:eeee"), 1024),
                    route("::/0", "net1", Some("fd00:10:6::1"), 1024),
                    route("fd00:10:6::/64", "net1", None, 256),
                ],
                ..NamespaceState::default()
            },
            host_end: NamespaceState::default(),
            config: Settings::resolve(own, agent).unwrap(),
            nodes: ["10.6.212.132", "fd00:10:6::132", "172.18.0.3"].map(|a| a.parse().unwrap()).to_vec(),
            expected: None,
        }
    }

    /// A pod whose eth0 the macvlan plugin has made.
    pub(super) fn underlay(settings: &str) -> Self {
        let mut pod = Self::new(settings);
        let state = &mut pod.namespace;
        state.links.truncate(2);
        state.links[1] = link(2, "eth0", "macvlan");
        let addresses = ["172.18.55.180/16", "fd00:172:18::180/64"];
        state.addresses = addresses.map(|net| Address::new(nic("eth0"), net.parse().unwrap())).to_vec();
        state.routes = vec![
            route("0.0.0.0/0", "eth0", Some("172.18.0.1"), 0),
            route("172.18.0.0/16", "eth0", None, 0),
            route("::/0", "eth0", Some("fd00:172:18::1"), 1024),
            route("fd00:172:18::/64", "eth0", None, 256),
        ];
        pod.nodes = ["172.18.0.3", "fd00:172:18::3"].map(|node| node.parse().unwrap()).to_vec();
        pod
    }

    /// Another NIC that the macvlan plugin has made, or another address of it.
    pub(super) fn attach(&mut self, name: &str, address: &str, gateway: &str) {
        if !self.namespace.has_link(name) {
            let index = self.namespace.links.len() as u32 + 1;
            self.namespace.links.push(link(index, name, "macvlan"));
        }
        let net: IpNet = address.parse().unwrap();
        self.namespace.addresses.push(Address::new(nic(name), net));
        self.namespace.routes.push(route(&net.trunc().to_string(), name, None, 0));
        let family = Family::of_net(&net);
        let metric = if family == Family::V6 { 1024 } else { 0 };
        let default = family.default_route().to_string();
        self.namespace.routes.push(route(&default, name, Some(gateway), metric));
    }

    pub(super) fn inputs<'a>(&'a self, nic: &'a IfName) -> Inputs<'a> {
        Inputs {
            container_id: "c0ffee",
            nic,
            config: &self.config,
            pod: &self.namespace,
            host_end: &self.host_end,
            host_veth_mac: EE,
            nodes: &self.nodes,
            sources: &[],
            expected: self.expected.as_deref(),
        }
    }

    /// What the kernel would show after the plan.
    pub(super) fn apply(&mut self, steps: &[Step]) {
        let pod = &mut self.namespace;
        for step in steps {
            match step.clone() {
                Step::AddNodeLink { host, pod: name, pod_mac, mtu, .. } => {
                    self.host_end.links.push(Link { up: false, ..link(10, host.as_str(), "veth") });
                    pod.links.push(Link {
                        mac: Some(pod_mac),
                        mtu,
                        up: false,
                        ..link(9, name.as_str(), "veth")
                    });
                }
                Step::SetUp { namespace: Namespace::Pod, dev } => {
                    pod.links.iter_mut().filter(|l| l.name == dev).for_each(|l| l.up = true);
                }
                Step::SetUp { namespace: Namespace::Node, dev } => {
                    self.host_end.links.iter_mut().filter(|l| l.name == dev).for_each(|l| l.up = true);
                }
                Step::SetMac { dev, mac, .. } => {
                    pod.links.iter_mut().filter(|l| l.name == dev).for_each(|l| l.mac = Some(mac));
                }
                Step::SetTxQueueLen { dev, length, .. } => {
                    pod.links.iter_mut().filter(|l| l.name == dev).for_each(|l| l.tx_queue_len = length);
                }
                Step::AddAddress { dev, net } => pod.addresses.push(Address::new(dev, net)),
                Step::SetNeighbor { namespace: Namespace::Pod, neighbor } => pod.neighbors.push(neighbor),
                Step::SetNeighbor { namespace: Namespace::Node, neighbor } => {
                    self.host_end.neighbors.push(neighbor);
                }
                Step::ReplaceRoute { namespace: Namespace::Node, route } => self.host_end.routes.push(route),
                Step::AddRoute { namespace, route } if route.table != MAIN_TABLE => {
                    let state = if namespace == Namespace::Pod { &mut *pod } else { &mut self.host_end };
                    state.table_routes.push(route);
                }
                Step::DeleteRoute { namespace, route } if route.table != MAIN_TABLE => {
                    let state = if namespace == Namespace::Pod { &mut *pod } else { &mut self.host_end };
                    state.table_routes.retain(|r| *r != route);
                }
                Step::AddRule { namespace: Namespace::Pod, rule } => pod.rules.push(rule),
                Step::DeleteRule { namespace: Namespace::Pod, rule } => pod.rules.retain(|r| *r != rule),
                _ => {}
            }
        }
        pod.routes = project(&pod.routes, steps);
    }
}
