//! The scenario of the demo and of the flow tests: two nodes with agents, pools, a coordinator, a Service with an
//! endpoint on each kind of network, and pods with eth0 and net1 whose flows are run.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::agent::Agent;
use crate::cni::Network;
use crate::control_plane::Options;
use crate::dual::Dual;
use crate::flow::Flow;
use crate::matrix::{DefaultRoute, Parties, Party};
use crate::pod::{Pod, PodSpec};
use crate::poll;
use crate::probe::Server;
use crate::service;
use crate::topology::{Gateway, Node, Topology, addresses};

/// How long an agent may take to see a change of SpiderCoordinator.
const WATCH_LIMIT: Duration = Duration::from_secs(5);

/// The annotation that names the NIC with the default route.
const DEFAULT_ROUTE_NIC: &str = "ipam.spidernet.io/default-route-nic";

/// SpiderCoordinator's `spec.ebpf.routeHints`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteHints {
    /// Pods whose default route is on net1 get them.
    Auto,
    /// Nobody gets them.
    Never,
}

impl RouteHints {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Auto, Self::Never];

    /// The value in the custom resource.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }
}

/// Everything that runs. Fields drop in order: servers first, so that their threads leave the namespaces.
#[derive(Debug)]
pub struct Scenario {
    servers: Vec<Server>,
    neighbour: Pod,
    overlay_pod: Pod,
    underlay_pod: Pod,
    /// The Service's addresses.
    pub cluster_ip: Dual,
    /// One per node.
    pub agents: Vec<Agent>,
    /// Nodes and control plane.
    pub topology: Topology,
}

impl Scenario {
    /// Sets everything up, from nothing. `progress` hears of each step.
    pub fn start(progress: impl Fn(&str)) -> Result<Self> {
        let topology = Topology::start(Options::default(), 2)?;
        progress("etcd, kube-apiserver, two nodes with kube-proxy, switch, gateway, outside client");
        let plane = &topology.plane;
        plane.apply(&pools().to_string())?;
        set_coordinator(&topology, RouteHints::Auto, &addresses::SERVICES)?;
        progress("SpiderIPPools, SpiderCoordinator and its status");
        let agents =
            topology.nodes.iter().map(|node| Agent::start(plane, node)).collect::<Result<Vec<_>>>()?;
        progress("spiderpool-agent on both nodes");
        let [node1, node2] = topology.nodes.as_slice() else { unreachable!("two nodes were asked for") };
        let plain = |name: &str| PodSpec { name: name.into(), ..PodSpec::default() };
        let neighbour = Pod::add(plane, node1, &plain("neighbour"))?;
        let overlay_pod = Pod::add(plane, node2, &plain("overlay"))?;
        for (node, pod) in [(node1, &neighbour), (node2, &overlay_pod)] {
            wait_for_hints(node, &pod.name, RouteHints::Auto)?;
        }
        let underlay_pod = Pod::add(plane, node2, &spec("underlay", DefaultRoute::Eth0))?;
        let endpoints = [overlay_pod.eth0, underlay_pod.net1()?];
        let cluster_ip = service::create(plane, "web", &endpoints)?;
        service::wait_for_proxy(node1, cluster_ip, &endpoints)?;
        let mut servers = vec![node1.start_server()?];
        for place in [&overlay_pod.place, &underlay_pod.place, &topology.outside] {
            servers.push(Server::start(place)?);
        }
        progress("a Service with an overlay and an underlay endpoint, and the pods behind it");
        Ok(Self { servers, neighbour, overlay_pod, underlay_pod, cluster_ip, agents, topology })
    }

    /// The node of the pods under test.
    pub fn node(&self) -> &Node {
        &self.topology.nodes[0]
    }

    /// Sets route hints for pods to come and waits until the agent of [`Self::node`] knows.
    pub fn set_route_hints(&self, hints: RouteHints) -> Result<()> {
        set_coordinator(&self.topology, hints, &addresses::SERVICES)?;
        wait_for_hints(self.node(), &self.neighbour.name, hints)
    }

    /// Sets the Service CIDRs in SpiderCoordinator's status, as the controller does.
    pub fn set_service_cidrs(&self, cidrs: &[&str]) -> Result<()> {
        set_status(&self.topology, cidrs)
    }

    /// Makes a pod with eth0 and net1 on [`Self::node`], with a server in it.
    pub fn add_pod(&mut self, name: &str, default_route: DefaultRoute) -> Result<Pod> {
        let pod = Pod::add(&self.topology.plane, self.node(), &spec(name, default_route))?;
        self.servers.push(Server::start(&pod.place)?);
        Ok(pod)
    }

    /// Who takes part in the flows of a pod.
    pub fn parties(&self, pod: &Pod, default_route: DefaultRoute) -> Result<Parties> {
        let node =
            |node: &Node| Party { place: (**node).clone(), main: node.address, underlay: node.underlay };
        let party = |pod: &Pod| -> Result<Party> {
            Ok(Party { place: pod.place.clone(), main: pod.eth0, underlay: pod.net1()? })
        };
        Ok(Parties {
            pod: party(pod)?,
            default_route,
            node: node(&self.topology.nodes[0]),
            other_node: node(&self.topology.nodes[1]),
            neighbour: (self.neighbour.place.clone(), self.neighbour.eth0),
            overlay_pod: (self.overlay_pod.place.clone(), self.overlay_pod.eth0),
            underlay_pod: party(&self.underlay_pod)?,
            outside: (*self.topology.outside).clone(),
            cluster_ip: self.cluster_ip,
        })
    }

