//! Calico and Cilium as their users install them, as far as stand-ins have it: ConfigMaps, DaemonSets, pools, BIRD.

use std::time::Duration;

use anyhow::Result;

use super::programs::program;
use super::{Cluster, Node};
use crate::kubectl::Kubectl as _;
use crate::poll;
use crate::topology::addresses;

const CALICO: &str = include_str!("manifests/calico.yaml");
const CALICO_DEFINITIONS: &str = include_str!("../../fixtures/cni/calico-v3.26.yaml");
const CALICO_POOLS: &str = include_str!("manifests/calico-pools.yaml");
const CILIUM: &str = include_str!("manifests/cilium.yaml");
const LIMIT: Duration = Duration::from_secs(30);
/// AS numbers as in Calico's defaults and in our documents.
const NODES_AS: u32 = 64_512;
const ROUTER_AS: u32 = 23_000;

impl Cluster {
    /// Applies what Calico's manifest has, and waits until each node has the configuration.
    pub fn install_calico(&self) -> Result<()> {
        self.apply(CALICO)?;
        self.apply(CALICO_DEFINITIONS)?;
        poll::until("Calico's IPPools", LIMIT, || self.apply(CALICO_POOLS))?;
        self.wait_for_rollout("daemonset/calico-node")
    }

    /// Applies what Cilium's chart has. The nodes have the configuration already.
    pub fn install_cilium(&self) -> Result<()> {
        self.apply(CILIUM)?;
        self.wait_for_rollout("daemonset/cilium")
    }

    fn wait_for_rollout(&self, name: &str) -> Result<()> {
        let rollout = ["rollout", "status", "--namespace", "kube-system", name, "--timeout=60s"];
        self.kubectl(&rollout).map(drop)
    }

    /// Starts what runs in the pods of Calico where its backend is `bird`: BIRD, with the gateway as peer. `pools` are
    /// the CIDRs of Calico's IPPools: it announces no others.
    pub fn start_bird(&self, pools: &[&str]) -> Result<()> {
        self.nodes.iter().try_for_each(|node| start(node, pools))
    }
}

fn start(node: &Node, pools: &[&str]) -> Result<()> {
    let machine = node.machine();
    let file = machine.folder().join("bird.conf");
    std::fs::write(&file, configuration(node, pools))?;
    let command = [&program("bird")?, "-f", "-s", "/run/bird.ctl", "-c", &file.display().to_string()];
    machine.start("bird", command.map(str::to_owned).to_vec())
}

/// As Calico writes it: it learns the routes to pods that Felix makes, and announces them and the node's own block.
fn configuration(node: &Node, pools: &[&str]) -> String {
    let (own, router) = (node.address().v4, addresses::MANAGEMENT_GATEWAY.v4);
    let [block, _] = addresses::pod_cidrs(node.index);
    let announced = pools.iter().map(|pool| format!("{pool}{{32,32}}")).collect::<Vec<_>>().join(", ");
    format!(
        "router id {own};
protocol device {{}}
protocol kernel {{ learn; scan time 1; ipv4 {{ import all; export none; }}; }}
protocol static {{ ipv4; route {block} blackhole; }}
protocol bgp uplink {{
    local {own} as {NODES_AS};
    neighbor {router} as {ROUTER_AS};
    connect retry time 2;
    error wait time 1, 2;
    ipv4 {{ import none; export where net = {block} || net ~ [ {announced} ]; next hop self; }};
}}
"
    )
}
