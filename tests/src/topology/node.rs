//! A node: its NICs and routes, its Node object, kube-proxy, and what the default network sets up on it.

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, PostParams};
use serde_json::json;
use spiderpool_testbox::{calico, cilium, ovs};

use super::addresses;
use super::wiring::plug;
use crate::control_plane::ControlPlane;
use crate::default_network::Felix;
use crate::dual::Dual;
use crate::kernel_version;
use crate::machine::Machine;
use crate::matrix::{DefaultNetwork, ProxyMode};
use crate::netkit;
use crate::probe::Server;
use crate::process::Process;
use crate::state_dir::StateDir;
use crate::tools;

/// What connects a pod's eth0 with its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// A veth pair.
    Veth,
    /// A netkit pair.
    Netkit(netkit::Mode),
}

/// What a node is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeKind {
    /// Its pods' eth0.
    pub network: DefaultNetwork,
    /// What connects them with the node.
    pub pair: Pair,
    /// Whether what pods send out of the overlay is masqueraded, if the network does that at all.
    pub masquerades: bool,
    /// How many underlays it has NICs in: eth1, eth2...
    pub underlays: u8,
}

impl Default for NodeKind {
    fn default() -> Self {
        Self { network: DefaultNetwork::Calico, pair: Pair::Veth, masquerades: true, underlays: 1 }
    }
}

/// A node, used as the machine that it is.
#[derive(Debug)]
pub struct Node {
    /// 1 for `node1`.
    pub index: u8,
    /// The node IP, on eth0.
    pub address: Dual,
    /// The address on eth1, the underlay's parent NIC.
    pub underlay: Dual,
    /// What it is like.
    pub kind: NodeKind,
    /// Watches the host ends of eth0.
    felix: Option<Felix>,
    kube_proxy: Process,
    machine: Machine,
    state: Arc<StateDir>,
}

impl Node {
    pub(super) fn start(
        index: u8,
        kinds: &[NodeKind],
        fabric: &Machine,
        plane: &ControlPlane,
        state: &Arc<StateDir>,
    ) -> Result<Self> {
        let kind = kinds[usize::from(index) - 1];
        let machine = Machine::start(&format!("node{index}"), state)?;
        plug(fabric, &machine, "eth0", "management")?;
        for number in 1..=kind.underlays {
            plug(fabric, &machine, &format!("eth{number}"), &addresses::underlay_name(number))?;
        }
        set_up_routes(&machine, index, kind, kinds.len())?;
        set_up_network(&machine, index, kind)?;
        register(plane, &machine.name, index)?;
        let felix = (kind.network == DefaultNetwork::Calico).then(|| Felix::start(&machine)).transpose()?;
        Ok(Self {
            index,
            address: addresses::node(index),
            underlay: addresses::node_underlay(index),
            kind,
            felix,
            kube_proxy: start_kube_proxy(&machine, plane, state, ProxyMode::Nftables)?,
            machine,
            state: Arc::clone(state),
        })
    }

    /// Its own address in each of its underlays, in their order.
    pub fn underlays(&self) -> impl Iterator<Item = Dual> {
        let host = 10 + self.index;
        (1..=self.kind.underlays).map(move |number| addresses::further_underlay(number, 1, host))
    }

    /// Restarts kube-proxy in another mode, without what the one before has written.
    pub fn set_proxy_mode(&mut self, plane: &ControlPlane, mode: ProxyMode) -> Result<()> {
        self.kube_proxy.kill()?;
        self.output(&tools::kubernetes("kube-proxy")?.display().to_string(), &["--cleanup"])?;
        self.kube_proxy = start_kube_proxy(&self.machine, plane, &self.state, mode)?;
        Ok(())
    }

    /// Before routes are on the host end of an endpoint: they may be there.
    pub fn expect_endpoint(&self, host_end: &str, address: Dual) {
        if let Some(felix) = &self.felix {
            felix.expect(host_end, address);
        }
    }

    /// The endpoint is gone.
    pub fn forget_endpoint(&self, host_end: &str) {
        if let Some(felix) = &self.felix {
            felix.forget(host_end);
        }
    }

    /// The routes that were deleted from host ends, as ip(8) prints them.
    pub fn deleted_routes(&self) -> Vec<String> {
        self.felix.as_ref().map_or_else(Vec::new, Felix::deleted)
    }

    /// The links that are there without any pod.
    pub fn own_links(&self) -> Vec<String> {
        let network: &[&str] = match self.kind.network {
            DefaultNetwork::Calico => &[],
            DefaultNetwork::Cilium => &["cilium_host", "cilium_net"],
            DefaultNetwork::Ovs => &[ovs::SWITCH, ovs::ROUTER, ovs::ROUTER_PORT],
        };
        let uplinks = (0..=self.kind.underlays).map(|number| format!("eth{number}"));
        ["lo"].iter().chain(network).map(|name| (*name).to_owned()).chain(uplinks).collect()
    }

