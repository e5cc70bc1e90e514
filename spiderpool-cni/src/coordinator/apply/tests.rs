//! A plan against the kernel, and back.

use std::net::IpAddr;

use ipnet::IpNet;

use spiderpool_core::coordinator::{HostEnd, Inputs, Settings, host_end_name, plan_overlay};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::net::Link;

use super::*;
use crate::coordinator::state::{cluster_peer, read_host_end, read_pod, sources};

const CONTAINER: &str = "c0ffee";
const NODES: [&str; 2] = ["10.6.212.132/16", "fd00:10:6::132/64"];
const HOST_MAC: MacAddr = MacAddr([0xee; 6]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A pod whose eth0 and net1 are veths to the node, each with a default route, in both families.
fn pod() -> NetNs {
    let netns = NetNs::create().unwrap();
    let (mut node, mut pod) = (Netlink::open().unwrap(), netns.netlink().unwrap());
    for (position, nic, addresses, gateways) in [
        (1, "eth0", ["10.233.73.210/24", "fd00:233::210/64"], ["10.233.73.1", "fe80::1"]),
        (2, "net1", ["10.6.212.145/16", "fd00:10:6::145/64"], ["10.6.0.1", "fd00:10:6::1"]),
    ] {
        let peer = name(&format!("host{position}"));
        let veth = NewVeth {
            name: &peer,
            mac: HOST_MAC,
            peer_name: &name(nic),
            peer_mac: MacAddr([2, 0, 0, 0, 0, position]),
            peer_netns: &netns,
            mtu: 1450,
        };
        node.add_veth(&veth).unwrap();
        let index = node.link_by_name(&peer).unwrap().unwrap().index;
        node.set_up(index).unwrap();
        if nic == "net1" {
            for address in NODES {
                node.add_address(index, address.parse().unwrap()).unwrap();
            }
        }
        let index = pod.link_by_name(&name(nic)).unwrap().unwrap().index;
        pod.set_up(index).unwrap();
        for (address, gateway) in addresses.iter().zip(gateways) {
            pod.add_address(index, address.parse().unwrap()).unwrap();
            let gateway: IpAddr = gateway.parse().unwrap();
            let family = spiderpool_core::ip::Family::of(gateway);
            let route =
                Route { gateway: Some(gateway), protocol: 3, ..Route::new(family.default_route(), index) };
            pod.append_route(&route).unwrap();
        }
    }
    netns
}

/// What the kernel has, without the link-local addresses that it makes when it gets round to it.
fn look(applier: &mut Applier<'_>) -> (Vec<Link>, Vec<String>, HostEnd, Vec<Option<String>>) {
    let pod = read_pod(&mut applier.pod_netlink).unwrap();
    let link_local: IpNet = "fe80::/10".parse().unwrap();
    let routes = pod.routes.iter().filter(|r| !link_local.contains(&r.dst));
    let mut rest: Vec<String> = routes.map(ToString::to_string).collect();
    let addresses = pod.addresses.iter().filter(|a| !link_local.contains(&a.net));
    rest.extend(addresses.map(|a| format!("{} {}", a.dev, a.net)));
    rest.extend(pod.neighbors.iter().map(ToString::to_string));
    rest.sort();
    let host_end = read_host_end(&mut applier.node_netlink, &host_end_name(CONTAINER).unwrap()).unwrap();
    let keys =
        ["all/rp_filter", "default/rp_filter", "eth0/rp_filter", "net1/rp_filter", "eth0/arp_announce"];
    let read = || keys.iter().map(|key| sysctl::read(&format!("net/ipv4/conf/{key}")).ok()).collect();
    (pod.links, rest, host_end, applier.pod.run(read).unwrap())
}

fn plan(applier: &mut Applier<'_>, settings: &str) -> Vec<Step> {
    let settings: Settings = serde_json::from_str(settings).unwrap();
    let config = settings.merge(Settings::default()).unwrap();
    let pod = read_pod(&mut applier.pod_netlink).unwrap();
    let plan = plan_overlay(&Inputs {
        container_id: CONTAINER,
        nic: &name("net1"),
        config: &config,
        pod: &pod,
        host_end: &read_host_end(&mut applier.node_netlink, &host_end_name(CONTAINER).unwrap()).unwrap(),
        cluster_peer: cluster_peer(&mut applier.node_netlink, &pod, &name("eth0")).unwrap(),
        nodes: &NODES.map(|net| net.parse::<IpNet>().unwrap().addr()),
        sources: &sources(&mut applier.node_netlink, &pod, &name("net1")),
        expected: None,
    });
    let plan = plan.unwrap();
    [plan.links, plan.routes].concat()
}

const SETTINGS: &str = r#"{"podMACPrefix":"0a:1b","txQueueLen":77,"podRPFilter":2,"podDefaultRouteNic":"net1",
    "serviceCIDR":["10.233.0.0/18","fd00:96::/108"],"policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"}]}"#;

