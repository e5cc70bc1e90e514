//! The lab of the flow matrix: a node for each default network, another one, and one whose pods are not masqueraded.

mod places;
mod pods;
mod pools;
mod run;

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use spiderpool_core::ip::Family;

use super::{Lab, wait_for_no_pods};
use crate::machine::Machine;
use crate::matrix::{DefaultNetwork, Gateway, Hosts, ProxyMode, Setting};
use crate::probe::Server;
use crate::service::{self, LoadBalancer};
use crate::topology::{Node, NodeKind, addresses};
use places::Places;
pub use pods::PodUnderTest;
pub use run::run;

/// In how many underlays nodes have a NIC.
const UNDERLAYS: u8 = 3;
/// What hijackCIDR says: the load balancer's addresses, in the underlay and routed, and a network outside.
const HIJACK: [&str; 6] =
    ["10.66.200.0/21", "fd66::c8:0/112", "10.88.0.0/16", "fd88::/112", "10.78.0.0/24", "fd78::/64"];

/// Everything that runs. Fields drop in order: servers first, so that their threads leave the namespaces.
#[derive(Debug)]
pub struct MatrixLab {
    servers: Vec<Server>,
    places: Places,
    client: Machine,
    lab: Lab,
    proxy: ProxyMode,
}

/// The nodes: one for each network, then the other one, then the one without masquerading.
fn kinds() -> Vec<NodeKind> {
    let kind = NodeKind { underlays: UNDERLAYS, ..NodeKind::default() };
    let mut kinds: Vec<_> = DefaultNetwork::ALL.map(|network| NodeKind { network, ..kind }).into();
    kinds.extend([kind, NodeKind { masquerades: false, ..kind }]);
    kinds
}

impl MatrixLab {
    /// Sets everything up, from nothing.
    pub fn start() -> Result<Self> {
        let lab = Lab::start_nodes(&kinds(), &pools::all(UNDERLAYS), &HIJACK)?;
        let client = start_client(&lab)?;
        let places = Places::set_up(&lab.topology)?;
        let mut servers = Vec::new();
        for node in &lab.topology.nodes {
            servers.push(node.start_server()?);
        }
        for namespaces in places.servers() {
            servers.push(Server::start(namespaces)?);
        }
        let outside = [addresses::OUTSIDE, addresses::HIJACKED].map(|own| [own.v4.into(), own.v6.into()]);
        servers.push(Server::start_at(&lab.topology.outside, outside.as_flattened())?);
        let started = Self { servers, places, client, lab, proxy: ProxyMode::Nftables };
        started.wait_for_proxies(&started.places.announced)?;
        Ok(started)
    }

    /// The node of the pods of a network.
    pub fn node(&self, network: DefaultNetwork) -> &Node {
        let index = DefaultNetwork::ALL.iter().position(|kind| *kind == network).unwrap_or_default();
        &self.lab.topology.nodes[index]
    }

    fn other_node(&self) -> &Node {
        &self.lab.topology.nodes[DefaultNetwork::ALL.len()]
    }

    /// Restarts kube-proxy of every node in another mode, if it is not the one.
    pub fn set_proxy_mode(&mut self, mode: ProxyMode) -> Result<()> {
        if self.proxy == mode {
            return Ok(());
        }
        self.proxy = mode;
        let topology = &mut self.lab.topology;
        for node in &mut topology.nodes {
            node.set_proxy_mode(&topology.plane, mode)?;
        }
        self.wait_for_proxies(&self.places.announced)
    }

    fn wait_for_proxies(&self, services: &[LoadBalancer]) -> Result<()> {
        self.lab
            .topology
            .nodes
            .iter()
            .try_for_each(|node| service::wait_for_names(node, self.proxy, services))
    }