    /// The node's state folder, the same path inside and outside.
    pub fn folder(&self) -> Result<std::path::PathBuf> {
        let folder = self.state.path().join(&self.machine.name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Starts one of the node's daemons; its log has the node's name before its own.
    pub fn start_daemon(&self, name: &str, command: &std::process::Command) -> Result<Process> {
        Process::start(name, command, &self.state.log(&format!("{}-{name}", self.machine.name)))
    }

    /// A server on each of the node's addresses: as node daemons listen that answer by the address they were asked at.
    pub fn start_server(&self) -> Result<Server> {
        let own = [self.address].into_iter().chain(self.underlays());
        let addresses: Vec<_> = own.flat_map(|address| [address.v4.into(), address.v6.into()]).collect();
        Server::start_at(self, &addresses)
    }

    /// Fails if kube-proxy has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.kube_proxy.check_running()
    }
}

impl Deref for Node {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

/// Addresses, the default route, and the overlay: static routes to the other nodes' pods.
fn set_up_routes(machine: &Machine, index: u8, kind: NodeKind, nodes: usize) -> Result<()> {
    let (own, gateway) = (addresses::node(index), addresses::MANAGEMENT_GATEWAY);
    let mut script = format!(
        "addr add {}/24 dev eth0
        addr add {}/64 dev eth0 nodad
        route add default via {}
        route add ::/0 via {}\n",
        own.v4, own.v6, gateway.v4, gateway.v6
    );
    for number in 1..=kind.underlays {
        let own = addresses::further_underlay(number, 1, 10 + index);
        writeln!(
            script,
            "addr add {}/16 dev eth{number}\naddr add {}/64 dev eth{number} nodad",
            own.v4, own.v6
        )?;
    }
    for other in (1..=nodes).map(|other| other as u8).filter(|other| *other != index) {
        let (via, [v4, v6]) = (addresses::node(other), addresses::pod_cidrs(other));
        writeln!(script, "route add {v4} via {}\nroute add {v6} via {}", via.v4, via.v6)?;
    }
    machine.ip(&script)
}

/// What the default network's daemon does on a node.
fn set_up_network(machine: &Machine, index: u8, kind: NodeKind) -> Result<()> {
    let router = addresses::node_router(index);
    let router = [router.v4.into(), router.v6.into()];
    match kind.network {
        DefaultNetwork::Calico => {
            machine.nft(&calico::rules(addresses::OVERLAY))?;
            if !kind.masquerades {
                machine.nft(&calico::without_masquerading())?;
            }
        }
        DefaultNetwork::Cilium => {
            machine.ip(&cilium::router_script(router))?;
            machine.nft(&cilium::rules(addresses::OVERLAY))?;
        }
        DefaultNetwork::Ovs => {
            if Path::new("/proc/sys/net/bridge").exists() {
                machine.sysctl(ovs::SYSCTLS)?;
            }
            machine.ip(&ovs::router_script(router))?;
            let underlays: Vec<_> = (1..=kind.underlays).flat_map(addresses::underlay_subnets).collect();
            machine.nft(&ovs::rules(addresses::OVERLAY, &underlays))?;
        }
    }
    Ok(())
}

/// Creates the Node object as a kubelet would.
fn register(plane: &ControlPlane, name: &str, index: u8) -> Result<()> {
    let address = addresses::node(index);
    let node: core::Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDRs": addresses::pod_cidrs(index), "podCIDR": addresses::pod_cidrs(index)[0]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": address.v4}, {"type": "InternalIP", "address": address.v6},
                {"type": "Hostname", "address": name},
            ],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Bench"}],
        },
    }))?;
    plane.with_client(async |client| {
        Api::all(client).create(&PostParams::default(), &node).await.context("create the Node object")
    })?;
    Ok(())
}

fn start_kube_proxy(
    machine: &Machine,
    plane: &ControlPlane,
    state: &StateDir,
    mode: ProxyMode,
) -> Result<Process> {
    // It refuses nftables before.
    let mode = if kernel_version::read()? >= (5, 13) { mode } else { ProxyMode::Iptables };
    let kubeconfig = plane.identity("system:kube-proxy", None)?;
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "mode": mode.name(),
        // At the address in the underlay too: many nodes have no other.
        "nodePortAddresses": ["0.0.0.0/0", "::/0"],
        "hostnameOverride": machine.name,
        "clusterCIDR": addresses::OVERLAY.join(","),
        // No OOM score and no conntrack limits: both are the whole machine's.
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    });
    let path = state.path().join(format!("{}-kube-proxy.json", machine.name));
    fs::write(&path, serde_json::to_string(&config)?)?;
    let mut command = machine.command(Path::new(&tools::kubernetes("kube-proxy")?));
    command.arg("--config").arg(&path);
    Process::start("kube-proxy", &command, &state.log(&format!("{}-kube-proxy", machine.name)))
}
