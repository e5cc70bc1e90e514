//! The IPAM plugin that a configuration names, executed as the real CNI plugins do it.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::environment::variable;
use super::kind::Kind;
use crate::command;

/// Where a node's pod CIDRs are, one in a line. The real plugins ask the API server.
pub const POD_CIDRS: &str = "/etc/calico-like-pod-cidrs";
/// What Calico's plugin takes for the node's pod CIDRs in the configuration of host-local.
const NODE_CIDRS: [&str; 2] = ["usePodCidr", "usePodCidrIPv6"];

/// Executes the IPAM plugin with the main plugin's configuration and environment; its addresses and gateways.
pub(super) fn execute(kind: Kind, config: &Value, command: &str) -> Result<Leased> {
    let mut config = config.clone();
    if kind == Kind::Calico {
        let cidrs = fs::read_to_string(POD_CIDRS).unwrap_or_default();
        fill_in(&mut config["ipam"], &cidrs.lines().collect::<Vec<_>>());
    }
    let plugin = config["ipam"]["type"].as_str().context("no ipam.type in the configuration")?;
    let path = variable("CNI_PATH")?;
    let program = env::split_paths(&path).map(|folder| folder.join(plugin)).find(|program| program.exists());
    let program = program.with_context(|| format!("{plugin} is in none of {path}"))?;
    let output = command::output(Command::new(program).env("CNI_COMMAND", command), &config.to_string())?;
    Ok(Leased(serde_json::from_str(&output).unwrap_or_default()))
}

/// Calico's own IPAM gives a node blocks of addresses: here it is host-local with the node's pod CIDRs.
fn fill_in(ipam: &mut Value, cidrs: &[&str]) {
    if ipam["type"] == "calico-ipam" {
        let ranges: Vec<Value> = cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
        *ipam = json!({"type": "host-local", "ranges": ranges});
    }
    let sets = ipam.get_mut("ranges").and_then(Value::as_array_mut).into_iter().flatten();
    for range in sets.filter_map(Value::as_array_mut).flatten() {
        let wanted = NODE_CIDRS.iter().position(|word| range["subnet"] == *word);
        let is_v6 = |cidr: &&&str| cidr.contains(':');
        if let Some(cidr) = wanted.and_then(|family| cidrs.iter().find(|cidr| is_v6(cidr) == (family == 1))) {
            range["subnet"] = json!(cidr);
        }
    }
}

/// The result of an IPAM plugin. Routes and anything else in it do not interest.
pub(super) struct Leased(Value);

impl Leased {
    /// One address for each family that there is.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>> {
        let found = self.all("address");
        let of = |v4: bool| found.iter().filter(|address| address.is_ipv4() == v4).count();
        ensure!(!found.is_empty() && of(true) < 2 && of(false) < 2, "not an address per family: {}", self.0);
        Ok(found)
    }

    /// The gateways of its addresses.
    pub(super) fn gateways(&self) -> Vec<IpAddr> {
        self.all("gateway")
    }

    fn all(&self, key: &str) -> Vec<IpAddr> {
        let list = self.0["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|ip| ip[key].as_str()?.split('/').next()?.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_cidrs_are_filled_in_where_calico_does_it() {
        let cidrs = ["10.244.1.0/24", "fd44:0:0:1::/64"];
        let filled = |mut ipam: Value| {
            fill_in(&mut ipam, &cidrs);
            ipam
        };
        assert_eq!(
            filled(json!({"type": "calico-ipam"})),
            json!({"type": "host-local", "ranges": [[{"subnet": cidrs[0]}], [{"subnet": cidrs[1]}]]})
        );
        assert_eq!(
            filled(json!({"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]})),
            json!({"type": "host-local", "ranges": [[{"subnet": cidrs[0]}]]})
        );
        let others = json!({"type": "spiderpool"});
        assert_eq!(filled(others.clone()), others);
    }

    #[test]
    fn one_address_per_family_is_enough_and_two_are_too_many() {
        let leased = |ips: Value| Leased(json!({"ips": ips})).addresses();
        assert_eq!(leased(json!([{"address": "10.1.0.1/16"}])).unwrap().len(), 1);
        assert_eq!(leased(json!([{"address": "10.1.0.1/16"}, {"address": "fd00::1/64"}])).unwrap().len(), 2);
        leased(json!([])).unwrap_err();
        leased(json!([{"address": "10.1.0.1/16"}, {"address": "10.1.0.2/16"}])).unwrap_err();
    }
}
