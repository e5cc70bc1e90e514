//! The dataplane's counters and maps as bpftool shows them, which is what people look at.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};
use serde_json::Value;

use spiderpool_ebpf_common::maps::{CidrAction, CidrKind};

use crate::namespaces::Namespaces;

/// Where the agent pins maps and programs.
pub const PINS: &str = "/sys/fs/bpf/spiderpool/v1";

/// Packets by `NIC reason`, zeros left out.
pub type Counters = BTreeMap<String, u64>;

/// The ids of a pod's NICs: the classid of their filters.
pub fn nic_ids(pod: &Namespaces) -> Result<BTreeMap<String, u16>> {
    let links: Value = serde_json::from_str(&pod.output("ip", &["-j", "link"])?)?;
    let mut ids = BTreeMap::new();
    for link in links.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().context("a link without name")?;
        let filters = pod.output("tc", &["filter", "show", "dev", name, "egress"])?;
        // `filter protocol all pref 1 bpf chain 0 handle 0x1 flowid :2a egress direct-action ...`
        let mut words = filters.split_whitespace();
        let classid = words.find(|word| *word == "flowid").and_then(|_| words.next());
        if let Some((_, minor)) = classid.and_then(|classid| classid.split_once(':')) {
            ids.insert(name.to_owned(), u16::from_str_radix(minor, 16)?);
        }
    }
    Ok(ids)
}

/// What was counted so far for the pod's NICs.
pub fn read(node: &Namespaces, ids: &BTreeMap<String, u16>) -> Result<Counters> {
    let mut counters = Counters::new();
    for (nic, id) in ids {
        let [low, high] = id.to_le_bytes().map(|byte| byte.to_string());
        let map = format!("{PINS}/stats");
        let entry =
            node.output("bpftool", &["-j", "map", "lookup", "pinned", &map, "key", &low, &high, "0", "0"])?;
        let entry: Value = serde_json::from_str(&entry)?;
        for cpu in entry["formatted"]["values"].as_array().context("stats without BTF")? {
            for (reason, counter) in cpu["value"].as_object().into_iter().flatten() {
                let packets = counter["packets"].as_u64().unwrap_or(0);
                if packets > 0 {
                    *counters.entry(format!("{nic} {reason}")).or_default() += packets;
                }
            }
        }
    }
    Ok(counters)
}

/// What moved from `before` to `after`.
pub fn moved(before: &Counters, after: &Counters) -> Counters {
    after
        .iter()
        .map(|(name, count)| (name.clone(), count - before.get(name).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// An entry of the map `cluster_cidrs`.
#[derive(Debug)]
pub struct CidrEntry {
    /// The destinations, `ADDRESS/LENGTH`.
    pub cidr: String,
    /// What is done with them and why, in words.
    pub meaning: String,
    /// The entry as bpftool prints it.
    pub raw: Value,
}

/// The map `cluster_cidrs` of a node.
pub fn cidrs(node: &Namespaces) -> Result<Vec<CidrEntry>> {
    let dump = node.output("bpftool", &["-j", "map", "dump", "pinned", &format!("{PINS}/cluster_cidrs")])?;
    let dump: Vec<Value> = serde_json::from_str(&dump)?;
    dump.iter().map(|entry| cidr(&entry["formatted"])).collect()
}

fn cidr(entry: &Value) -> Result<CidrEntry> {
    let data = &entry["key"]["data"];
    let bytes: Vec<u8> =
        serde_json::from_value(data["addr"]["bytes"].clone()).context("a key without BTF")?;
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice())?).to_canonical();
    // The prefix counts the profile and its padding (32 bits), and 96 bits that say that it is IPv4.
    let length = entry["key"]["prefix_len"].as_u64().context("prefix_len")?;
    let length = length - if matches!(address, IpAddr::V4(_)) { 128 } else { 32 };
    let value = |field: &str| entry["value"][field].as_u64().and_then(|value| u8::try_from(value).ok());
    let action = value("action").and_then(CidrAction::from_value).context("an action that is none")?;
    let kind = value("kind").and_then(CidrKind::from_value).context("a kind that is none")?;
    Ok(CidrEntry {
        cidr: format!("{address}/{length}"),
        meaning: format!("{action:?} {kind:?}").to_lowercase(),
        raw: entry.clone(),
    })
}
