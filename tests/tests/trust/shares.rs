//! One pod does not pay for another: who has used up a share of the maps notices it alone.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use spiderpool_core::ip::Family;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::both_ends::BothEnds;
use spiderpool_tests::churn::{ChurnServer, connect_often};
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::node_ports::open_node_port;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{PORT, Probe, Protocol, Server, send, send_to};
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{counters, long_form, poll, service};

use crate::lab;

/// By eth0, in the short form and with `--long`: more than the map of arrivals has entries here.
const CONNECTIONS: [usize; 2] = [10_000, 100_000];
/// Below `ip_local_port_range`.
const PORTS: std::ops::Range<u16> = 20_000..20_064;
/// From outside, by the node link and again by net1, each from a port of its own: twice as many in each family as both maps have
/// entries here.
const DATAGRAMS: u16 = 33_000;
const FIRST_PORT: u16 = 2000;
/// Entries of the maps, eight times a pod's share.
const SIZES: [(&str, u32); 2] = [("SPIDERPOOL_BPF_LINK_FLOWS", 8192), ("SPIDERPOOL_BPF_ARRIVALS", 8192)];
const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// Replaces the agent by one with maps of these sizes.
fn restart_agent(lab: &mut Lab, sizes: &[(&str, u32)]) {
    lab.agents.remove(0).stop().unwrap();
    let sizes: Vec<_> = sizes.iter().map(|(name, size)| ((*name).to_owned(), size.to_string())).collect();
    let agent = Agent::start_with_environment(&lab.topology.plane, &lab.topology.nodes[0], &sizes).unwrap();
    lab.agents.insert(0, agent);
}

/// The ports of a node, for TCP and UDP, that lead to net1 of the pod, where nobody listens yet.
fn publish(lab: &Lab, pod: &Pod) -> [u16; 2] {
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let net1 = pod.net1().unwrap();
    let cluster_ip = service::create(plane, &pod.name, &[net1]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[net1]).unwrap();
    let ports = open_node_port(plane, &pod.name, "Cluster").unwrap();
    let server = Server::start(&pod.namespaces).unwrap();
    for family in Family::ALL {
        for (protocol, port) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(ports) {
            let probe = Probe { protocol, to: node.address.get(family), bound: None };
            poll::until(&format!("{protocol} to port {port}"), PROXY_LIMIT, || {
                send_to(&lab.topology.outside, probe, port)
            })
            .unwrap();
        }
    }
    drop(server);
    ports
}

/// A connection from outside to the pod by this port of its node.
fn call(lab: &Lab, pod: &Pod, port: u16, family: Family) -> BothEnds {
    let own = SocketAddr::new(addresses::OUTSIDE.get(family), 0);
    let to = SocketAddr::new(lab.topology.nodes[0].address.get(family), port);
    let open = BothEnds::open((&lab.topology.outside, own), (&pod.namespaces, PORT), to).unwrap();
    open.exchange(1).unwrap();
    open
}

/// One datagram each from so many ports.
fn flood(from: &Namespaces, own: IpAddr, to: SocketAddr, count: u16) {
    from.run(|| {
        for port in FIRST_PORT..FIRST_PORT + count {
            UdpSocket::bind((own, port))?.send_to(b"who?", to)?;
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_pod_that_is_flooded_costs_another_ones_idle_connection_nothing() {
    let Some(mut lab) = lab("a_pod_that_is_flooded") else { return };
    restart_agent(&mut lab, &SIZES);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let idle = Pod::add(plane, node, &spec("idle", DefaultRoute::Eth0)).unwrap();
    let busy = Pod::add(plane, node, &spec("flooded", DefaultRoute::Eth0)).unwrap();
    let far = Pod::add(plane, node, &PodSpec { name: "far".into(), ..PodSpec::default() }).unwrap();
    let [[port, _], [_, busy_port]] = [&idle, &busy].map(|pod| publish(&lab, pod));
    let open = Family::ALL.map(|family| call(&lab, &idle, port, family));

    let servers = (Server::start(&busy.namespaces).unwrap(), ChurnServer::start(&far.namespaces).unwrap());
    let connections = CONNECTIONS[usize::from(long_form::is_asked_for())];
    for family in Family::ALL {
        let own = addresses::OUTSIDE.get(family);
        let by_link = SocketAddr::new(node.address.get(family), busy_port);
        flood(&lab.topology.outside, own, by_link, DATAGRAMS / 2);
        // There is room for others.
        call(&lab, &idle, port, family);
        let by_net1 = SocketAddr::new(busy.net1().unwrap().get(family), PORT);
        flood(&lab.topology.outside, own, by_net1, DATAGRAMS / 2);
        let server = Server::start(&idle.namespaces).unwrap();
        let probe = Probe { protocol: Protocol::Udp, to: idle.net1().unwrap().get(family), bound: None };
        send(&lab.topology.outside, probe).unwrap();
        drop(server);
        let (own, to) = (busy.eth0.get(family), far.eth0.get(family));
        connect_often(&busy.namespaces, own, PORTS, to, connections / 2).unwrap();
    }
    let [of_idle, of_busy] =
        [&idle, &busy].map(|pod| counters::read(node, &counters::nic_ids(&pod.namespaces).unwrap()).unwrap());
    for full in ["sp0 link_full", "net1 arrivals_full"] {
        assert!(of_busy.contains_key(full), "the share is not used up: {of_busy:?}");
        // A SYN that found none would have been repeated.
        assert!(!of_idle.contains_key(full), "no room for others: {of_idle:?}");
    }
    for connection in &open {
        connection.exchange(2).unwrap();
        connection.exchange_from_server(3).unwrap();
    }
    drop((open, servers));
    for pod in [idle, busy] {
        plane.kubectl(&["delete", "service", &pod.name]).unwrap();
        pod.del(plane, node).unwrap();
    }
    far.del(plane, node).unwrap();
    restart_agent(&mut lab, &[]);
}
