//! The lab: namespaces as nodes, with agents, pools and a coordinator. What every test of the whole chain starts from
//! that needs no kubelet.

mod fixture;
mod lock;
pub mod matrix;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use spiderpool_core::coordinator::Dataplane;

use crate::agent::Agent;
use crate::cni::Network;
use crate::control_plane::Options;
use crate::fixture::RouteHints;
use crate::matrix::DefaultRoute;
use crate::pod::PodSpec;
use crate::poll;
use crate::topology::{Node, NodeKind, Topology, addresses};
pub use fixture::{LabFixture, wait_for_no_pods};
pub use lock::{lock_lab, lock_lab_of, lock_lab_with};

/// How long an agent may take to see a change of SpiderCoordinator.
const WATCH_LIMIT: Duration = Duration::from_secs(30);

/// The annotation that names the NIC with the default route.
pub(crate) const DEFAULT_ROUTE_NIC: &str = "ipam.spidernet.io/default-route-nic";

/// A topology with an agent on each node.
#[derive(Debug)]
pub struct Lab {
    /// One per node.
    pub agents: Vec<Agent>,
    /// Nodes and control plane.
    pub topology: Topology,
    /// What steers the packets of pods to come.
    pub dataplane: Dataplane,
}

impl Lab {
    /// Starts everything; `progress` is called with each step.
    pub fn start(nodes: u8, progress: impl Fn(&str)) -> Result<Self> {
        Self::start_with(nodes, Dataplane::Ebpf, progress)
    }

    /// As [`Self::start`], with this dataplane.
    pub fn start_with(nodes: u8, dataplane: Dataplane, progress: impl Fn(&str)) -> Result<Self> {
        Self::start_on(&vec![NodeKind::default(); usize::from(nodes)], dataplane, progress)
    }

