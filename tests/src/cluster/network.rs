//! The networks between the machines: switches in the fabric, a router, a host behind it and one before it.
//!
//! As in `topology`, with further underlays: 10.67.0.0/16 with fd67::/64 is the second, and so on.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::folder::Folder;
use super::hosts::{CLIENT, FABRIC, GATEWAY, OUTSIDE};
use super::parallel::in_parallel;
use super::{Machine, Options};
use crate::dual::Dual;
use crate::fixture::Gateway;
use crate::poll;
use crate::topology::{addresses, set_gateway_port};

const PLUG_LIMIT: Duration = Duration::from_mins(1);

/// The machines that are no nodes.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) fabric: Machine,
    pub(super) gateway: Machine,
    pub(super) outside: Machine,
    pub(super) client: Machine,
}

impl Network {
    pub(super) fn start(folder: &Folder, options: &Options) -> Result<Self> {
        let machines = in_parallel(&[FABRIC, GATEWAY, OUTSIDE, CLIENT], |name| {
            let machine = Machine::create(folder.spec(name, &[])?)?;
            machine.boot()?;
            Ok(machine)
        })?;
        let [fabric, gateway, outside, client] =
            machines.try_into().ok().context("four machines were started")?;
        let network = Self { fabric, gateway, outside, client };
        network.set_up_fabric(options.underlays)?;
        network.set_up_gateway(options.underlays)?;
        network.set_up_hosts()?;
        Ok(network)
    }

    pub(super) fn find(folder: &Folder) -> Result<Self> {
        let find = |name| {
            let machine = Machine::find(&folder.machine(name))?;
            ensure!(
                machine.is_on(),
                "cluster {0} does not run any more: `cargo xtask cluster down --name {0}`",
                folder.name()
            );
            Ok(machine)
        };
        Ok(Self {
            fabric: find(FABRIC)?,
            gateway: find(GATEWAY)?,
            outside: find(OUTSIDE)?,
            client: find(CLIENT)?,
        })
    }

    pub(super) fn machines(&self) -> [&Machine; 4] {
        [&self.fabric, &self.gateway, &self.outside, &self.client]
    }

    pub(super) fn set_underlay_gateway(&self, state: Gateway) -> Result<()> {
        set_gateway_port(&self.fabric.namespaces(), state)
    }

    fn set_up_fabric(&self, underlays: u8) -> Result<()> {
        let Dual { v4, v6 } = addresses::API_SERVER;
        let mut script = format!(
            "link add management type bridge mcast_snooping 0
            addr add {v4}/24 dev management
            addr add {v6}/64 dev management nodad
            link set management address 02:53:00:00:00:01 up\n"
        );
        for number in 1..=underlays {
            let bridge = underlay(number);
            let mac = addresses::mac(&bridge);
            writeln!(script, "link add {bridge} type bridge mcast_snooping 0")?;
            writeln!(script, "link set {bridge} address {mac} up")?;
        }
        // Frames of the switches are none of iptables' business.
        let sysctls =
            ["iptables", "ip6tables", "arptables"].map(|name| format!("bridge/bridge-nf-call-{name}=0"));
        if std::path::Path::new("/proc/sys/net/bridge").exists() {
            self.fabric.namespaces().sysctl(&sysctls.each_ref().map(String::as_str))?;
        }
        self.fabric.namespaces().ip(&script)
    }

