//! Flows in the agent's maps without packets, as bpftool writes them: tens of thousands in a second or two.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::flow_state::{ESTABLISHED, SECOND};
use spiderpool_ebpf_common::maps::{FlowKey, Tuple};
use spiderpool_ebpf_common::protocol;

use crate::counters::PINS;
use crate::namespaces::Namespaces;

const UNDERLAY: Addr = Addr::v4([10, 66, 0, 9]);
const CLUSTER: Addr = Addr::v4([10, 244, 0, 9]);
const REMOTE: Addr = Addr::v4([10, 96, 0, 10]);

/// Writes `count` entries into each of the three maps of flows, as many for each of these pods (by their ids): established TCP
/// connections, of which those in `nat` have two entries each.
pub fn write(node: &Namespaces, pods: &[u16], count: usize) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let now = now.tv_sec() as u64 * SECOND;
    let mut script = String::new();
    let mut add = |map: &str, key: &FlowKey, value: &[u8]| {
        let (key, value) = (hex(&key_bytes(key)), hex(value));
        writeln!(script, "map update pinned {PINS}/{map} key hex {key} value hex {value}")
    };
    for index in 0..count {
        let (pod, number) = (pods[index % pods.len()], index / pods.len());
        let key = key(pod, number);
        add("arrivals", &key, &arrival(now, pod))?;
        add("link_flows", &key, &link_flow(now))?;
        if index < count / 2 {
            add("nat", &key, &translation(now, CLUSTER, &key))?;
            let translated = key.counterpart(CLUSTER, key.local_port);
            add("nat", &translated, &translation(now, UNDERLAY, &key))?;
        }
    }
    let mut bpftool = Command::new("bpftool");
    bpftool.args(["batch", "file", "-"]);
    node.output_with_input(&bpftool, &script)?;
    Ok(())
}

/// How many entries the three maps have.
pub fn count(node: &Namespaces) -> Result<[usize; 3]> {
    let entries = |map: &str| {
        let dump = node.output("bpftool", &["-j", "map", "dump", "pinned", &format!("{PINS}/{map}")])?;
        let dump: Vec<Value> = serde_json::from_str(&dump)?;
        anyhow::Ok(dump.len())
    };
    Ok([entries("arrivals")?, entries("nat")?, entries("link_flows")?])
}

/// One flow of a pod: ports of both sides count up.
fn key(pod: u16, number: usize) -> FlowKey {
    FlowKey {
        pod,
        protocol: protocol::TCP,
        tuple: Tuple::Original as u8,
        local_port: 1024 + (number / 60_000) as u16,
        remote_port: 1024 + (number % 60_000) as u16,
        local: UNDERLAY,
        remote: REMOTE,
    }
}

fn key_bytes(key: &FlowKey) -> Vec<u8> {
    let mut bytes = key.pod.to_ne_bytes().to_vec();
    bytes.extend([key.protocol, key.tuple]);
    bytes.extend(key.local_port.to_ne_bytes());
    bytes.extend(key.remote_port.to_ne_bytes());
    bytes.extend(key.local.bytes);
    bytes.extend(key.remote.bytes);
    bytes
}

/// An `ArrivalEntry`.
fn arrival(now: u64, nic: u16) -> Vec<u8> {
    let mut bytes = now.to_ne_bytes().to_vec();
    bytes.extend(UNDERLAY.bytes);
    bytes.extend(((now / SECOND) as u32).to_ne_bytes());
    bytes.extend(nic.to_ne_bytes());
    bytes.extend([2, 0, 0, 0, 0, 1, ESTABLISHED, 0, 0, 0]);
    bytes
}

/// A `LinkFlow`.
fn link_flow(now: u64) -> Vec<u8> {
    let mut bytes = now.to_ne_bytes().to_vec();
    bytes.extend(((now / SECOND) as u32).to_ne_bytes());
    bytes.extend([ESTABLISHED, 0, 0, 0]);
    bytes
}

/// A `NatEntry`.
fn translation(now: u64, to: Addr, key: &FlowKey) -> Vec<u8> {
    let mut bytes = now.to_ne_bytes().to_vec();
    bytes.extend(to.bytes);
    bytes.extend(key.local_port.to_ne_bytes());
    bytes.extend([ESTABLISHED, 0, 0, 0, 0, 0]);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into a String nothing fails.
        let _written = write!(text, "{byte:02x} ");
        text
    })
}
