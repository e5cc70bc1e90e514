//! Routes that administrators have asked for: of pools, by a gateway that is the pod's own node, and as Multus moves the default
//! route. What they say counts, and the cluster is reached all the same.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, lock_lab_of, macvlan, macvlan_of, pool, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{Answer, Probe, Protocol, Server, send};
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{poll, privilege, service};

/// A router's neighbor may have to be asked for first, and a busy machine answers late.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Hold the outside and the underlay.
const WIDE: [&str; 2] = ["10.64.0.0/12", "fd60::/11"];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Ping];

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab_of(2, create_pools).unwrap())
}

/// Pools with routes to the outside, and such whose gateway is the first node.
fn create_pools(lab: &Lab) -> Result<()> {
    let (gateway, node) = (addresses::UNDERLAY_GATEWAY, lab.topology.nodes[0].underlay);
    let mut items = Vec::new();
    for (family, suffix) in [(Family::V4, "v4"), (Family::V6, "v6")] {
        let ips = |block: u8| match family {
            Family::V4 => format!("10.66.{block}.1-10.66.{block}.20"),
            Family::V6 => format!("fd66::{block:x}:1-fd66::{block:x}:14"),
        };
        let mut routed = pool(&format!("routed-{suffix}"), &[&ips(11)]);
        let outside = format!("{}/{}", addresses::OUTSIDE.get(family), family.bits());
        routed["spec"]["routes"] = json!([{"dst": outside, "gw": gateway.get(family)}]);
        let mut by_node = pool(&format!("by-node-{suffix}"), &[&ips(12)]);
        by_node["spec"]["gateway"] = json!(node.get(family));
        items.extend([routed, by_node]);
    }
    lab.topology.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    Ok(())
}

/// A pod whose net1 has addresses of these pools, with more settings of the coordinator.
fn of_pools(name: &str, pools: &str, default_route: DefaultRoute, coordinator: &Value) -> PodSpec {
    let networks = vec![macvlan_of("eth1", &format!("{pools}-v4"), &format!("{pools}-v6"), coordinator)];
    PodSpec { networks, ..spec(name, default_route) }
}

fn ask(from: &Namespaces, protocol: Protocol, to: IpAddr, bound: Option<IpAddr>) -> Result<Answer> {
    send(from, Probe { protocol, to, bound })
}

/// The address that a server sees, with a socket that is bound to none.
fn seen(from: &Namespaces, to: IpAddr) -> IpAddr {
    let what = format!("{} to {to}", from.name);
    poll::until(&what, ANSWER_LIMIT, || ask(from, Protocol::Tcp, to, None)).unwrap().seen.unwrap()
}

/// Calls of the cluster and from it, with every protocol and both families; `far` sees eth0's address.
fn check_cluster(lab: &Lab, pod: &Pod, far: &Pod, cluster_ip: Dual) {
    let node = &lab.topology.nodes[0];
    let _servers = [Server::start(&pod.namespaces).unwrap(), node.start_server().unwrap()];
    for family in Family::ALL {
        let (eth0, net1) = (pod.eth0.get(family), pod.net1().unwrap().get(family));
        for protocol in PROTOCOLS {
            let call = |from: &Namespaces, to: Dual, bound: Option<IpAddr>| {
                let to = to.get(family);
                let what =
                    format!("{}, {protocol:?} from {} to {to}, bound to {bound:?}", pod.name, from.name);
                poll::until(&what, ANSWER_LIMIT, || ask(from, protocol, to, bound)).unwrap()
            };
            for bound in [None, Some(eth0), Some(net1)] {
                let answer = call(&pod.namespaces, far.eth0, bound);
                assert!(answer.seen.is_none_or(|seen| seen == eth0), "{}: {bound:?} {answer:?}", pod.name);
                call(&pod.namespaces, node.address, bound);
                call(&pod.namespaces, node.underlay, bound);
                if protocol != Protocol::Ping {
                    call(&pod.namespaces, cluster_ip, bound);
                }
            }
            for to in [pod.eth0, pod.net1().unwrap()] {
                call(node, to, None);
            }
        }
    }
}

/// An overlay pod on the second node, with a server and a Service.
struct Others {
    far: Pod,
    cluster_ip: Dual,
    server: Server,
}

impl Others {
    fn add(lab: &Lab, name: &str) -> Self {
        let topology = &lab.topology;
        let spec = PodSpec { name: format!("{name}-far"), ..PodSpec::default() };
        let far = Pod::add(&topology.plane, &topology.nodes[1], &spec).unwrap();
        let cluster_ip = service::create(&topology.plane, name, &[far.eth0]).unwrap();
        service::wait_for_proxy(&topology.nodes[0], cluster_ip, &[far.eth0]).unwrap();
        let server = Server::start(&far.namespaces).unwrap();
        Self { far, cluster_ip, server }
    }

    fn del(self, lab: &Lab) {
        drop(self.server);
        self.far.del(&lab.topology.plane, &lab.topology.nodes[1]).unwrap();
    }
}

