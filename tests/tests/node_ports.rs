//! NodePorts whose endpoint is a pod's underlay address: they come to the pod by its node link.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiderpool_core::ip::Family;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, lock_lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{LIMIT, Protocol, Server};
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{poll, privilege, service};

const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// Makes a NodePort of a Service that has only a ClusterIP; its ports for TCP and UDP.
fn open_node_port(lab: &Lab, name: &str, policy: &str) -> [u16; 2] {
    let plane = &lab.topology.plane;
    let patch = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": policy}}).to_string();
    plane.kubectl(&["patch", "service", name, "-p", &patch]).unwrap();
    let service = plane.kubectl(&["get", "service", name, "-o", "json"]).unwrap();
    let service: Value = serde_json::from_str(&service).unwrap();
    [0, 1].map(|index| service["spec"]["ports"][index]["nodePort"].as_u64().unwrap().try_into().unwrap())
}

/// By which address the pod has seen the client.
fn ask(from: &Namespaces, protocol: Protocol, to: SocketAddr, bound: IpAddr) -> Result<IpAddr> {
    let answer = from.run(move || {
        let mut answer = String::new();
        if protocol == Protocol::Tcp {
            let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.write_all(b"who?")?;
            stream.read_to_string(&mut answer)?;
        } else {
            let socket = UdpSocket::bind((bound, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.send(b"who?")?;
            let mut bytes = [0; 128];
            let length = socket.recv(&mut bytes)?;
            answer.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        Ok(answer)
    })?;
    Ok(answer.split(' ').next().context("no answer")?.parse()?)
}

/// A client in the node's subnet, and one behind its gateway. (kube-proxy listens at the node IP alone.)
fn clients(lab: &Lab) -> [(&Namespaces, Dual); 2] {
    [(&lab.topology.fabric, addresses::API_SERVER), (&lab.topology.outside, addresses::OUTSIDE)]
}

#[test]
fn a_node_port_reaches_an_underlay_address_and_its_answers_come_back() {
    if !privilege::root_or_skip("a_node_port_reaches") {
        return;
    }
    let lab = lock_lab(|_| Ok(())).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in DefaultRoute::ALL {
        let name = format!("ported-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        let net1 = pod.net1().unwrap();
        let cluster_ip = service::create(plane, &name, &[net1]).unwrap();
        service::wait_for_proxy(node, cluster_ip, &[net1]).unwrap();
        // An endpoint counts as the node's own by its node name, of which these have none: then `Local` has no endpoint.
        for policy in ["Cluster", "Local"] {
            if policy == "Local" {
                let on_node =
                    json!([{"op": "add", "path": "/endpoints/0/nodeName", "value": node.name}]).to_string();
                for family in Family::ALL {
                    let slice = format!("{name}-v{}", family.version());
                    plane
                        .kubectl(&["patch", "endpointslice", &slice, "--type=json", "-p", &on_node])
                        .unwrap();
                }
            }
            let [tcp, udp] = open_node_port(&lab, &name, policy);
            for (client, own) in clients(&lab) {
                for family in Family::ALL {
                    for (protocol, port) in [(Protocol::Tcp, tcp), (Protocol::Udp, udp)] {
                        let to = SocketAddr::new(node.address.get(family), port);
                        let what =
                            format!("{policy}, default route on {}, {protocol} to {to}", default_route.nic());
                        let seen = poll::until(&what, PROXY_LIMIT, || {
                            let seen = ask(client, protocol, to, own.get(family))?;
                            // Until kube-proxy has the policy, it masquerades.
                            anyhow::ensure!(
                                (seen == own.get(family)) == (policy == "Local"),
                                "seen as {seen}"
                            );
                            Ok(seen)
                        })
                        .unwrap();
                        let nodes = [node.address.get(family), node.underlay.get(family)];
                        assert!(policy == "Local" || nodes.contains(&seen), "{what}: seen as {seen}");
                    }
                }
            }
        }
        plane.kubectl(&["delete", "service", &name]).unwrap();
        drop(server);
        pod.del(plane, node).unwrap();
    }
}
