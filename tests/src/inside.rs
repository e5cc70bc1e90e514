//! What is in a pod's namespace that steers packets: the eBPF dataplane has plain routes of the main table there, and nothing
//! else.

use anyhow::Result;
use serde_json::Value;

use crate::namespaces::Namespaces;

/// The kernel's own rules, by priority: tables local, main and default.
const RULES: [u64; 3] = [0, 32_766, 32_767];

/// What a pod of the eBPF dataplane should not have, as iproute2, nft and the kernel list it: rules, routes of further tables,
/// and tables of nftables or iptables.
pub fn beyond_routes(pod: &Namespaces) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        for rule in list(pod, &["-j", family, "rule"])? {
            if !rule["priority"].as_u64().is_some_and(|priority| RULES.contains(&priority)) {
                found.push(format!("rule {rule}"));
            }
        }
        for route in list(pod, &["-j", family, "route", "show", "table", "all"])? {
            if route.get("table").is_some_and(|table| table != "local" && table != "main") {
                found.push(format!("route {route}"));
            }
        }
    }
    let ruleset = pod.output("nft", &["list", "ruleset"])?;
    found.extend(ruleset.lines().filter(|line| line.starts_with("table ")).map(str::to_owned));
    // The files are there where the module is loaded. nft lists what iptables-nft has made.
    for file in ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"] {
        let tables = pod.output("sh", &["-c", &format!("cat {file} 2>/dev/null || true")])?;
        found.extend(tables.lines().map(|table| format!("{file}: {table}")));
    }
    Ok(found)
}

fn list(pod: &Namespaces, args: &[&str]) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&pod.output("ip", args)?)?)
}
