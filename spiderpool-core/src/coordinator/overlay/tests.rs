//! Plans for pods of a Calico-like node, as snapshots.

use super::*;
use crate::Unsupported;
use crate::coordinator::Settings;
use crate::go_json::from_go_json;
use crate::mac::MacAddr;
use crate::net::{Address, PROTOCOL_KERNEL};

const EE: MacAddr = MacAddr([0xee; 6]);

fn nic(text: &str) -> IfName {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, kind: &str) -> Link {
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
    }
}

fn route(dst: &str, dev: &str, gateway: Option<&str>, metric: u32) -> Route {
    let protocol = if gateway.is_some() { 3 } else { PROTOCOL_KERNEL };
    let gateway = gateway.map(|g| g.parse().unwrap());
    Route { gateway, metric, protocol, ..Route::new(dst.parse().unwrap(), nic(dev)) }
}

struct Pod {
    namespace: NamespaceState,
    host_end: NamespaceState,
    config: Config,
    nodes: Vec<IpAddr>,
    expected: Option<Vec<IfName>>,
}

impl Pod {
    /// eth0 as Calico makes it, net1 as the macvlan plugin makes it, dual stack.
    fn new(settings: &str) -> Self {
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
                neighbors: Vec::new(),
            },
            host_end: NamespaceState::default(),
            config: Settings::resolve(own, agent).unwrap(),
            nodes: ["10.6.212.132", "fd00:10:6::132", "172.18.0.3"].map(|a| a.parse().unwrap()).to_vec(),
            expected: None,
        }
    }

    fn inputs<'a>(&'a self, nic: &'a IfName) -> Inputs<'a> {
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

    fn plan(&self, name: &str) -> Result<OverlayPlan, PlanError> {
        plan_overlay(&self.inputs(&nic(name)))
    }

    /// What the kernel would show after the plan.
    fn apply(&mut self, plan: &OverlayPlan) {
        let pod = &mut self.namespace;
        for step in plan.links.iter().chain(&plan.routes) {
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
                _ => {}
            }
        }
        pod.routes = project(&pod.routes, &plan.routes);
    }

    /// Writing a kernel parameter again changes nothing, so it may stay in a repeated plan.
    fn check_settled(&self, name: &str) {
        let plan = self.plan(name).unwrap();
        let rest: Vec<_> = plan.links.iter().filter(|s| !matches!(s, Step::SetSysctl { .. })).collect();
        assert_eq!((rest, &plan.routes), (vec![], &vec![]));
    }
}

#[test]
fn the_default_route_stays_on_eth0() {
    let mut pod = Pod::new("{}");
    let plan = pod.plan("net1").unwrap();
    insta::assert_snapshot!("default_on_eth0", plan);
    pod.apply(&plan);
    pod.check_settled("net1");
}

#[test]
fn the_default_route_moves_to_net1() {
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net1"}"#);
    let plan = pod.plan("net1").unwrap();
    insta::assert_snapshot!("default_on_net1", plan);
    pod.apply(&plan);
    pod.check_settled("net1");
}

#[test]
fn everything_that_can_be_configured() {
    let mut pod = Pod::new(
        r#"{"podMACPrefix":"0a:1b","txQueueLen":2000,"vethMTU":9000,"podRPFilter":-1,"podDefaultRouteNic":"net1",
            "policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"}],"ebpf":{"routeHints":"never"}}"#,
    );
    pod.namespace.links[2].up = false;
    let plan = pod.plan("net1").unwrap();
    insta::assert_snapshot!("everything", plan);
    pod.apply(&plan);
    pod.check_settled("net1");
    assert!(
        unsteered_destinations(&pod.namespace.routes, &nic("eth0"))
            .contains(&"192.168.3.0/24".parse().unwrap())
    );
}

#[test]
fn an_ipv4_pod_is_not_given_ipv6() {
    let mut pod = Pod::new("{}");
    pod.namespace.addresses.retain(|a| a.net.addr().is_ipv4());
    pod.namespace.routes.retain(|r| r.family() == Family::V4);
    let text = pod.plan("net1").unwrap().to_string();
    assert!(!text.contains("fd00") && !text.contains("fe80") && !text.contains("disable_ipv6"), "{text}");
}

#[test]
fn a_second_underlay_nic_shares_the_node_link() {
    let mut pod = Pod::new("{}");
    let plan = pod.plan("net1").unwrap();
    pod.apply(&plan);
    pod.namespace.links.push(link(10, "net2", "macvlan"));
    pod.namespace.addresses.push(Address::new(nic("net2"), "10.7.0.5/16".parse().unwrap()));
    pod.namespace.routes.push(route("10.7.0.0/16", "net2", None, 0));
    pod.namespace.routes.push(route("0.0.0.0/0", "net2", Some("10.7.0.1"), 0));
    let plan = pod.plan("net2").unwrap();
    insta::assert_snapshot!("second_nic", plan);
    pod.apply(&plan);
    pod.check_settled("net2");
    pod.check_settled("net1");
}