/// Runs `test` in a node of its own.
fn in_a_node(test: impl FnOnce() + Send) {
    if nix::unistd::geteuid().is_root() {
        NetNs::create().unwrap().run(test).unwrap();
    } else {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
    }
}

#[test]
fn an_applied_plan_leaves_nothing_to_do_and_can_be_undone() {
    in_a_node(|| {
        let netns = pod();
        let mut applier = Applier::new(&netns).unwrap();
        let before = look(&mut applier);
        let steps = plan(&mut applier, SETTINGS);
        applier.apply(&steps).unwrap();
        assert_ne!(look(&mut applier), before);
        let rest = plan(&mut applier, SETTINGS);
        let rest: Vec<_> = rest.iter().filter(|step| !matches!(step, Step::SetSysctl { .. })).collect();
        assert_eq!(rest, Vec::<&Step>::new());
        applier.undo();
        assert_eq!(look(&mut applier), before);
    });
}

#[test]
fn a_failure_at_any_step_can_be_undone() {
    in_a_node(|| {
        let netns = pod();
        let mut applier = Applier::new(&netns).unwrap();
        let before = look(&mut applier);
        let steps = plan(&mut applier, SETTINGS);
        let fails = Step::SetUp { place: Place::Pod, dev: name("nosuch") };
        for length in 0..=steps.len() {
            let broken = [&steps[..length], std::slice::from_ref(&fails)].concat();
            let error = applier.apply(&broken).unwrap_err().to_object("1.0.0");
            assert_eq!((error.code, error.details.as_str()), (104, "device nosuch is gone"));
            applier.undo();
            assert_eq!(look(&mut applier), before, "after {length} steps");
        }
    });
}

/// The agent renews hints at any time after the registration.
#[test]
fn hints_that_the_agent_added_first_do_not_fail_the_add() {
    in_a_node(|| {
        let netns = pod();
        let mut applier = Applier::new(&netns).unwrap();
        let steps = plan(&mut applier, SETTINGS);
        let is_hint = |step: &&Step| step.to_string().starts_with("pod: route add 10.233.0.0/18");
        let hint = steps.iter().find(is_hint).unwrap().clone();
        Applier::new(&netns).unwrap().apply(&[hint]).unwrap();
        applier.apply(&steps).unwrap();
    });
}

/// The address that made the gateway reachable is gone, the route is still there.
#[test]
fn a_default_route_whose_gateway_is_out_of_reach_is_moved_and_put_back() {
    in_a_node(|| {
        let netns = pod();
        let mut applier = Applier::new(&netns).unwrap();
        let netlink = &mut applier.pod_netlink;
        let eth0 = netlink.link_by_name(&name("eth0")).unwrap().unwrap().index;
        for (address, gateway) in [("10.99.0.2/24", "10.99.0.1"), ("fd00:99::2/64", "fd00:99::1")] {
            let (address, gateway): (IpNet, IpAddr) = (address.parse().unwrap(), gateway.parse().unwrap());
            let family = spiderpool_core::ip::Family::of(gateway);
            let default = family.default_route();
            for route in netlink.routes_of(family, Some(eth0)).unwrap() {
                if route.is_default() {
                    netlink.delete_route(&route).unwrap();
                }
            }
            netlink.add_address(eth0, address).unwrap();
            let route = Route { gateway: Some(gateway), protocol: 3, ..Route::new(default, eth0) };
            netlink.append_route(&route).unwrap();
            netlink.delete_address(eth0, address).unwrap();
            assert!(netlink.routes_of(family, Some(eth0)).unwrap().iter().any(Route::is_default), "{family}");
        }
        let before = look(&mut applier);
        let steps = plan(&mut applier, SETTINGS);
        applier.apply(&steps).unwrap();
        let rest = plan(&mut applier, SETTINGS);
        let rest: Vec<_> = rest.iter().filter(|step| !matches!(step, Step::SetSysctl { .. })).collect();
        assert_eq!(rest, Vec::<&Step>::new());
        applier.undo();
        let after = look(&mut applier);
        let without_flag = |lines: &[String]| {
            let mut lines: Vec<_> = lines.iter().map(|line| line.replace(" onlink", "")).collect();
            lines.sort();
            lines
        };
        assert_eq!(without_flag(&after.1), without_flag(&before.1));
    });
}