    /// Makes a pod as `setting` says; `number` is a different one for each pod of the lab.
    pub fn add_pod(&self, setting: Setting, number: u16) -> Result<PodUnderTest> {
        ensure!(setting.proxy == self.proxy, "kube-proxy works by {}", self.proxy);
        let node = self.node(setting.network);
        let pod = PodUnderTest::add(&self.lab.topology.plane, node, setting, number)?;
        for node in [node, self.other_node()] {
            service::wait_for_names(node, self.proxy, &pod.services)?;
        }
        self.announce(node, &pod.services)?;
        Ok(pod)
    }

    /// What a load balancer does: the client in the underlay knows the node's MAC, the gateway a route to the node IP.
    fn announce(&self, node: &Node, services: &[LoadBalancer]) -> Result<()> {
        let mac = addresses::mac(&format!("{} eth1", node.name));
        let (mut neighbors, mut routes) = (String::new(), String::new());
        for [announced, routed] in services.iter().map(|service| service.addresses) {
            for family in Family::ALL {
                let (announced, routed) = (announced.get(family), routed.get(family));
                writeln!(neighbors, "neigh replace {announced} lladdr {mac} dev eth1 nud permanent")?;
                writeln!(routes, "route replace {routed} via {} dev mgmt", node.address.get(family))?;
            }
        }
        self.client.ip(&neighbors)?;
        self.lab.topology.gateway.ip(&routes)
    }

    /// Who takes part in the flows of a pod.
    pub fn hosts(&self, pod: &PodUnderTest) -> Result<Hosts> {
        self.places.hosts(
            &self.lab.topology,
            self.node(pod.setting.network),
            self.other_node(),
            &self.client,
            pod,
        )
    }

    /// Cuts the gateways off from the node of `network`, or connects them again.
    pub fn set_underlay_gateway(&self, network: DefaultNetwork, state: Gateway) -> Result<()> {
        self.lab.topology.set_underlay_gateway_of(self.node(network), state)
    }

    /// Deletes a pod with its Services.
    pub fn del_pod(&self, pod: PodUnderTest) -> Result<()> {
        let node = self.node(pod.setting.network);
        pod.del(&self.lab.topology.plane, node)
    }

    /// Deletes what is left and checks that nodes hold nothing of it.
    pub fn finish(self) -> Result<()> {
        drop(self.servers);
        let topology = &self.lab.topology;
        self.places.del(topology)?;
        topology.nodes.iter().try_for_each(wait_for_no_pods)?;
        let held = topology.plane.kubectl(&["get", "spideripaddresses", "-o", "name"])?;
        ensure!(held.is_empty(), "addresses are still held: {held}");
        let warnings = ["get", "events.events.k8s.io", "--field-selector", "type=Warning", "-o"];
        let notes = "jsonpath={range .items[?(@.reportingController==\"spiderpool-agent\")]}{.reason}: {.note}{\"\\n\"}{end}";
        let said = topology.plane.kubectl(&[&warnings[..], &[notes]].concat())?;
        ensure!(said.is_empty(), "nothing was wrong, and agents warn: {said}");
        self.lab.agents.into_iter().try_for_each(crate::agent::Agent::stop)
    }
}

/// A machine with a NIC in each underlay.
fn start_client(lab: &Lab) -> Result<Machine> {
    let topology = &lab.topology;
    let client = Machine::start("client", &topology.state)?;
    for number in 1..=UNDERLAYS {
        topology.connect(&client, number)?;
        let own = addresses::client(number);
        client.ip(&format!(
            "addr add {}/16 dev eth{number}\naddr add {}/64 dev eth{number} nodad",
            own.v4, own.v6
        ))?;
    }
    let (own, far) = (addresses::HIJACKED, addresses::OUTSIDE);
    // Deprecated: never chosen as a source.
    topology.outside.ip(&format!(
        "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad preferred_lft 0",
        own.v4, own.v6
    ))?;
    topology
        .gateway
        .ip(&format!("route add 10.78.0.0/24 via {}\nroute add fd78::/64 via {}", far.v4, far.v6))?;
    Ok(client)
}
