//! The lab as a [`Fixture`]: a Service with an endpoint on each kind of network, and pods with eth0 and net1 whose flows
//! are run.

use std::time::Duration;

use anyhow::{Result, ensure};
use spiderpool_core::coordinator::Dataplane;

use super::{Lab, spec, wait_for_hints};
use crate::dual::Dual;
use crate::fixture::{Fixture, Gateway, RouteHints};
use crate::matrix::{DefaultRoute, Host, Hosts, Peer, Setting};
use crate::namespaces::Namespaces;
use crate::pod::{Pod, PodSpec};
use crate::poll;
use crate::probe::Server;
use crate::service;
use crate::tools;
use crate::topology::{Node, NodeKind, Topology, addresses};

const END_LIMIT: Duration = Duration::from_mins(1);

/// Everything that runs. Fields drop in order: servers first, so that their threads leave the namespaces.
#[derive(Debug)]
pub struct LabFixture {
    servers: Vec<Server>,
    /// The pods under test.
    pods: Vec<Pod>,
    neighbor: Pod,
    overlay_pod: Pod,
    underlay_pod: Pod,
    underlay_host: Host,
    /// The Services of the overlay pod and of the underlay pod's net1.
    cluster_ips: [Dual; 2],
    lab: Lab,
}

impl LabFixture {
    /// Sets everything up, from nothing. `progress` is called with each step.
    pub fn start(progress: impl Fn(&str)) -> Result<Self> {
        Self::start_on([NodeKind::default(); 2], Dataplane::Ebpf, progress)
    }

    /// The same on nodes of these kinds, with this dataplane. The pods under test are on the first.
    pub fn start_on(kinds: [NodeKind; 2], dataplane: Dataplane, progress: impl Fn(&str)) -> Result<Self> {
        let lab = Lab::start_on(&kinds, dataplane, &progress)?;
        let plane = &lab.topology.plane;
        let [node1, node2] = lab.topology.nodes.as_slice() else { unreachable!("two nodes were asked for") };
        let plain = |name: &str| PodSpec { name: name.into(), ..PodSpec::default() };
        let neighbor = Pod::add(plane, node1, &plain("neighbor"))?;
        let overlay_pod = Pod::add(plane, node2, &plain("overlay"))?;
        let underlay_pod = Pod::add(plane, node2, &spec("underlay", DefaultRoute::Eth0))?;
        let underlay_host = host(&underlay_pod)?;
        let cluster_ips = service::create_pair(plane, node1, [overlay_pod.eth0, underlay_host.underlay])?;
        let mut servers = vec![node1.start_server()?];
        let places =
            [&neighbor.namespaces, &overlay_pod.namespaces, &underlay_pod.namespaces, &lab.topology.outside];
        for namespaces in places {
            servers.push(Server::start(namespaces)?);
        }
        progress(
            "a Service with an overlay endpoint, one with an underlay endpoint, and the pods behind them",
        );
        let pods = Vec::new();
        Ok(Self { servers, pods, neighbor, overlay_pod, underlay_pod, underlay_host, cluster_ips, lab })
    }

    /// Nodes, control plane and agents.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    fn topology(&self) -> &Topology {
        &self.lab.topology
    }
}

/// A pod with eth0 and net1, as a participant of flows.
fn host(pod: &Pod) -> Result<Host> {
    Ok(Host { namespaces: pod.namespaces.clone(), main: pod.eth0, underlay: pod.net1()? })
}

