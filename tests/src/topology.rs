//! Nodes and the networks between them.
//!
//! ```text
//!            management 172.30.0.0/24                underlay 10.66.0.0/16
//!  fabric .0.1 (API server, both bridges)
//!  node1  .0.11 eth0 ---------------+      eth1 1.11 (parent of macvlan) ---+
//!  node2  .0.12 eth0 ---------------+      eth1 1.12 -----------------------+
//!  gateway .0.254 ------------------+      0.1 -----------------------------+
//!     +---- 10.77.0.0/24 ---- outside 10.77.0.2
//! ```
//!
//! Pods of node N have 10.244.N.0/24 on eth0, which the nodes route to each other over the management network. Further
//! underlays, 10.67.0.0/16 and so on, are like the first: eth2 of nodes, a leg of the gateway.

pub mod addresses;
mod node;
mod wiring;

use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::control_plane::{ControlPlane, Options};
use crate::machine::Machine;
use crate::matrix::Gateway;
use crate::state_dir::StateDir;
pub use node::{Node, NodeKind, Pair};
use wiring::plug;
pub(crate) use wiring::set_gateway_port;

/// The machines and the control plane. Fields drop in order: what runs in a machine before the machine.
#[derive(Debug)]
pub struct Topology {
    /// etcd and kube-apiserver, in `fabric`.
    pub plane: ControlPlane,
    /// The nodes, with their agents and proxies.
    pub nodes: Vec<Node>,
    /// A client behind the gateway.
    pub outside: Machine,
    /// The router of underlay and management network.
    pub gateway: Machine,
    /// Both switches.
    pub fabric: Machine,
    /// Where state and logs are.
    pub state: Arc<StateDir>,
}

impl Topology {
    /// Builds the networks and starts the control plane and `nodes` nodes, each with kube-proxy.
    pub fn start(options: Options, nodes: u8) -> Result<Self> {
        Self::start_nodes(options, &vec![NodeKind::default(); usize::from(nodes)])
    }

    /// The same with a node of each of `kinds`.
    pub fn start_nodes(options: Options, kinds: &[NodeKind]) -> Result<Self> {
        let state = Arc::new(StateDir::create()?);
        let underlays = kinds.iter().map(|kind| kind.underlays).max().unwrap_or_default();
        let fabric = start_fabric(&state, underlays)?;
        let plane =
            ControlPlane::start_in(options, &fabric, addresses::API_SERVER.v4.into(), Arc::clone(&state))?;
        let (gateway, outside) = start_gateway(&state, &fabric, underlays)?;
        let nodes = (1..=kinds.len())
            .map(|index| {
                Node::start(index as u8, kinds, &fabric, &plane, &state)
                    .with_context(|| format!("node{index}"))
            })
            .collect::<Result<_>>()?;
        Ok(Self { plane, nodes, outside, gateway, fabric, state })
    }

    /// Connects a machine's NIC `ethN` to the N-th underlay.
    pub fn connect(&self, machine: &Machine, underlay: u8) -> Result<()> {
        plug(&self.fabric, machine, &format!("eth{underlay}"), &addresses::underlay_name(underlay))
    }

    /// Cuts the gateway off from the underlay, or connects it again.
    pub fn set_underlay_gateway(&self, state: Gateway) -> Result<()> {
        set_gateway_port(&self.fabric, state)
    }

    /// Cuts the gateway off from one node and its pods, or connects it again.
    pub fn set_underlay_gateway_of(&self, node: &Node, state: Gateway) -> Result<()> {
        // What is isolated does not reach what is isolated; the gateway's ports always are.
        let flag = if state == Gateway::Dead { "on" } else { "off" };
        let ports = (1..=node.kind.underlays)
            .map(|number| format!("link set {}-eth{number} type bridge_slave isolated {flag}\n", node.name));
        self.fabric.ip(&ports.collect::<String>())
    }
}

fn start_fabric(state: &StateDir, underlays: u8) -> Result<Machine> {
    let fabric = Machine::start("fabric", state)?;
    let api_server = addresses::API_SERVER;
    fabric.ip(&format!(
        "link add management type bridge mcast_snooping 0
        addr add {}/24 dev management
        addr add {}/64 dev management nodad
        link set management address 02:53:00:00:00:01 up",
        api_server.v4, api_server.v6
    ))?;
    for number in 1..=underlays {
        let name = addresses::underlay_name(number);
        fabric.ip(&format!(
            "link add {name} type bridge mcast_snooping 0
            link set {name} address {} up",
            addresses::mac(&name)
        ))?;
    }
    Ok(fabric)
}

fn start_gateway(state: &StateDir, fabric: &Machine, underlays: u8) -> Result<(Machine, Machine)> {
    let gateway = Machine::start("gateway", state)?;
    let outside = Machine::start("outside", state)?;
    plug(fabric, &gateway, "mgmt", "management")?;
    let (management, far) = (addresses::MANAGEMENT_GATEWAY, addresses::FAR_GATEWAY);
    gateway.ip(&format!(
        "link add far address 02:53:00:00:00:03 type veth peer name eth0 address 02:53:00:00:00:04 netns {}
        link set far up
        addr add {}/24 dev mgmt
        addr add {}/64 dev mgmt nodad
        addr add {}/24 dev far
        addr add {}/64 dev far nodad",
        outside.process(),
        management.v4,
        management.v6,
        far.v4,
        far.v6
    ))?;
    for number in 1..=underlays {
        let nic = if number == 1 { "ul".to_owned() } else { format!("ul{number}") };
        let own = addresses::further_underlay(number, 0, 1);
        plug(fabric, &gateway, &nic, &addresses::underlay_name(number))?;
        gateway.ip(&format!("addr add {}/16 dev {nic}\naddr add {}/64 dev {nic} nodad", own.v4, own.v6))?;
        fabric.ip(&format!("link set gateway-{nic} type bridge_slave isolated on"))?;
    }
    // Several routers in one: they share the way to the outside and nothing else, or a packet that took the wrong NIC
    // would still arrive.
    gateway.nft(
        "table inet separation {
            chain forward {
                type filter hook forward priority filter;
                iifname != far oifname != far drop
            }
        }",
    )?;
    let own = addresses::OUTSIDE;
    outside.ip(&format!(
        "link set eth0 up
        addr add {}/24 dev eth0
        addr add {}/64 dev eth0 nodad
        route add default via {}
        route add ::/0 via {}",
        own.v4, own.v6, far.v4, far.v6
    ))?;
    Ok((gateway, outside))
}