    /// The same with a node of each of `kinds`.
    pub fn start_on(kinds: &[NodeKind], dataplane: Dataplane, progress: impl Fn(&str)) -> Result<Self> {
        let topology = Topology::start_nodes(Options::default(), kinds)?;
        progress("etcd, kube-apiserver, nodes with kube-proxy, switches, gateway, outside client");
        topology.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pools()}).to_string())?;
        let mut lab = Self { agents: Vec::new(), topology, dataplane };
        lab.set_coordinator(RouteHints::Auto)?;
        progress("SpiderIPPools, SpiderCoordinator and its status");
        lab.start_agents()?;
        progress("spiderpool-agent on each node");
        Ok(lab)
    }

    /// Starts a node of each kind, with the given pools, and `hijack` as hijackCIDR.
    pub fn start_nodes(kinds: &[NodeKind], pools: &[Value], hijack: &[&str]) -> Result<Self> {
        let topology = Topology::start_nodes(Options::default(), kinds)?;
        topology.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pools}).to_string())?;
        let mut lab = Self { agents: Vec::new(), topology, dataplane: Dataplane::Ebpf };
        lab.set_coordinator(RouteHints::Auto)?;
        let patch = json!({"spec": {"hijackCIDR": hijack}}).to_string();
        lab.topology.plane.kubectl(&[
            "patch",
            "spidercoordinator",
            "default",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        lab.start_agents()?;
        Ok(lab)
    }

    fn start_agents(&mut self) -> Result<()> {
        for node in &self.topology.nodes {
            self.agents.push(Agent::start(&self.topology.plane, node)?);
        }
        Ok(())
    }

    /// Writes SpiderCoordinator, and its status as the controller does.
    pub fn set_coordinator(&self, hints: RouteHints) -> Result<()> {
        let coordinator = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator",
            "metadata": {"name": "default"},
            "spec": {
                "mode": "auto", "podCIDRType": "calico", "dataplane": self.dataplane.to_string(),
                "ebpf": {"routeHints": hints.name()},
            },
        });
        self.topology.plane.apply(&coordinator.to_string())?;
        self.set_service_cidrs(&addresses::SERVICES)
    }

    /// Sets the dataplane of pods to come, and waits until the agents know; `pod` is one that exists.
    pub fn set_dataplane(&mut self, dataplane: Dataplane, pod: &str) -> Result<()> {
        self.dataplane = dataplane;
        self.set_coordinator(RouteHints::Auto)?;
        for node in &self.topology.nodes {
            poll::until(&format!("dataplane {dataplane} on {}", node.name), WATCH_LIMIT, || {
                let config = Agent::coordinator_config(node, pod)?;
                ensure!(config["dataplane"] == dataplane.to_string(), "the agent hands out {config}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes the Service CIDRs into SpiderCoordinator's status.
    pub fn set_service_cidrs(&self, cidrs: &[&str]) -> Result<()> {
        let status = json!({"phase": "Synced", "overlayPodCIDR": addresses::OVERLAY, "serviceCIDR": cidrs});
        let patch = json!({"status": status}).to_string();
        let target =
            ["patch", "spidercoordinator", "default", "--subresource=status", "--type=merge", "-p", &patch];
        self.topology.plane.kubectl(&target)?;
        Ok(())
    }
}

/// Waits until the agent of `node` hands out `hints` for a pod that exists.
pub fn wait_for_hints(node: &Node, pod: &str, hints: RouteHints) -> Result<()> {
    poll::until(&format!("route hints {} on {}", hints.name(), node.name), WATCH_LIMIT, || {
        let config = Agent::coordinator_config(node, pod)?;
        ensure!(config["ebpf"]["routeHints"] == hints.name(), "the agent hands out {config}");
        Ok(())
    })
}

/// A pod with an underlay NIC.
pub fn spec(name: &str, default_route: DefaultRoute) -> PodSpec {
    PodSpec {
        name: name.into(),
        annotations: vec![(DEFAULT_ROUTE_NIC.into(), default_route.nic().into())],
        networks: vec![macvlan("underlay-v4", "underlay-v6")],
        first: None,
    }
}

/// A pod whose eth0 is on the underlay.
pub fn underlay_spec(name: &str) -> PodSpec {
    let mut network = macvlan("underlay-v4", "underlay-v6");
    network.plugins[1] = json!({"type": "coordinator", "mode": "auto"});
    PodSpec { name: name.into(), first: Some(network), ..PodSpec::default() }
}

/// A network as SpiderMultusConfig's controller renders it.
pub fn macvlan(pool_v4: &str, pool_v6: &str) -> Network {
    macvlan_of("eth1", pool_v4, pool_v6, &json!({}))
}

/// The same on any master, with more settings of the coordinator.
pub fn macvlan_of(master: &str, pool_v4: &str, pool_v6: &str, coordinator: &Value) -> Network {
    let mut own = json!({"type": "coordinator", "mode": "overlay"});
    for (key, value) in coordinator.as_object().into_iter().flatten() {
        own[key] = value.clone();
    }
    Network {
        name: format!("macvlan-{master}"),
        version: "0.3.1".into(),
        plugins: vec![
            json!({
                "type": "macvlan", "master": master, "mode": "bridge", "mtu": 0,
                "ipam": {
                    "type": "spiderpool",
                    "default_ipv4_ippool": [pool_v4], "default_ipv6_ippool": [pool_v6],
                },
            }),
            own,
        ],
    }
}

/// A SpiderIPPool of the underlay's subnet of the family of `ips`.
pub fn pool(name: &str, ips: &[&str]) -> Value {
    let ([v4, v6], gateway) = (addresses::UNDERLAY, addresses::UNDERLAY_GATEWAY);
    let (subnet, gateway) =
        if name.ends_with("v6") { (v6, gateway.v6.to_string()) } else { (v4, gateway.v4.to_string()) };
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": name},
        "spec": {"subnet": subnet, "ips": ips, "gateway": gateway},
    })
}

fn pools() -> [Value; 2] {
    [pool("underlay-v4", &["10.66.10.1-10.66.10.200"]), pool("underlay-v6", &["fd66::a:1-fd66::a:c8"])]
}
