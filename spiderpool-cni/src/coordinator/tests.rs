//! A plan against the kernel, and back.

mod next_hops;

use std::net::IpAddr;

use ipnet::IpNet;

use spiderpool_core::coordinator::{
    Config, Inputs, Namespace, NamespaceState, PeerMacs, PolicyInputs, Settings, Step, host_end_name,
    plan_overlay, plan_policy_overlay, plan_policy_underlay, veth0_of,
};
use spiderpool_core::go_json::from_go_json;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Link, Route};
use spiderpool_net::block_on;
use spiderpool_net::executor::{Executor, MissingDevice};
use spiderpool_net::netlink::{Netlink, NetlinkError, NewVeth};
use spiderpool_net::netns::NetNs;
use spiderpool_net::nft;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::sysctl;

use super::setup::PodMode;
use super::state::{HostEnd, host_veth, read_host_end, read_node, sources};
use crate::error::PluginError;

const CONTAINER: &str = "c0ffee";
const NODES: [&str; 2] = ["10.6.212.132/16", "fd00:10:6::132/64"];
const HOST_MAC: MacAddr = MacAddr([0xee; 6]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A pod whose eth0 and net1 are veths to the node, each with a default route, in both families.
async fn pod() -> NetNs {
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
        node.add_veth(&veth).await.unwrap();
        let index = node.link_by_name(&peer).await.unwrap().unwrap().index;
        node.set_up(index).await.unwrap();
        if nic == "net1" {
            for address in NODES {
                node.add_address(index, address.parse().unwrap()).await.unwrap();
            }
        }
        let index = pod.link_by_name(&name(nic)).await.unwrap().unwrap().index;
        pod.set_up(index).await.unwrap();
        for (address, gateway) in addresses.iter().zip(gateways) {
            pod.add_address(index, address.parse().unwrap()).await.unwrap();
            let gateway: IpAddr = gateway.parse().unwrap();
            let family = spiderpool_core::ip::Family::of(gateway);
            let route =
                Route { gateway: Some(gateway), protocol: 3, ..Route::new(family.default_route(), index) };
            pod.append_route(&route).await.unwrap();
        }
    }
    netns
}

/// What the kernel has, without the link-local addresses that it makes when it gets round to it.
async fn look(
    netns: &NetNs,
    executor: &mut Executor<'_>,
) -> (Vec<Link>, Vec<String>, NamespaceState, Vec<Option<String>>) {
    let pod = executor.netlink(Namespace::Pod).snapshot(Contents::PLAIN).await.unwrap();
    let link_local: IpNet = "fe80::/10".parse().unwrap();
    let routes = pod.routes.iter().filter(|r| !link_local.contains(&r.dst));
    let mut rest: Vec<String> = routes.map(ToString::to_string).collect();
    let addresses = pod.addresses.iter().filter(|a| !link_local.contains(&a.net));
    rest.extend(addresses.map(|a| format!("{} {}", a.dev, a.net)));
    rest.extend(pod.neighbors.iter().map(ToString::to_string));
    rest.sort();
    let name = host_end_name(CONTAINER).unwrap();
    let mut host_end = read_host_end(executor.netlink(Namespace::Node), &name).await.unwrap();
    // A pair that is made again has other indexes.
    host_end.links.clear();
    let keys = [
        "all/rp_filter",
        "default/rp_filter",
        "eth0/rp_filter",
        "net1/rp_filter",
        "all/arp_announce",
        "all/arp_ignore",
    ];
    let read = || keys.iter().map(|key| sysctl::read(&format!("net/ipv4/conf/{key}")).ok()).collect();
    (pod.links, rest, host_end, netns.run(read).unwrap())
}

async fn plan(executor: &mut Executor<'_>, settings: &str) -> Vec<Step> {
    let config = Settings::resolve(from_go_json(settings).unwrap(), Settings::default()).unwrap();
    let pod = executor.netlink(Namespace::Pod).snapshot(Contents::PLAIN).await.unwrap();
    let node = executor.netlink(Namespace::Node);
    let plan = plan_overlay(&Inputs {
        container_id: CONTAINER,
        nic: &name("net1"),
        config: &config,
        pod: &pod,
        host_end: &read_host_end(node, &host_end_name(CONTAINER).unwrap()).await.unwrap(),
        host_veth_mac: host_veth(node, &pod, &name("eth0")).await.unwrap().end.mac,
        nodes: &NODES.map(|net| net.parse::<IpNet>().unwrap().addr()),
        sources: &sources(node, &pod, &name("net1")).await,
        expected: None,
    });
    let plan = plan.unwrap();
    [plan.links, plan.routes].concat()
}

const SETTINGS: &str = r#"{"podMACPrefix":"0a:1b","txQueueLen":77,"podRPFilter":2,"podDefaultRouteNic":"net1",
    "serviceCIDR":["10.233.0.0/18","fd00:96::/108"],"policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"}]}"#;

