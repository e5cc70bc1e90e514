//! A node: its NICs and routes, its Node object, kube-proxy, and what a Calico-like network plugin sets up on it.

use std::fmt::Write as _;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, PostParams};
use serde_json::json;
use spiderpool_testbox::calico;

use super::addresses;
use super::wiring::plug;
use crate::calico_like::Felix;
use crate::control_plane::ControlPlane;
use crate::dual::Dual;
use crate::machine::Machine;
use crate::probe::Server;
use crate::process::Process;
use crate::state_dir::StateDir;
use crate::tools;

/// A node, used as the machine that it is.
#[derive(Debug)]
pub struct Node {
    /// 1 for `node1`.
    pub index: u8,
    /// The node IP, on eth0.
    pub address: Dual,
    /// The address on eth1, the underlay's parent NIC.
    pub underlay: Dual,
    /// Watches the host ends of eth0.
    pub felix: Felix,
    kube_proxy: Process,
    machine: Machine,
    state: Arc<StateDir>,
}

impl Node {
    pub(super) fn start(
        index: u8,
        nodes: u8,
        fabric: &Machine,
        plane: &ControlPlane,
        state: &Arc<StateDir>,
    ) -> Result<Self> {
        let machine = Machine::start(&format!("node{index}"), state)?;
        plug(fabric, &machine, "eth0", "management")?;
        plug(fabric, &machine, "eth1", "underlay")?;
        set_up_routes(&machine, index, nodes)?;
        machine.nft(&calico::rules(addresses::OVERLAY))?;
        register(plane, &machine.name, index)?;
        Ok(Self {
            index,
            address: addresses::node(index),
            underlay: addresses::node_underlay(index),
            felix: Felix::start(&machine)?,
            kube_proxy: start_kube_proxy(&machine, plane, state)?,
            machine,
            state: Arc::clone(state),
        })
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
        let addresses = [self.address, self.underlay].map(|address| [address.v4.into(), address.v6.into()]);
        Server::start_at(self, addresses.as_flattened())
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
fn set_up_routes(machine: &Machine, index: u8, nodes: u8) -> Result<()> {
    let (own, underlay, gateway) =
        (addresses::node(index), addresses::node_underlay(index), addresses::MANAGEMENT_GATEWAY);
    let mut script = format!(
        "addr add {}/24 dev eth0
        addr add {}/64 dev eth0 nodad
        addr add {}/16 dev eth1
        addr add {}/64 dev eth1 nodad
        route add default via {}
        route add ::/0 via {}\n",
        own.v4, own.v6, underlay.v4, underlay.v6, gateway.v4, gateway.v6
    );
    for other in (1..=nodes).filter(|other| *other != index) {
        let (via, [v4, v6]) = (addresses::node(other), addresses::pod_cidrs(other));
        writeln!(script, "route add {v4} via {}\nroute add {v6} via {}", via.v4, via.v6)?;
    }
    machine.ip(&script)
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

/// kube-proxy refuses nftables before Linux 5.13.
fn proxy_mode() -> Result<&'static str> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("no version: Linux {release}")
    };
    Ok(if (major, minor) < (5, 13) { "iptables" } else { "nftables" })
}

fn start_kube_proxy(machine: &Machine, plane: &ControlPlane, state: &StateDir) -> Result<Process> {
    let kubeconfig = plane.identity("system:kube-proxy", None)?;
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "mode": proxy_mode()?,
        "hostnameOverride": machine.name,
        "clusterCIDR": addresses::OVERLAY.join(","),
        // No OOM score and no conntrack limits: both are the whole machine's.
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    });
    let path = state.path().join(format!("{}-kube-proxy.json", machine.name));
    fs::write(&path, serde_json::to_string(&config)?)?;
    let mut command = machine.command(Path::new(&tools::kubernetes("kube-proxy")?));
    command.arg("--config").arg(&path);
    Process::start("kube-proxy", &command, &state.log(&format!("{}-kube-proxy", machine.name)))
}
