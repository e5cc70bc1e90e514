//! The configuration file, `init.yml` of the ConfigMap `spiderpool-init`: the default objects, as the chart's values
//! describe them.

use serde::Deserialize;
use spiderpool_api::crd::CoordinatorSpec;
use spiderpool_core::Unsupported;
use spiderpool_runtime::config_file::{Content, null_as_default};

/// The default objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InitFile {
    /// The SpiderCoordinator; absent for none.
    pub coordinator: Option<DefaultCoordinator>,
    /// The IPv4 pool; absent for none.
    #[serde(rename = "ipv4Pool")]
    pub ipv4_pool: Option<DefaultPool>,
    /// The IPv6 pool; absent for none.
    #[serde(rename = "ipv6Pool")]
    pub ipv6_pool: Option<DefaultPool>,
}

/// A SpiderCoordinator.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultCoordinator {
    /// Its name.
    pub name: String,
    /// Its spec.
    #[serde(default)]
    pub spec: CoordinatorSpec,
}

/// A SpiderIPPool with `spec.default`, and a SpiderSubnet that has the same addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultPool {
    /// Its name; empty for a SpiderSubnet alone.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// Its subnet.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subnet: String,
    /// Its addresses and ranges.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ip_ranges: Vec<String>,
    /// Its gateway; empty for none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub gateway: String,
    /// The name of its SpiderSubnet; empty for none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subnet_name: String,
}

impl Content for InitFile {
    fn unsupported(&self) -> Option<Unsupported> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_asks_for_nothing() {
        assert_eq!(InitFile::parse("").unwrap(), InitFile::default());
        assert_eq!(InitFile::parse("coordinator:\nipv4Pool:\n").unwrap(), InitFile::default());
    }

    #[test]
    fn the_coordinator_is_a_spec() {
        let file = InitFile::parse(
            "coordinator:\n  name: default\n  spec: {\"mode\": \"overlay\", \"podCIDRType\": \"cluster\", \"vethMTU\": 1450,\
             \"hijackCIDR\": [\"1.2.3.4\"], \"ebpf\": {\"routeHints\": \"never\"}}\n",
        );
        let spec = file.unwrap().coordinator.unwrap().spec;
        assert_eq!(spec.settings.mode.as_deref(), Some("overlay"));
        assert_eq!((spec.settings.veth_mtu, spec.pod_cidr_type.is_some()), (Some(1450), true));
        assert_eq!(spec.settings.ebpf.unwrap().route_hints.as_deref(), Some("never"));
    }

    #[track_caller]
    fn check_error(text: &str, part: &str) {
        let error = InitFile::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn unknown_keys_and_invalid_values_are_refused_by_name() {
        check_error("pool: {name: a}", "pool");
        check_error("ipv4Pool: {name: a, range: [x]}", "range");
        check_error("coordinator: {name: a, spec: {vethMTU: big}}", "big");
        check_error("coordinator: {name: a, spec: {tunePodRoutes: maybe}}", "maybe");
        check_error("coordinator: {name: a, spec: {podCIDRType: flannel}}", "flannel");
    }
}