/// Runs `test` in a node of its own.
fn in_a_node(test: impl AsyncFnOnce() + Send) {
    if nix::unistd::geteuid().is_root() {
        let test = async || {
            test().await;
            Ok::<_, NetlinkError>(())
        };
        NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
    } else {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
    }
}

#[test]
fn an_applied_plan_leaves_nothing_to_do_and_is_rolled_back() {
    in_a_node(async || {
        let netns = pod().await;
        let mut executor = Executor::new(&netns, MissingDevice::Fail).unwrap();
        let before = look(&netns, &mut executor).await;
        let steps = plan(&mut executor, SETTINGS).await;
        executor.apply(&steps).await.unwrap();
        assert_ne!(look(&netns, &mut executor).await, before);
        let rest = plan(&mut executor, SETTINGS).await;
        let rest: Vec<_> = rest.iter().filter(|step| !matches!(step, Step::SetSysctl { .. })).collect();
        assert_eq!(rest, Vec::<&Step>::new());
        assert!(executor.roll_back().await.is_empty());
        assert_eq!(look(&netns, &mut executor).await, before);
    });
}

#[test]
fn a_failure_at_any_step_is_rolled_back() {
    in_a_node(async || {
        let netns = pod().await;
        let mut executor = Executor::new(&netns, MissingDevice::Fail).unwrap();
        let before = look(&netns, &mut executor).await;
        let steps = plan(&mut executor, SETTINGS).await;
        let fails = Step::SetUp { namespace: Namespace::Pod, dev: name("nosuch") };
        for length in 0..=steps.len() {
            let broken = [&steps[..length], std::slice::from_ref(&fails)].concat();
            let error = PluginError::from(executor.apply(&broken).await.unwrap_err()).to_object("1.0.0");
            assert_eq!((error.code, error.details.as_str()), (104, "device nosuch is gone"));
            assert!(executor.roll_back().await.is_empty());
            assert_eq!(look(&netns, &mut executor).await, before, "after {length} steps");
        }
    });
}

/// The agent renews hints at any time after the registration.
#[test]
fn add_succeeds_when_the_agent_added_a_route_hint_first() {
    in_a_node(async || {
        let netns = pod().await;
        let mut executor = Executor::new(&netns, MissingDevice::Fail).unwrap();
        let steps = plan(&mut executor, SETTINGS).await;
        let is_hint = |step: &&Step| step.to_string().starts_with("pod: route add 10.233.0.0/18");
        let hint = steps.iter().find(is_hint).unwrap().clone();
        Executor::new(&netns, MissingDevice::Fail).unwrap().apply(&[hint]).await.unwrap();
        executor.apply(&steps).await.unwrap();
    });
}

/// The address that made the gateway reachable is gone, the route is still there.
#[test]
fn a_default_route_whose_gateway_is_out_of_reach_is_moved_and_put_back() {
    in_a_node(async || {
        let netns = pod().await;
        let mut executor = Executor::new(&netns, MissingDevice::Fail).unwrap();
        let netlink = executor.netlink(Namespace::Pod);
        let eth0 = netlink.link_by_name(&name("eth0")).await.unwrap().unwrap().index;
        for (address, gateway) in [("10.99.0.2/24", "10.99.0.1"), ("fd00:99::2/64", "fd00:99::1")] {
            let (address, gateway): (IpNet, IpAddr) = (address.parse().unwrap(), gateway.parse().unwrap());
            let family = spiderpool_core::ip::Family::of(gateway);
            let default = family.default_route();
            for route in netlink.routes_of(family, Some(eth0)).await.unwrap() {
                if route.is_default() {
                    netlink.delete_route(&route).await.unwrap();
                }
            }
            netlink.add_address(eth0, address).await.unwrap();
            let route = Route { gateway: Some(gateway), protocol: 3, ..Route::new(default, eth0) };
            netlink.append_route(&route).await.unwrap();
            netlink.delete_address(eth0, address).await.unwrap();
            assert!(
                netlink.routes_of(family, Some(eth0)).await.unwrap().iter().any(Route::is_default),
                "{family}"
            );
        }
        let before = look(&netns, &mut executor).await;
        let steps = plan(&mut executor, SETTINGS).await;
        executor.apply(&steps).await.unwrap();
        let rest = plan(&mut executor, SETTINGS).await;
        let rest: Vec<_> = rest.iter().filter(|step| !matches!(step, Step::SetSysctl { .. })).collect();
        assert_eq!(rest, Vec::<&Step>::new());
        assert!(executor.roll_back().await.is_empty());
        let after = look(&netns, &mut executor).await;
        let without_flag = |lines: &[String]| {
            let mut lines: Vec<_> = lines.iter().map(|line| line.replace(" onlink", "")).collect();
            lines.sort();
            lines
        };
        assert_eq!(without_flag(&after.1), without_flag(&before.1));
    });
}

