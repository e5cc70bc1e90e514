//! The scenario of the demo and of the flow tests: a Service with an endpoint on each kind of network, and pods with
//! eth0 and net1 whose flows are run.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::dual::Dual;
use crate::flow::Flow;
use crate::lab::{Lab, RouteHints, spec, wait_for_hints};
use crate::matrix::{DefaultRoute, Parties, Party};
use crate::pod::{Pod, PodSpec};
use crate::poll;
use crate::probe::Server;
use crate::service;
use crate::topology::{Gateway, Node, Topology};

const END_LIMIT: Duration = Duration::from_secs(10);

/// Everything that runs. Fields drop in order: servers first, so that their threads leave the namespaces.
#[derive(Debug)]
pub struct Scenario {
    servers: Vec<Server>,
    neighbour: Pod,
    overlay_pod: Pod,
    underlay_pod: Pod,
    /// The Service's addresses.
    pub cluster_ip: Dual,
    /// Nodes, agents and control plane.
    pub lab: Lab,
}

impl Scenario {
    /// Sets everything up, from nothing. `progress` hears of each step.
    pub fn start(progress: impl Fn(&str)) -> Result<Self> {
        let lab = Lab::start(2, &progress)?;
        let plane = &lab.topology.plane;
        let [node1, node2] = lab.topology.nodes.as_slice() else { unreachable!("two nodes were asked for") };
        let plain = |name: &str| PodSpec { name: name.into(), ..PodSpec::default() };
        let neighbour = Pod::add(plane, node1, &plain("neighbour"))?;
        let overlay_pod = Pod::add(plane, node2, &plain("overlay"))?;
        let underlay_pod = Pod::add(plane, node2, &spec("underlay", DefaultRoute::Eth0))?;
        let endpoints = [overlay_pod.eth0, underlay_pod.net1()?];
        let cluster_ip = service::create(plane, "web", &endpoints)?;
        service::wait_for_proxy(node1, cluster_ip, &endpoints)?;
        let mut servers = vec![node1.start_server()?];
        for place in [&overlay_pod.place, &underlay_pod.place, &lab.topology.outside] {
            servers.push(Server::start(place)?);
        }
        progress("a Service with an overlay and an underlay endpoint, and the pods behind it");
        Ok(Self { servers, neighbour, overlay_pod, underlay_pod, cluster_ip, lab })
    }

    /// Nodes and control plane.
    pub fn topology(&self) -> &Topology {
        &self.lab.topology
    }

    /// The node of the pods under test.
    pub fn node(&self) -> &Node {
        &self.topology().nodes[0]
    }

    /// Sets route hints for pods to come and waits until the agent of [`Self::node`] knows.
    pub fn set_route_hints(&self, hints: RouteHints) -> Result<()> {
        self.lab.set_coordinator(hints)?;
        wait_for_hints(self.node(), &self.neighbour.name, hints)
    }

    /// Makes a pod with eth0 and net1 on [`Self::node`], with a server in it.
    pub fn add_pod(&mut self, name: &str, default_route: DefaultRoute) -> Result<Pod> {
        let pod = Pod::add(&self.topology().plane, self.node(), &spec(name, default_route))?;
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
        let topology = self.topology();
        Ok(Parties {
            pod: party(pod)?,
            default_route,
            node: node(&topology.nodes[0]),
            other_node: node(&topology.nodes[1]),
            neighbour: (self.neighbour.place.clone(), self.neighbour.eth0),
            overlay_pod: (self.overlay_pod.place.clone(), self.overlay_pod.eth0),
            underlay_pod: party(&self.underlay_pod)?,
            outside: (*topology.outside).clone(),
            cluster_ip: self.cluster_ip,
        })
    }

    /// Runs `work` with the underlay's gateway dead: silent, and forgotten by the pod.
    pub fn without_gateway<T>(&self, pod: &Pod, work: impl FnOnce() -> T) -> Result<T> {
        self.topology().set_underlay_gateway(Gateway::Dead)?;
        // Permanent entries stay.
        pod.place.ip("neigh flush dev net1")?;
        let result = work();
        self.topology().set_underlay_gateway(Gateway::Alive)?;
        Ok(result)
    }

    /// Deletes the pods under test and all that [`Self::start`] made, and checks that nodes and API server hold
    /// nothing of them any more.
    pub fn finish(self, pods: Vec<Pod>) -> Result<()> {
        drop(self.servers);
        let Topology { plane, nodes, .. } = &self.lab.topology;
        for pod in pods.into_iter().chain([self.neighbour]) {
            pod.del(plane, &nodes[0])?;
        }
        for pod in [self.overlay_pod, self.underlay_pod] {
            pod.del(plane, &nodes[1])?;
        }
        for node in nodes {
            // A node link goes with its pod's namespace, which the kernel removes in its own time.
            poll::until("the end of the pods", END_LIMIT, || check_nothing_left(node))?;
        }
        let held = plane.kubectl(&["get", "spideripaddresses", "-o", "name"])?;
        ensure!(held.is_empty(), "addresses are still held: {held}");
        for agent in self.lab.agents {
            agent.stop()?;
        }
        Ok(())
    }
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