    /// Runs `work` with the underlay's gateway dead: silent, and forgotten by the pod.
    pub fn without_gateway<T>(&self, pod: &Pod, work: impl FnOnce() -> T) -> Result<T> {
        self.topology.set_underlay_gateway(Gateway::Dead)?;
        // Permanent entries stay.
        pod.place.ip("neigh flush dev net1")?;
        let result = work();
        self.topology.set_underlay_gateway(Gateway::Alive)?;
        Ok(result)
    }

    /// Stops the servers in pods under test, deletes the pods and all that [`Self::start`] made, and checks that the
    /// nodes hold nothing of them any more.
    pub fn finish(self, pods: Vec<Pod>) -> Result<()> {
        drop(self.servers);
        let (plane, nodes) = (&self.topology.plane, &self.topology.nodes);
        for pod in pods.into_iter().chain([self.neighbour]) {
            pod.del(plane, &nodes[0])?;
        }
        for pod in [self.overlay_pod, self.underlay_pod] {
            pod.del(plane, &nodes[1])?;
        }
        for node in nodes {
            check_nothing_left(node)?;
        }
        let held = plane.kubectl(&["get", "spideripaddresses", "-o", "name"])?;
        ensure!(held.is_empty(), "addresses are still held: {held}");
        for agent in self.agents {
            agent.stop()?;
        }
        Ok(())
    }
}

/// A pod with an underlay NIC.
pub fn spec(name: &str, default_route: DefaultRoute) -> PodSpec {
    PodSpec {
        name: name.into(),
        annotations: vec![(DEFAULT_ROUTE_NIC.into(), default_route.nic().into())],
        networks: vec![macvlan()],
    }
}

/// The network as SpiderMultusConfig's controller renders it.
pub fn macvlan() -> Network {
    Network {
        name: "macvlan-eth1".into(),
        version: "0.3.1".into(),
        plugins: vec![
            json!({
                "type": "macvlan", "master": "eth1", "mode": "bridge", "mtu": 0,
                "ipam": {
                    "type": "spiderpool",
                    "default_ipv4_ippool": ["underlay-v4"], "default_ipv6_ippool": ["underlay-v6"],
                },
            }),
            json!({"type": "coordinator", "mode": "overlay"}),
        ],
    }
}

fn pools() -> serde_json::Value {
    let pool = |name: &str, subnet: &str, ips: &str, gateway: &dyn ToString| {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": name},
            "spec": {"subnet": subnet, "ips": [ips], "gateway": gateway.to_string()},
        })
    };
    let ([v4, v6], gateway) = (addresses::UNDERLAY, addresses::UNDERLAY_GATEWAY);
    json!({"apiVersion": "v1", "kind": "List", "items": [
        pool("underlay-v4", v4, "10.66.10.1-10.66.10.200", &gateway.v4),
        pool("underlay-v6", v6, "fd66::a:1-fd66::a:c8", &gateway.v6),
    ]})
}

fn set_coordinator(topology: &Topology, hints: RouteHints, services: &[&str]) -> Result<()> {
    let coordinator = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator", "metadata": {"name": "default"},
        "spec": {"mode": "auto", "podCIDRType": "calico", "ebpf": {"routeHints": hints.name()}},
    });
    topology.plane.apply(&coordinator.to_string())?;
    set_status(topology, services)
}

fn set_status(topology: &Topology, services: &[&str]) -> Result<()> {
    let status = json!({"status": {
        "phase": "Synced", "overlayPodCIDR": addresses::OVERLAY, "serviceCIDR": services,
    }});
    let patch = status.to_string();
    topology.plane.kubectl(&[
        "patch",
        "spidercoordinator",
        "default",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    Ok(())
}

fn wait_for_hints(node: &Node, pod: &str, hints: RouteHints) -> Result<()> {
    poll::until(&format!("route hints {} on {}", hints.name(), node.name), WATCH_LIMIT, || {
        let config = Agent::coordinator_config(node, pod)?;
        ensure!(config["routeHints"] == hints.name(), "the agent hands out {config}");
        Ok(())
    })
}

/// Pods are gone: no host end of ours or of the other plugin, no route of ours, no namespace.
fn check_nothing_left(node: &Node) -> Result<()> {
    let links = node.output("ip", &["-br", "link"])?;
    let expected = ["lo", "eth0", "eth1"];
    let name = |line: &str| line.split([' ', '@']).next().unwrap_or_default().to_owned();
    let left: Vec<String> =
        links.lines().map(name).filter(|name| !expected.contains(&name.as_str())).collect();
    ensure!(left.is_empty(), "{}: links are left: {left:?}", node.name);
    for family in ["-4", "-6"] {
        let routes = node.output("ip", &[family, "route", "show", "table", "all", "proto", "0x53"])?;
        ensure!(routes.is_empty(), "{}: routes are left: {routes}", node.name);
    }
    let namespaces = node.output("ls", &["/run/netns"])?;
    ensure!(namespaces.is_empty(), "{}: namespaces are left: {namespaces}", node.name);
    let deleted = node.felix.deleted();
    ensure!(deleted.is_empty(), "{}: routes were put on cali*: {deleted:?}", node.name);
    Ok(())
}

/// Runs flows in parallel, without looking at replies: for comparison, where many fail and each failure takes time.
pub fn run_in_parallel(flows: &[Flow]) -> Result<Vec<bool>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = flows
            .iter()
            .map(|flow| {
                let flow = Flow { replies: None, ..flow.clone() };
                scope.spawn(move || flow.run().result.is_ok())
            })
            .collect();
        running.into_iter().map(|flow| flow.join().ok().context("a flow panicked")).collect()
    })
}
