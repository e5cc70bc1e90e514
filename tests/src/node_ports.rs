//! NodePorts of a pod's address: they come to the pod by its node.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_core::ip::Family;

use crate::dual::Dual;
use crate::kubectl::Kubectl;
use crate::lab::Lab;
use crate::matrix::Host;
use crate::namespaces::Namespaces;
use crate::poll;
use crate::probe::{LIMIT, Protocol};
use crate::service;
use crate::topology::addresses;

const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// Makes a NodePort of a Service that has only a ClusterIP; its ports for TCP and UDP.
pub fn open_node_port(cluster: &impl Kubectl, name: &str, policy: &str) -> Result<[u16; 2]> {
    let patch = json!({"spec": {"type": "NodePort", "externalTrafficPolicy": policy}}).to_string();
    cluster.kubectl(&["patch", "service", name, "-p", &patch])?;
    let service = cluster.kubectl(&["get", "service", name, "-o", "json"])?;
    let service: Value = serde_json::from_str(&service)?;
    let port = |index: usize| -> Result<u16> {
        let port = &service["spec"]["ports"][index]["nodePort"];
        Ok(port.as_u64().context("no nodePort")?.try_into()?)
    };
    Ok([port(0)?, port(1)?])
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

/// Asks a Service of the server at `endpoint`, a pod's address on the lab's first node, as [`check_at`] does, with a client in the
/// node's subnet and one behind its gateway. (kube-proxy listens at the node IP alone.)
pub fn check(lab: &Lab, name: &str, endpoint: Dual, protocols: &[Protocol]) -> Result<()> {
    let topology = &lab.topology;
    let node = &topology.nodes[0];
    let node = Host { namespaces: (**node).clone(), main: node.address, underlay: node.underlay };
    let clients = [(&*topology.fabric, addresses::API_SERVER), (&*topology.outside, addresses::OUTSIDE)];
    check_at(&topology.plane, &node, &clients, name, endpoint, protocols)
}

/// Asks a Service of the server at `endpoint`, a pod's address on `node`, the first one, by a port of that node: with both policies, from
/// all clients, in both families. With `Local` the pod sees the client.
pub fn check_at(
    cluster: &impl Kubectl,
    node: &Host,
    clients: &[(&Namespaces, Dual)],
    name: &str,
    endpoint: Dual,
    protocols: &[Protocol],
) -> Result<()> {
    let cluster_ip = service::create(cluster, name, &[endpoint])?;
    service::wait_for_proxy(&node.namespaces, cluster_ip, &[endpoint])?;
    // An endpoint counts as the node's own by its node name, of which these have none: then `Local` has no endpoint.
    for policy in ["Cluster", "Local"] {
        if policy == "Local" {
            let on_node =
                json!([{"op": "add", "path": "/endpoints/0/nodeName", "value": node.namespaces.name}]);
            for family in Family::ALL {
                let slice = format!("{name}-v{}", family.version());
                let patch = ["patch", "endpointslice", &slice, "--type=json", "-p", &on_node.to_string()];
                cluster.kubectl(&patch)?;
            }
        }
        let [tcp, udp] = open_node_port(cluster, name, policy)?;
        for (client, own) in clients {
            for family in Family::ALL {
                for protocol in protocols {
                    let port = if *protocol == Protocol::Udp { udp } else { tcp };
                    let to = SocketAddr::new(node.main.get(family), port);
                    let what = format!("{name}, {policy}, {protocol} to {to} from {}", own.get(family));
                    let seen = poll::until(&what, PROXY_LIMIT, || {
                        let seen = ask(client, *protocol, to, own.get(family))?;
                        // Until kube-proxy has the policy, it masquerades.
                        ensure!((seen == own.get(family)) == (policy == "Local"), "seen as {seen}");
                        Ok(seen)
                    })?;
                    let nodes = [node.main, node.underlay, addresses::node_router(1)];
                    let is_node = nodes.iter().any(|address| address.get(family) == seen);
                    ensure!(policy == "Local" || is_node, "{what}: seen as {seen}");
                }
            }
        }
    }
    cluster.kubectl(&["delete", "service", name])?;
    Ok(())
}