impl Fixture for LabFixture {
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.topology().plane.kubectl(arguments)
    }

    fn node(&self) -> &Namespaces {
        &self.topology().nodes[0]
    }

    fn set_route_hints(&mut self, hints: RouteHints) -> Result<()> {
        self.lab.set_coordinator(hints)?;
        wait_for_hints(&self.topology().nodes[0], &self.neighbor.name, hints)
    }

    fn add_pod(&mut self, name: &str, default_route: DefaultRoute) -> Result<Host> {
        let topology = self.topology();
        let pod = Pod::add(&topology.plane, &topology.nodes[0], &spec(name, default_route))?;
        self.servers.push(Server::start(&pod.namespaces)?);
        let host = host(&pod)?;
        self.pods.push(pod);
        Ok(host)
    }

    fn hosts(&self, pod: &Host, default_route: DefaultRoute) -> Hosts {
        let node =
            |node: &Node| Host { namespaces: (**node).clone(), main: node.address, underlay: node.underlay };
        let topology = self.topology();
        Hosts {
            pod: pod.clone(),
            setting: Setting::usual(self.lab.dataplane, default_route),
            node_router: addresses::node_router(1),
            node: node(&topology.nodes[0]),
            other_node: node(&topology.nodes[1]),
            node_masquerades: true,
            neighbor: Peer::new(&self.neighbor.namespaces, self.neighbor.eth0),
            overlay_pod: (
                Peer::new(&self.overlay_pod.namespaces, self.overlay_pod.eth0),
                self.cluster_ips[0],
            ),
            underlay_pod: (self.underlay_host.clone(), self.cluster_ips[1]),
            outside: Peer::new(&topology.outside, addresses::OUTSIDE),
            surroundings: None,
        }
    }

    fn set_underlay_gateway(&self, state: Gateway) -> Result<()> {
        self.topology().set_underlay_gateway(state)
    }

    /// The lab has no controller: what that would write is written here.
    fn add_service_cidr(&self, cidr: &str) -> Result<()> {
        let [v4, v6] = addresses::SERVICES;
        self.lab.set_service_cidrs(&[v4, v6, cidr])
    }

    fn remove_service_cidr(&self, _cidr: &str) -> Result<()> {
        self.lab.set_service_cidrs(&addresses::SERVICES)
    }

    fn ways_in(&self) -> Result<Vec<(String, String)>> {
        let topology = self.topology();
        let machines = topology.nodes.iter().map(|node| &***node);
        let machines = machines.chain([&*topology.gateway, &*topology.outside]);
        let places = machines.chain(self.pods.iter().map(|pod| &pod.namespaces));
        let mut ways: Vec<_> =
            places.map(|namespaces| (namespaces.name.clone(), namespaces.shell())).collect();
        let (kubectl, admin) = (tools::kubernetes("kubectl")?, topology.plane.admin());
        let kubectl =
            format!("{} {} --kubeconfig {}", topology.fabric.shell(), kubectl.display(), admin.display());
        ways.push(("kubectl".into(), kubectl));
        ways.push(("logs are in".into(), topology.state.path().join("logs").display().to_string()));
        Ok(ways)
    }

    /// Deletes the pods and checks that nodes and API server hold nothing of them any more.
    fn finish(self: Box<Self>) -> Result<()> {
        drop(self.servers);
        let Topology { plane, nodes, .. } = &self.lab.topology;
        for pod in self.pods.into_iter().chain([self.neighbor]) {
            pod.del(plane, &nodes[0])?;
        }
        for pod in [self.overlay_pod, self.underlay_pod] {
            pod.del(plane, &nodes[1])?;
        }
        for node in nodes {
            wait_for_no_pods(node)?;
        }
        let held = plane.kubectl(&["get", "spideripaddresses", "-o", "name"])?;
        ensure!(held.is_empty(), "addresses are still held: {held}");
        for agent in self.lab.agents {
            agent.stop()?;
        }
        Ok(())
    }
}

/// Waits until no pod has left anything on the node. The kernel removes a namespace's links in its own time, also those
/// of a pod that is deleted already.
pub fn wait_for_no_pods(node: &Node) -> Result<()> {
    poll::until("the end of the pods", END_LIMIT, || check_nothing_left(node))
}

/// Pods are gone: no host end of ours or of the other plugin, no route of ours, no namespace.
fn check_nothing_left(node: &Node) -> Result<()> {
    let links = node.output("ip", &["-br", "link"])?;
    let expected = node.own_links();
    let name = |line: &str| line.split([' ', '@']).next().unwrap_or_default().to_owned();
    let left: Vec<String> = links.lines().map(name).filter(|name| !expected.contains(name)).collect();
    ensure!(left.is_empty(), "{}: links are left: {left:?}", node.name);
    for family in ["-4", "-6"] {
        let routes = node.output("ip", &[family, "route", "show", "table", "all", "proto", "0x53"])?;
        ensure!(routes.is_empty(), "{}: routes are left: {routes}", node.name);
    }
    for family in ["-4", "-6"] {
        let rules = node.output("ip", &[family, "rule"])?;
        ensure!(!rules.contains("1000:"), "{}: rules are left: {rules}", node.name);
    }
    let namespaces = node.output("ls", &["/run/netns"])?;
    ensure!(namespaces.is_empty(), "{}: namespaces are left: {namespaces}", node.name);
    let deleted = node.deleted_routes();
    ensure!(deleted.is_empty(), "{}: routes were put on cali*: {deleted:?}", node.name);
    Ok(())
}
