//! Results of ADD in every version: the shape is one, but before 1.0.0 addresses say their IP version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};
use spiderpool_core::ip::Family;

use super::Version;

/// The result of an IPAM plugin: no interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Addresses.
    pub ips: Vec<IpEntry>,
    /// Routes.
    pub routes: Vec<RouteEntry>,
}

/// An address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IpEntry {
    /// Address and prefix length.
    pub address: IpNet,
    /// The subnet's gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteEntry {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

impl AddResult {
    /// As JSON of one version.
    pub fn to_json(&self, version: Version) -> Value {
        convert_result(json!({ "ips": self.ips, "routes": self.routes, "dns": {} }), version)
    }

    /// The families of its addresses, each once.
    pub fn families(&self) -> Vec<Family> {
        let has = |family: &Family| self.ips.iter().any(|ip| Family::of_net(&ip.address) == *family);
        Family::ALL.into_iter().filter(has).collect()
    }
}

/// A result, ours or another plugin's, in another version. Fields that we do not know stay.
pub fn convert_result(mut result: Value, version: Version) -> Value {
    if let Some(object) = result.as_object_mut() {
        object.insert("cniVersion".to_owned(), Value::from(version.as_str()));
    }
    for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let family = address(ip).map(|net| if net.addr().is_ipv4() { "4" } else { "6" });
        let Some(ip) = ip.as_object_mut() else { continue };
        match family {
            Some(family) if version.has_ip_version() => {
                drop(ip.insert("version".to_owned(), Value::from(family)));
            }
            _ => drop(ip.remove("version")),
        }
    }
    result
}

/// The addresses of a result that are on the sandbox's interface `name`, or that do not say on which.
pub fn result_addresses(result: &Value, name: &str) -> Vec<IpNet> {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let is_elsewhere = |ip: &Value| {
        let index = ip.get("interface").and_then(Value::as_u64)?;
        let interface = interfaces?.get(usize::try_from(index).ok()?)?;
        Some(interface.get("name")?.as_str()? != name)
    };
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter(|ip| !is_elsewhere(ip).unwrap_or(false)).filter_map(address).collect()
}

fn address(ip: &Value) -> Option<IpNet> {
    ip.get("address")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam() -> AddResult {
        AddResult {
            ips: vec![
                IpEntry {
                    address: "10.6.212.145/16".parse().unwrap(),
                    gateway: Some("10.6.0.1".parse().unwrap()),
                },
                IpEntry { address: "fd00:10:6::145/64".parse().unwrap(), gateway: None },
            ],
            routes: vec![RouteEntry {
                dst: "0.0.0.0/0".parse().unwrap(),
                gw: Some("10.6.0.1".parse().unwrap()),
            }],
        }
    }

    #[test]
    fn ipam_result_in_both_shapes() {
        insta::assert_json_snapshot!("ipam_0_3_1", ipam().to_json(Version::V0_3_1));
        insta::assert_json_snapshot!("ipam_1_1_0", ipam().to_json(Version::V1_1_0));
    }

    #[test]
    fn families_are_those_of_the_addresses() {
        assert_eq!(ipam().families(), Family::ALL);
        assert_eq!(AddResult::default().families(), []);
    }

    #[test]
    fn another_plugins_result_keeps_what_we_do_not_know() {
        let previous = json!({
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/var/run/netns/x", "mtu": 1500}],
            "ips": [{"version": "4", "address": "10.6.212.145/16", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.6.0.1", "priority": 5}],
            "dns": {"nameservers": ["10.96.0.10"]},
            "vendor": {"a": [1, null]},
        });
        let newer = convert_result(previous.clone(), Version::V1_1_0);
        insta::assert_json_snapshot!("previous_1_1_0", newer);
        assert_eq!(convert_result(newer, Version::V0_4_0), previous, "and back");
    }

    #[test]
    fn every_version_goes_to_every_other_and_back() {
        for from in Version::ALL {
            for to in Version::ALL {
                let result = ipam().to_json(from);
                assert_eq!(convert_result(convert_result(result.clone(), to), from), result, "{from} {to}");
            }
        }
    }

    #[test]
    fn addresses_of_other_interfaces_are_left_out() {
        let result = json!({
            "interfaces": [{"name": "bridge"}, {"name": "net1"}],
            "ips": [{"address": "10.0.0.1/24", "interface": 0}, {"address": "10.6.0.5/16", "interface": 1},
                    {"address": "10.7.0.5/16"}, {"address": "nonsense"}, {"address": "10.8.0.5/16", "interface": 9}],
        });
        let found: Vec<_> = result_addresses(&result, "net1").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.6.0.5/16", "10.7.0.5/16", "10.8.0.5/16"]);
        assert_eq!(result_addresses(&Value::Null, "net1"), []);
    }
}
