//! Datagrams in the name of servers, which somebody in the underlay sends to a pod that asks them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use serde_json::{Value, json};
use spiderpool_core::ip::Family;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{PORT, Server};
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{counters, poll, service};

use crate::{AGENT_LIMIT, ask, ask_among, lab, open};

/// Somebody in the underlay who sends in the name of others, to net1's MAC or through the node's.
struct Forger<'a> {
    machine: &'a Namespaces,
    net1: IpAddr,
}

impl Forger<'_> {
    fn send(&self, from: SocketAddr, port: u16, mac: &str) {
        let (net1, length) = (self.net1, if from.is_ipv4() { 32 } else { 128 });
        let nodad = if from.is_ipv4() { "" } else { "nodad" };
        self.machine
            .ip(&format!(
                "address replace {}/{length} dev lo {nodad}
                neigh replace {net1} lladdr {mac} dev ul nud permanent",
                from.ip()
            ))
            .unwrap();
        self.machine
            .run(move || {
                let socket = UdpSocket::bind(from)?;
                for _ in 0..3 {
                    socket.send_to(b"forged", (net1, port))?;
                }
                Ok(())
            })
            .unwrap();
        self.machine
            .ip(&format!("address del {}/{length} dev lo\nneigh del {net1} dev ul", from.ip()))
            .unwrap();
    }
}

/// Datagrams in the name of a server, before and while the pod asks it by a socket that is not connected: the queries go
/// where they always went, as the address shows by which the server sees them.
#[test]
fn forged_datagrams_divert_no_query() {
    let Some(lab) = lab("forged_datagrams_divert_no_query") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let machine: &Namespaces = &lab.topology.gateway;
    let overlay = Pod::add_sandbox(node, "asked", "0000-asked").unwrap();
    let cluster_ip = service::create(plane, "asked", &[overlay.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[overlay.eth0]).unwrap();
    start_dns_cache(&lab);
    let of_node = [node.address, DNS_CACHE].map(|own| Family::ALL.map(|family| own.get(family)));
    let running = [
        Server::start(&lab.topology.outside).unwrap(),
        Server::start(&overlay.namespaces).unwrap(),
        Server::start_at(node, of_node.as_flattened()).unwrap(),
    ];
    let servers = [addresses::OUTSIDE, overlay.eth0, node.address, DNS_CACHE, cluster_ip];
    // A node that believes any name, as upstream's default is.
    node.sysctl(&["ipv4/conf/all/rp_filter=0", "ipv4/conf/eth1/rp_filter=0"]).unwrap();
    for default_route in DefaultRoute::ALL {
        let name = format!("asker-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        wait_for_dns_cache(node);
        let macs = [pod.namespaces.mac_of("net1").unwrap(), node.mac_of("eth1").unwrap()];
        // A port of the kernel's choice; of a range of the pod's own; a fixed one on both sides, where the pod has spoken first.
        for (range, port) in [(None, 0), (Some((20_000u16, 20_100)), 0), (None, PORT)] {
            if let Some((first, last)) = range {
                pod.namespaces.sysctl(&[&format!("ipv4/ip_local_port_range={first} {last}")]).unwrap();
                wait_for_ports(node, &pod, first);
            }
            for family in Family::ALL {
                for address in &servers {
                    let to = SocketAddr::new(address.get(family), PORT);
                    let what = format!("{name}, {to}, ports {range:?}, port {port}");
                    let before = ask(&open(&pod.namespaces, family, port), to).expect(&what);
                    let socket = open(&pod.namespaces, family, port);
                    let forger = Forger { machine, net1: pod.net1().unwrap().get(family) };
                    let own = socket.local_addr().unwrap().port();
                    let mut forged = 0;
                    for mac in &macs {
                        forger.send(to, own, mac);
                        for _ in 0..2 {
                            let seen = ask_among(&socket, to, &mut forged).expect(&what);
                            assert_eq!(seen, before, "{what}, port {own}\n{}", recorded(node, &pod, to));
                            forger.send(to, own, mac);
                        }
                    }
                    assert!(forged > 0, "{what}: none has come to the socket");
                }
            }
        }
        pod.del(plane, node).unwrap();
    }
    drop(running);
    stop_dns_cache(&lab);
    plane.kubectl(&["delete", "service", "asked"]).unwrap();
    overlay.del_sandbox(node).unwrap();
}

/// What NodeLocal DNSCache listens at on each node. Pods reach it by eth0 because it is a hijackCIDR: a link-local address is none that
/// the dataplane knows the node by.
const DNS_CACHE: Dual =
    Dual::new(Ipv4Addr::new(169, 254, 20, 10), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xa9fe, 0x140a));

fn set_hijacked(lab: &Lab, cidrs: &Value) {
    let patch = json!({"spec": {"hijackCIDR": cidrs}}).to_string();
    let target = ["patch", "spidercoordinator", "default", "--type=merge", "-p", &patch];
    lab.topology.plane.kubectl(&target).unwrap();
}

fn start_dns_cache(lab: &Lab) {
    let Dual { v4, v6 } = DNS_CACHE;
    set_hijacked(lab, &json!([v4, v6]));
    // Its own device is a dummy, which not every kernel has.
    let device = format!(
        "link add nodelocaldns type bridge\nlink set nodelocaldns up
        addr add {v4}/32 dev nodelocaldns\naddr add {v6}/128 dev nodelocaldns nodad"
    );
    lab.topology.nodes[0].ip(&device).unwrap();
}

fn stop_dns_cache(lab: &Lab) {
    lab.topology.nodes[0].ip("link del nodelocaldns").unwrap();
    set_hijacked(lab, &Value::Null);
}

/// Until the programs steer it.
fn wait_for_dns_cache(node: &Namespaces) {
    poll::until("the hijackCIDR of the DNS cache", AGENT_LIMIT, || {
        let cidrs = counters::cidrs(node)?;
        let wanted = format!("{}/32", DNS_CACHE.v4);
        anyhow::ensure!(cidrs.iter().any(|entry| entry.cidr == wanted), "{cidrs:?}");
        Ok(())
    })
    .unwrap();
}

/// What the programs have recorded, and where the kernel would send to: why a query has left as it did.
fn recorded(node: &Namespaces, pod: &Pod, to: SocketAddr) -> String {
    let arrivals = format!("{}/arrivals", counters::PINS);
    let arrivals = node.output("bpftool", &["map", "dump", "pinned", &arrivals]).unwrap();
    let route = pod.namespaces.output("ip", &["route", "get", &to.ip().to_string()]).unwrap();
    format!("{route}{arrivals}")
}

/// Until the programs know the pod's port range, on each of its NICs: a datagram may come in by any of them.
fn wait_for_ports(node: &Namespaces, pod: &Pod, first: u16) {
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    assert!(ids.len() >= 3, "eth0, net1 and sp0: {ids:?}");
    poll::until("the pod's port range", AGENT_LIMIT, || {
        let nics = format!("{}/nics", counters::PINS);
        let dump = node.output("bpftool", &["-j", "map", "dump", "pinned", &nics])?;
        let dump: Value = serde_json::from_str(&dump)?;
        for (nic, id) in &ids {
            let entry = dump.as_array().and_then(|all| all.iter().find(|e| e["formatted"]["key"] == *id));
            let known = entry.map(|entry| &entry["formatted"]["value"]["port_low"]);
            anyhow::ensure!(known.is_some_and(|low| *low == first), "{nic}: known is {known:?}");
        }
        Ok(())
    })
    .unwrap();
}
