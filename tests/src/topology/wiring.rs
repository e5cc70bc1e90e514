//! NICs of machines, connected to the fabric's bridges.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::addresses;
use crate::machine::Machine;
use crate::matrix::Gateway;
use crate::namespaces::Namespaces;

/// Connects a machine's NIC to one of the fabric's bridges.
pub(super) fn plug(fabric: &Machine, machine: &Machine, nic: &str, bridge: &str) -> Result<()> {
    let port = format!("{}-{nic}", machine.name);
    fabric.ip(&format!(
        "link add {port} type veth peer name {nic} netns {}
        link set {port} address {} master {bridge} up",
        machine.process(),
        addresses::mac(&port),
    ))?;
    machine.ip(&format!("link set {nic} address {} up", addresses::mac(&format!("{} {nic}", machine.name))))
}

/// Turns the port off at which the first underlay's gateway is, or on again.
///
/// By bridge(8): a port that `ip link set type bridge_slave state 0` has turned off is turned on by the notification of that
/// change itself (Linux 6.18, net/bridge/br.c, NETDEV_CHANGE).
pub(crate) fn set_gateway_port(fabric: &Namespaces, gateway: Gateway) -> Result<()> {
    let state = if gateway == Gateway::Dead { "disabled" } else { "forwarding" };
    fabric.output("bridge", &["link", "set", "dev", "gateway-ul", "state", state])?;
    let port = fabric.output("bridge", &["-j", "link", "show", "dev", "gateway-ul"])?;
    let port: Value = serde_json::from_str(&port)?;
    ensure!(port[0]["state"] == state, "the port of the underlay's gateway is not {state}: {port}");
    Ok(())
}
