//! What is filled in of pools and of SpiderSubnets, which have the same fields for it.

use serde_json::{Value, json};
use spiderpool_core::admission::pool::PoolDefaults;

use super::members::members_mut;

/// Fills in what is absent; `label` is that with the subnet.
pub(super) fn fill_in(object: &mut Value, defaults: PoolDefaults, label: &str) {
    let spec = [
        ("ipVersion", defaults.ip_version.map(|version| json!(version))),
        ("ips", defaults.ips.map(|ips| json!(ips))),
        ("excludeIPs", defaults.exclude_ips.map(|ips| json!(ips))),
    ];
    let spec = spec.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    // A list has the fields in order: serde takes it for the struct, the API server does not.
    let Some(members) = members_mut(object, &["spec"]) else { return };
    members.extend(spec);
    if let Some(value) = defaults.subnet_label
        && let Some(members) = members_mut(object, &["metadata", "labels"])
    {
        members.insert(label.to_owned(), json!(value));
    }
}