#[test]
fn undoing_goes_back_to_what_was() {
    let pod = Pod::new(r#"{"podMACPrefix":"0a:1b","podDefaultRouteNic":"net1"}"#);
    let plan = pod.plan("net1").unwrap();
    let undo: Vec<_> = plan.routes.iter().rev().filter_map(|step| step.inverse(None)).collect();
    let mut routes = project(&project(&pod.namespace.routes, &plan.routes), &undo);
    let mut before = pod.namespace.routes.clone();
    for list in [&mut routes, &mut before] {
        list.sort_by_key(ToString::to_string);
    }
    assert_eq!(routes, before);
    let mac = plan.links.iter().find(|s| matches!(s, Step::SetMac { .. })).unwrap();
    assert_eq!(
        mac.inverse(None),
        Some(Step::SetMac {
            dev: nic("net1"),
            mac: MacAddr([2, 0, 0, 0, 0, 3]),
            before: Some("0a:1b:0a:06:d4:91".parse().unwrap())
        })
    );
}

#[test]
fn a_sysctl_is_undone_only_if_it_changed() {
    let step = Step::interface_sysctl(Namespace::Pod, Family::V4, "eth0", "arp_announce", 2);
    assert_eq!(step.inverse(Some("2")), None);
    let undo = step.inverse(Some("0")).unwrap();
    assert_eq!(undo.to_string(), "pod: sysctl net/ipv4/conf/eth0/arp_announce = 0");
}

#[test]
fn connected_subnets_and_pool_routes_stay() {
    let mut pod = Pod::new("{}");
    pod.namespace.routes.push(route("192.168.0.0/16", "net1", Some("10.6.0.9"), 0));
    pod.namespace.routes.push(route("fe80::/64", "net1", None, 256));
    let found: Vec<_> =
        unsteered_destinations(&pod.namespace.routes, &nic("eth0")).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.6.0.0/16", "192.168.0.0/16", "fd00:10:6::/64"]);
}

/// Upstream fails where a second NIC cannot have a route of policyRoutes, or the first has it already.
#[test]
fn policy_routes_are_for_the_nics_that_reach_their_gateways() {
    let mut pod = Pod::new(
        r#"{"policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"},{"dst":"192.168.4.0/24","gw":"10.8.0.9"},
            {"dst":"10.233.0.0/18","gw":"10.6.0.9"}]}"#,
    );
    let policy = |plan: &OverlayPlan| {
        let steps = plan.routes.iter().map(ToString::to_string);
        steps.filter(|step| step.contains("route add") && step.contains(".0.9")).collect::<Vec<_>>()
    };
    let plan = pod.plan("net1").unwrap();
    assert_eq!(
        policy(&plan),
        [
            "pod: route add 192.168.3.0/24 via 10.6.0.9 dev net1 proto 0x53",
            "pod: route add 10.233.0.0/18 via 10.6.0.9 dev net1 proto 0x53",
        ]
    );
    pod.apply(&plan);
    for (position, (name, address)) in
        [("net2", "10.6.0.77/16"), ("net3", "10.7.0.5/16")].into_iter().enumerate()
    {
        pod.namespace.links.push(link(10 + position as u32, name, "macvlan"));
        pod.namespace.addresses.push(Address::new(nic(name), address.parse().unwrap()));
        assert_eq!(policy(&pod.plan(name).unwrap()), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_policy_route_takes_the_place_of_a_hint() {
    let settings = r#"{"podDefaultRouteNic":"net1"}"#;
    let mut pod = Pod::new(settings);
    let plan = pod.plan("net1").unwrap();
    pod.apply(&plan);
    let policy = r#"{"podDefaultRouteNic":"net1","policyRoutes":[{"dst":"10.233.0.0/18","gw":"10.6.0.9"}]}"#;
    pod.config = Pod::new(policy).config;
    let shown: Vec<_> = pod.plan("net1").unwrap().routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "pod: route del 10.233.0.0/18 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
            "pod: route add 10.233.0.0/18 via 10.6.0.9 dev net1 proto 0x53",
        ]
    );
}

#[test]
fn a_default_route_nic_that_never_comes_is_an_error() {
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net9"}"#);
    assert!(pod.plan("net1").is_ok(), "nobody knows what comes");
    pod.expected = Some(vec![nic("net1"), nic("net9")]);
    assert!(pod.plan("net1").is_ok(), "it comes later");
    pod.expected = Some(vec![nic("net1")]);
    let error = pod.plan("net1").unwrap_err();
    assert_eq!(error, PlanError::DefaultRouteNic(nic("net9")));
    assert!(error.to_string().contains("podDefaultRouteNIC: net9 don't exist in pod"), "{error}");
    pod.config.tune_pod_routes = false;
    assert!(pod.plan("net1").is_ok(), "no route is tuned");
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net1"}"#);
    pod.expected = Some(vec![]);
    assert!(pod.plan("net1").is_ok(), "the NIC that is added is there");
}

#[test]
fn pods_that_cannot_be_set_up_are_told_apart() {
    let pod = Pod::new("{}");
    assert_eq!(pod.plan("net9"), Err(PlanError::NoNic(nic("net9"))));
    let mut pod = Pod::new("{}");
    pod.namespace.addresses.retain(|a| a.dev.as_str() != "net1");
    assert_eq!(pod.plan("net1"), Err(PlanError::NoAddress(nic("net1"))));
    let mut pod = Pod::new("{}");
    pod.namespace.links.remove(1);
    assert_eq!(pod.plan("net1"), Err(PlanError::NoClusterNic(nic("eth0"))));
    let mut pod = Pod::new(r#"{"podMACPrefix":"0a:1b"}"#);
    pod.namespace.links[2].kind = "ipvlan".to_owned();
    assert_eq!(pod.plan("net1"), Err(PlanError::IpvlanMac(nic("net1"))));
    let mut pod = Pod::new("{}");
    pod.namespace.links[2].medium = Medium::Infiniband;
    assert!(matches!(pod.plan("net1"), Err(PlanError::Unsupported(Unsupported::LinkLayer(_)))));
}
