//! NICs of machines, connected to the fabric's bridges.

use anyhow::Result;

use super::addresses;
use crate::machine::Machine;

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