/// Everything that dataplane policy changes, in the pod and on the node.
async fn look_at_policy(
    netns: &NetNs,
    executor: &mut Executor<'_>,
) -> (Vec<String>, Vec<String>, bool, Vec<Option<String>>) {
    let (_, mut pod, _, sysctls) = look(netns, executor).await;
    let state = executor.netlink(Namespace::Pod).snapshot(Contents::ALL).await.unwrap();
    pod.extend(state.rules.iter().map(ToString::to_string));
    pod.extend(state.table_routes.iter().map(ToString::to_string));
    let state = executor.netlink(Namespace::Node).snapshot(Contents::ALL).await.unwrap();
    let link_local: IpNet = "fe80::/10".parse().unwrap();
    let routes = state.routes.iter().chain(&state.table_routes).filter(|r| !link_local.contains(&r.dst));
    let mut node: Vec<String> = routes.map(ToString::to_string).collect();
    node.extend(state.rules.iter().map(ToString::to_string));
    node.extend(state.neighbors.iter().map(ToString::to_string));
    node.extend(state.links.iter().map(|link| link.name.to_string()));
    for lines in [&mut pod, &mut node] {
        lines.sort();
    }
    let marks = netns.run(|| nft::has_return_marks(&name("net1"))).unwrap().unwrap();
    (pod, node, marks, sysctls)
}

async fn policy_plan(executor: &mut Executor<'_>, mode: PodMode) -> Vec<Step> {
    let config = Settings::resolve(from_go_json(SETTINGS).unwrap(), Settings::default()).unwrap();
    let pod = executor.netlink(Namespace::Pod).snapshot(Contents::ALL).await.unwrap();
    let node = executor.netlink(Namespace::Node);
    // In underlay mode it is the first NIC.
    let (nic, config) = match mode {
        PodMode::Underlay => (name("net1"), Config { first_nic: name("net1"), ..config }),
        PodMode::Overlay => (name("net1"), config),
    };
    let veth0 = veth0_of(CONTAINER, &config).unwrap();
    let host_end = match mode {
        PodMode::Underlay => HostEnd { name: veth0.host, mac: veth0.host_mac },
        PodMode::Overlay => host_veth(node, &pod, &name("eth0")).await.unwrap().end,
    };
    let addresses = pod.usable_addresses(&nic);
    let inputs = PolicyInputs {
        container_id: CONTAINER,
        network: "n",
        nic: &nic,
        config: &config,
        pod: &pod,
        node: &read_node(node, &host_end.name, config.host_rule_table, &addresses).await.unwrap(),
        host_end: &host_end.name,
        peers: PeerMacs::both(host_end.mac),
        nodes: &NODES.map(|net| net.parse::<IpNet>().unwrap().addr()),
        expected: None,
    };
    match mode {
        PodMode::Underlay => plan_policy_underlay(&inputs).unwrap(),
        PodMode::Overlay => plan_policy_overlay(&inputs).unwrap(),
    }
}

/// Upstream leaves links, routes and rules of an ADD that fails.
#[test]
fn a_failure_at_any_step_of_dataplane_policy_is_rolled_back() {
    for mode in [PodMode::Overlay, PodMode::Underlay] {
        in_a_node(async || {
            let netns = pod().await;
            let mut executor = Executor::new(&netns, MissingDevice::Fail).unwrap();
            let before = look_at_policy(&netns, &mut executor).await;
            let steps = policy_plan(&mut executor, mode).await;
            let fails = Step::SetUp { namespace: Namespace::Pod, dev: name("nosuch") };
            for length in 0..=steps.len() {
                let broken = [&steps[..length], std::slice::from_ref(&fails)].concat();
                executor.apply(&broken).await.unwrap_err();
                assert!(executor.roll_back().await.is_empty());
                assert_eq!(look_at_policy(&netns, &mut executor).await, before, "{mode:?}, {length} steps");
            }
            executor.apply(&steps).await.unwrap();
            let rest = policy_plan(&mut executor, mode).await;
            let is_repeated = |step: &&Step| {
                matches!(
                    step,
                    Step::SetSysctl { .. }
                        | Step::SetReturnMarks(_)
                        | Step::AddRule { namespace: Namespace::Node, .. }
                )
            };
            let rest: Vec<_> = rest.iter().filter(|step| !is_repeated(step)).collect();
            assert_eq!(rest, Vec::<&Step>::new(), "{mode:?}");
            assert!(executor.roll_back().await.is_empty());
            assert_eq!(look_at_policy(&netns, &mut executor).await, before, "{mode:?}");
        });
    }
}
