//! A pod under test: made as its setting says, with Services of its own addresses.

use anyhow::Result;
use serde_json::json;
use spiderpool_core::ipam::annotations::key::MULTUS_NETWORKS;

use super::pools::pool_name;
use crate::cni::Network;
use crate::control_plane::ControlPlane;
use crate::dual::Dual;
use crate::lab::{DEFAULT_ROUTE_NIC, macvlan_of};
use crate::matrix::{Mode, Pools, Published, PublishedService, Setting};
use crate::pod::{Pod, PodSpec};
use crate::probe::Server;
use crate::service::{self, LoadBalancer, Policy};
use crate::topology::{Node, addresses};

/// How many Services a pod can have: of eth0 and three underlay NICs, with both policies.
const SERVICES: u16 = 8;
/// NodePorts are from here on.
const FIRST_NODE_PORT: u16 = 30100;
/// Ports of their health checks, one for two Services.
const FIRST_HEALTH_PORT: u16 = 31700;
/// Host ports are from here on.
const FIRST_HOST_PORT: u16 = 20000;

/// A running pod with a server in it.
#[derive(Debug)]
pub struct PodUnderTest {
    /// As what it was made.
    pub setting: Setting,
    /// The pod.
    pub pod: Pod,
    /// Its underlay addresses, in the NICs' order.
    pub underlays: Vec<Dual>,
    /// How its addresses are published.
    pub published: Published,
    pub(super) services: Vec<LoadBalancer>,
    server: Server,
}

impl PodUnderTest {
    pub(super) fn add(plane: &ControlPlane, node: &Node, setting: Setting, number: u16) -> Result<Self> {
        let name = format!("app-{number}");
        let mut pod = Pod::add(plane, node, &spec(&name, setting))?;
        let server = Server::start(&pod.namespaces)?;
        let host_port = FIRST_HOST_PORT + number;
        pod.map_port(node, host_port)?;
        let addresses_of = |nic: &&str| match nic.strip_prefix("net") {
            Some(number) => pod.underlay(number.parse()?),
            None => Ok(pod.eth0),
        };
        let nics = setting.underlay_nics();
        let underlays = nics.iter().map(addresses_of).collect::<Result<Vec<_>>>()?;
        let eth0 = (setting.mode == Mode::Overlay).then_some((pod.eth0, "eth0"));
        let endpoints = eth0.into_iter().chain(underlays.iter().copied().zip(nics.iter().copied()));
        let names: Vec<&str> = endpoints.clone().map(|(_, nic)| nic).collect();
        let services: Vec<_> = endpoints
            .flat_map(|(endpoint, nic)| [(endpoint, nic, Policy::Cluster), (endpoint, nic, Policy::Local)])
            .zip(number * SERVICES..)
            .map(|((endpoint, nic, policy), number)| LoadBalancer {
                name: format!("{name}-{nic}-{policy:?}-end").to_lowercase(),
                endpoint,
                node: node.name.clone(),
                policy,
                node_port: FIRST_NODE_PORT + number,
                health_port: FIRST_HEALTH_PORT + number / 2,
                addresses: addresses::load_balancer(number),
            })
            .collect();
        let created = service::create_all(plane, &services)?;
        let pairs = created.chunks_exact(2).map(|pair| [pair[0].clone(), pair[1].clone()]);
        let published: Vec<(&str, [PublishedService; 2])> = names.into_iter().zip(pairs).collect();
        let published = Published { services: published, host_port };
        Ok(Self { setting, pod, underlays, published, services, server })
    }

    /// The address of its first NIC on the underlay.
    pub(super) fn first_underlay(&self) -> Dual {
        self.underlays[0]
    }

    pub(super) fn del(self, plane: &ControlPlane, node: &Node) -> Result<()> {
        drop(self.server);
        service::delete_all(plane, &self.services)?;
        self.pod.del(plane, node)
    }
}

fn spec(name: &str, setting: Setting) -> PodSpec {
    let has_gateway = setting.pools == Pools::Gateway;
    let network = |underlay: &u8| {
        let pool = |version| pool_name(*underlay, has_gateway, version);
        let mode = if setting.mode == Mode::Underlay { "auto" } else { "overlay" };
        let own = json!({
            "mode": mode, "dataplane": setting.dataplane.to_string(),
            "ebpf": {"routeHints": setting.hints.name()},
        });
        macvlan_of(&format!("eth{underlay}"), &pool("v4"), &pool("v6"), &own)
    };
    let mut networks = setting.nics.underlays().iter().map(network);
    let first = (setting.mode == Mode::Underlay).then(|| networks.next()).flatten();
    let networks: Vec<Network> = networks.collect();
    let names: Vec<&str> = networks.iter().map(|network| network.name.as_str()).collect();
    let annotations = [(DEFAULT_ROUTE_NIC, setting.default_route.nic()), (MULTUS_NETWORKS, &names.join(","))];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    PodSpec { name: name.into(), annotations, first, networks }
}