    fn set_up_gateway(&self, underlays: u8) -> Result<()> {
        plug(&self.fabric, &self.gateway, "mgmt", "management")?;
        let (management, far) = (addresses::MANAGEMENT_GATEWAY, addresses::FAR_GATEWAY);
        let mut script = format!(
            "addr add {}/24 dev mgmt
            addr add {}/64 dev mgmt nodad
            link add far address 02:53:00:00:00:03 type veth peer name eth0 address 02:53:00:00:00:04 netns {}
            link set far up
            addr add {}/24 dev far
            addr add {}/64 dev far nodad\n",
            management.v4,
            management.v6,
            self.outside.process(),
            far.v4,
            far.v6
        );
        // Two routers in one: they share the way to the outside and nothing else, or a packet that took the wrong NIC
        // would still arrive.
        let mut drops = String::new();
        for number in 1..=underlays {
            let nic = if number == 1 { "ul".to_owned() } else { format!("ul{number}") };
            plug(&self.fabric, &self.gateway, &nic, &underlay(number))?;
            let own = addresses::further_underlay(number, 0, 1);
            writeln!(script, "addr add {}/16 dev {nic}\naddr add {}/64 dev {nic} nodad", own.v4, own.v6)?;
            writeln!(drops, "iifname {nic} oifname mgmt drop\niifname mgmt oifname {nic} drop")?;
        }
        self.gateway.network().ip(&script)?;
        self.gateway.namespaces().nft(&format!(
            "table inet separation {{
                chain forward {{
                    type filter hook forward priority filter;
                    {drops}
                }}
            }}"
        ))
    }

    fn set_up_hosts(&self) -> Result<()> {
        let (own, via) = (addresses::OUTSIDE, addresses::FAR_GATEWAY);
        self.outside.namespaces().ip(&format!(
            "link set eth0 up
            addr add {}/24 dev eth0
            addr add {}/64 dev eth0 nodad
            route add default via {}
            route add ::/0 via {}",
            own.v4, own.v6, via.v4, via.v6
        ))?;
        plug(&self.fabric, &self.client, "eth0", &underlay(1))?;
        let (own, via) = (addresses::CLIENT, addresses::UNDERLAY_GATEWAY);
        self.client.namespaces().ip(&format!(
            "addr add {}/16 dev eth0
            addr add {}/64 dev eth0 nodad
            route add default via {}
            route add ::/0 via {}",
            own.v4, own.v6, via.v4, via.v6
        ))
    }
}

/// The switch of an underlay; the first one's name is as in `topology`.
fn underlay(number: u8) -> String {
    if number == 1 { "underlay".to_owned() } else { format!("underlay{number}") }
}

/// Connects a machine's NIC to a switch. MACs are fixed: other machines' neighbor caches survive a power cycle.
fn plug(fabric: &Machine, machine: &Machine, nic: &str, bridge: &str) -> Result<()> {
    let port = format!("{}-{nic}", machine.name());
    let script = format!(
        "link add {port} type veth peer name {nic} netns {}
        link set {port} address {} master {bridge} up",
        machine.process(),
        addresses::mac(&port),
    );
    // By the network alone: process ids are those of the real machine. After a power cycle the kernel takes a moment to
    // remove the former link.
    poll::until(&format!("link {port}"), PLUG_LIMIT, || fabric.network().ip(&script))?;
    let mac = addresses::mac(&format!("{} {nic}", machine.name()));
    machine.namespaces().ip(&format!("link set {nic} address {mac} up"))
}

/// Connects a node and gives it its addresses and default routes.
pub(super) fn connect_node(fabric: &Machine, node: &Machine, index: u8, underlays: u8) -> Result<()> {
    plug(fabric, node, "eth0", "management")?;
    let (own, via) = (addresses::node(index), addresses::MANAGEMENT_GATEWAY);
    let mut script = format!(
        "addr add {}/24 dev eth0
        addr add {}/64 dev eth0 nodad
        route add default via {}
        route add ::/0 via {}\n",
        own.v4, own.v6, via.v4, via.v6
    );
    for number in 1..=underlays {
        let nic = format!("eth{number}");
        plug(fabric, node, &nic, &underlay(number))?;
        let own = addresses::further_underlay(number, 1, 10 + index);
        writeln!(script, "addr add {}/16 dev {nic}\naddr add {}/64 dev {nic} nodad", own.v4, own.v6)?;
    }
    node.namespaces().ip(&script)
}

/// Routes to the pods of nodes, over the management network.
pub(super) fn pod_routes(nodes: impl IntoIterator<Item = u8>) -> String {
    let route = |index| {
        let (via, [v4, v6]) = (addresses::node(index), addresses::pod_cidrs(index));
        format!("route replace {v4} via {}\nroute replace {v6} via {}\n", via.v4, via.v6)
    };
    nodes.into_iter().map(route).collect()
}