/// The more specific route is somebody's decision, also where it is an underlay NIC's and the CIDR leads to the cluster.
#[test]
fn pool_routes_and_connected_subnets_win_over_a_cidr() {
    let Some(lab) = lab("pool_routes_and_connected_subnets") else { return };
    let others = Others::add(&lab, "wide");
    let (plane, node, second) = (&lab.topology.plane, &lab.topology.nodes[0], &lab.topology.nodes[1]);
    let servers = [second.start_server().unwrap(), Server::start(&lab.topology.outside).unwrap()];
    for dataplane in [Dataplane::Policy, Dataplane::Ebpf] {
        let coordinator = json!({"dataplane": dataplane.to_string(), "hijackCIDR": WIDE});
        for default_route in DefaultRoute::ALL {
            let add = |pools: &str| {
                let name = format!("{pools}-{dataplane}-{}", default_route.nic());
                Pod::add(plane, node, &of_pools(&name, pools, default_route, &coordinator)).unwrap()
            };
            let [routed, plain] = ["routed", "underlay"].map(add);
            for family in Family::ALL {
                let (outside, connected) = (addresses::OUTSIDE.get(family), second.underlay.get(family));
                for (pod, is_routed) in [(&routed, true), (&plain, false)] {
                    let net1 = pod.net1().unwrap().get(family);
                    assert_eq!(seen(&pod.namespaces, outside) == net1, is_routed, "{}", pod.name);
                    assert_eq!(seen(&pod.namespaces, connected), net1, "{}", pod.name);
                }
            }
            if dataplane == Dataplane::Ebpf {
                check_cluster(&lab, &routed, &others.far, others.cluster_ip);
            }
            for pod in [routed, plain] {
                pod.del(plane, node).unwrap();
            }
        }
    }
    drop(servers);
    others.del(&lab);
}

/// A pod never reaches its own node by a macvlan NIC, whatever its pool says; who comes by the node is answered by the node, unless the
/// answer waits for that gateway.
#[test]
fn a_gateway_may_be_the_pods_own_node() {
    let Some(lab) = lab("a_gateway_may_be_the_pods_own_node") else { return };
    let others = Others::add(&lab, "by-node");
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in DefaultRoute::ALL {
        let name = format!("by-node-{}", default_route.nic());
        let pod = Pod::add(plane, node, &of_pools(&name, "by-node", default_route, &json!({}))).unwrap();
        check_cluster(&lab, &pod, &others.far, others.cluster_ip);
        let server = Server::start(&pod.namespaces).unwrap();
        for family in Family::ALL.into_iter().filter(|_| default_route == DefaultRoute::Eth0) {
            let net1 = pod.net1().unwrap().get(family);
            let route = format!("{net1}/{} via {}", family.bits(), node.address.get(family));
            lab.topology.gateway.ip(&format!("route add {route}")).unwrap();
            for protocol in PROTOCOLS {
                let outside = addresses::OUTSIDE.get(family);
                poll::until(&format!("{name}: {protocol:?} by the node"), ANSWER_LIMIT, || {
                    let answer = ask(&lab.topology.outside, protocol, net1, Some(outside))?;
                    ensure!(answer.seen.is_none_or(|seen| seen == outside), "{answer:?}");
                    Ok(())
                })
                .unwrap();
            }
            lab.topology.gateway.ip(&format!("route del {route}")).unwrap();
        }
        drop(server);
        pod.del(plane, node).unwrap();
    }
    others.del(&lab);
}

/// What Multus does for `default-route` in a network's selection: it deletes the default routes of the other NICs before this
/// network's ADD, or fails to (whether its netlink library calls a default route so), and adds its own, unless there is one.
#[test]
fn multus_may_move_the_default_route() {
    let Some(lab) = lab("multus_may_move_the_default_route") else { return };
    let others = Others::add(&lab, "moved");
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for is_deleted in [true, false] {
        let name = format!("moved-{is_deleted}");
        let mut pod = Pod::add(plane, node, &PodSpec { name: name.clone(), ..PodSpec::default() }).unwrap();
        if is_deleted {
            for family in ["-4", "-6"] {
                pod.namespaces.output("ip", &[family, "route", "del", "default"]).unwrap();
            }
        }
        pod.attach(node, "net1", &macvlan("underlay-v4", "underlay-v6")).unwrap();
        for family in Family::ALL {
            let gateway = addresses::UNDERLAY_GATEWAY.get(family);
            // An existing one is no failure there.
            drop(pod.namespaces.ip(&format!("route add default via {gateway} dev net1")));
        }
        check_cluster(&lab, &pod, &others.far, others.cluster_ip);
        let servers = [&pod.namespaces, &lab.topology.outside].map(|place| Server::start(place).unwrap());
        for family in Family::ALL {
            let (outside, net1) = (addresses::OUTSIDE.get(family), pod.net1().unwrap().get(family));
            for protocol in PROTOCOLS {
                let from_outside = || ask(&lab.topology.outside, protocol, net1, None);
                let answer = poll::until(&name, ANSWER_LIMIT, from_outside).unwrap();
                assert!(answer.seen.is_none_or(|seen| seen == outside), "{name}: {answer:?}");
            }
            assert_eq!(seen(&pod.namespaces, outside) == net1, is_deleted, "{name}");
        }
        drop(servers);
        pod.del(plane, node).unwrap();
    }
    others.del(&lab);
}
