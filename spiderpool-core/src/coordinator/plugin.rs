//! The names that coordinator is installed and configured by, and what a configuration of its second name says.
//!
//! Before there was a coordinator, Spiderpool's documents had pods with an underlay eth0 set up by the plugin `veth` of another
//! project. The same program serves NetworkAttachmentDefinitions of that time, in underlay mode, but for members that it would have
//! to do otherwise: these are refused.

use std::path::Path;

use serde::Deserialize;

use super::values::{parse_cidrs, parse_net};
use super::{Mode, Settings, SettingsError};

/// The plugin.
pub const COORDINATOR: &str = "coordinator";
/// Its second name.
pub const VETH: &str = "veth";

/// The other name that a program of ours is installed by.
pub fn second_name(program: &Path) -> Option<&'static str> {
    (program.file_name()? == COORDINATOR).then_some(VETH)
}

/// The members of a configuration of type `veth` that coordinator's own does not have, by the names of the plugin's earlier
/// and later releases. What is not here (`rp_filter`, `move_routes` or `migrate_route`, `ip_conflict`, `log_options`) is
/// ignored: the cluster's settings decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VethSettings {
    #[serde(alias = "service_hijack_subnet")]
    service_cidr: Vec<String>,
    #[serde(alias = "overlay_hijack_subnet")]
    cluster_cidr: Vec<String>,
    #[serde(alias = "additional_hijack_subnet")]
    additional_cidr: Vec<String>,
    hardware_prefix: String,
    mac_prefix: String,
    only_hardware: bool,
    only_op_mac: bool,
    skip_call: bool,
}

const PREFIX_REMEDY: &str = "set podMACPrefix in its place";
const ONLY_MAC_REMEDY: &str = "use the plugin coordinator with podMACPrefix";

impl VethSettings {
    /// The network's settings in coordinator's words. CIDRs that the cluster does not know come to its `hijackCIDR` of now,
    /// and both together are the pod's own.
    pub fn translate(&self, network: Settings, cluster: &Settings) -> Result<Settings, SettingsError> {
        self.check(&network)?;
        let merged = network.clone().or(cluster.clone());
        let lists = [&merged.overlay_pod_cidr, &merged.service_cidr, &merged.hijack_cidr];
        let known: Vec<_> =
            lists.into_iter().flatten().flatten().filter_map(|text| parse_net(text)).collect();
        let mut unknown = Vec::new();
        for (field, texts) in [
            ("service_cidr (service_hijack_subnet)", &self.service_cidr),
            ("cluster_cidr (overlay_hijack_subnet)", &self.cluster_cidr),
            ("additional_cidr (additional_hijack_subnet)", &self.additional_cidr),
        ] {
            let cidrs = parse_cidrs(field, Some(texts))?.into_iter();
            unknown.extend(cidrs.filter(|cidr| !known.iter().any(|known| known.contains(cidr))));
        }
        // With nothing of its own, the pod follows the cluster's.
        let hijack_cidr = if unknown.is_empty() {
            network.hijack_cidr
        } else {
            let unknown = unknown.iter().map(ToString::to_string);
            Some(merged.hijack_cidr.into_iter().flatten().chain(unknown).collect())
        };
        Ok(Settings { mode: Some(Mode::Underlay.to_string()), hijack_cidr, ..network })
    }

    fn check(&self, network: &Settings) -> Result<(), SettingsError> {
        let mode = network.mode.as_deref().unwrap_or_default();
        let is_other = !mode.is_empty() && !matches!(mode.parse::<Mode>()?, Mode::Auto | Mode::Underlay);
        let members = [
            (!self.hardware_prefix.is_empty(), "hardware_prefix", PREFIX_REMEDY),
            (!self.mac_prefix.is_empty(), "mac_prefix", PREFIX_REMEDY),
            (self.only_hardware, "only_hardware", ONLY_MAC_REMEDY),
            (self.only_op_mac, "only_op_mac", ONLY_MAC_REMEDY),
            (self.skip_call, "skip_call", "remove the plugin from the network if it is to do nothing"),
            (
                is_other,
                "mode",
                "the plugin is for pods whose eth0 is on the underlay, use the plugin coordinator",
            ),
        ];
        match members.into_iter().find(|(is_refused, ..)| *is_refused) {
            Some((_, field, remedy)) => Err(SettingsError::Veth { field, remedy }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Config;
    use crate::go_json::from_go_json;

    const CLUSTER: &str = r#"{"mode":"overlay","dataplane":"ebpf","overlayPodCIDR":["10.244.0.0/16"],
        "serviceCIDR":["10.96.0.0/16"],"hijackCIDR":["169.254.0.0/16"]}"#;

    fn resolve(json: &str) -> Result<Config, SettingsError> {
        let (veth, network): (VethSettings, _) = (from_go_json(json).unwrap(), from_go_json(json).unwrap());
        let cluster: Settings = from_go_json(CLUSTER).unwrap();
        Settings::resolve(veth.translate(network, &cluster)?, cluster)
    }

    #[track_caller]
    fn check_steered(json: &str, expect: &[&str]) -> Config {
        let config = resolve(json).unwrap();
        let steered: Vec<_> = config.cluster_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(
            (steered, config.mode),
            (expect.iter().map(|c| (*c).to_owned()).collect(), Mode::Underlay)
        );
        config
    }

    /// So that changes of the cluster's reach the pod while it runs.
    #[test]
    fn cidrs_that_the_cluster_knows_are_the_clusters() {
        let steered = ["10.244.0.0/16", "10.96.0.0/16", "169.254.0.0/16"];
        for json in [
            r#"{"type":"veth","service_cidr":["10.96.0.0/16"]}"#,
            r#"{"type":"veth","service_cidr":["10.96.0.0/17"],"cluster_cidr":["10.244.0.0/16"],"mode":"auto"}"#,
            r#"{"type":"veth","service_cidr":null,"rp_filter":{"enabled":true},"move_routes":2}"#,
            r#"{"type":"veth","service_hijack_subnet":["10.96.0.0/16"],"overlay_hijack_subnet":["10.244.0.0/16"],
                "additional_hijack_subnet":[],"rp_filter":{"set_host":true,"value":0},"migrate_route":-1,
                "ip_conflict":{"enabled":true},"mac_prefix":"","only_op_mac":false,"skip_call":false}"#,
        ] {
            let config = check_steered(json, &steered);
            assert_eq!(config.own_cidrs.hijack, None, "{json}");
        }
    }

    #[test]
    fn other_cidrs_come_to_the_clusters() {
        let json =
            r#"{"type":"veth","service_cidr":["10.97.0.0/16","fd97::/112"],"additional_cidr":["10.9.8.7"]}"#;
        let own = ["169.254.0.0/16", "10.97.0.0/16", "fd97::/112", "10.9.8.7/32"];
        let config = check_steered(json, &[&["10.244.0.0/16", "10.96.0.0/16"][..], &own].concat());
        assert_eq!(config.own_cidrs.hijack, Some(own.iter().map(|cidr| cidr.parse().unwrap()).collect()));
        let later = r#"{"type":"veth","overlay_hijack_subnet":["10.97.0.0/16"],
            "Service_Hijack_Subnet":["fd97::/112"],"additional_hijack_subnet":["10.9.8.7"]}"#;
        assert_eq!(resolve(later).unwrap().own_cidrs, config.own_cidrs);
        assert_eq!((config.own_cidrs.pod, config.own_cidrs.service), (None, None));
        let json = r#"{"type":"veth","service_cidr":["10.97.0.0/16"],"hijackCIDR":["10.1.0.0/16"]}"#;
        check_steered(json, &["10.244.0.0/16", "10.96.0.0/16", "10.1.0.0/16", "10.97.0.0/16"]);
    }

    #[test]
    fn what_would_be_done_otherwise_is_refused() {
        for (json, part) in [
            (r#"{"service_cidr":["10.96.0.0/160"]}"#, r#"hijack_subnet) "10.96.0.0/160" is not a CIDR"#),
            (r#"{"hardware_prefix":"0a:1b"}"#, "network of type veth: hardware_prefix is not supported"),
            (r#"{"hardware_prefix":"0a:1b"}"#, "which serves this type: set podMACPrefix"),
            (r#"{"mac_prefix":"0a:1b"}"#, "mac_prefix is not supported"),
            (r#"{"only_hardware":true}"#, "only_hardware is not supported"),
            (r#"{"only_op_mac":true}"#, "only_op_mac is not supported"),
            (r#"{"skip_call":true}"#, "skip_call is not supported"),
            (r#"{"mode":"overlay"}"#, "use the plugin coordinator"),
            (r#"{"mode":"sideways"}"#, "sideways"),
        ] {
            let error = resolve(json).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    /// Which of them counts would be a guess.
    #[test]
    fn a_list_by_both_of_its_names_is_refused() {
        let json = r#"{"service_cidr":["10.96.0.0/16"],"service_hijack_subnet":["10.97.0.0/16"]}"#;
        let error = from_go_json::<VethSettings>(json).unwrap_err().to_string();
        assert!(error.contains("duplicate field `service_cidr`"), "{error}");
    }

    #[test]
    fn one_program_has_a_second_name() {
        let names = ["/image/coordinator", "/image/spiderpool", "/image/coordinator.old"];
        assert_eq!(names.map(|name| second_name(Path::new(name))), [Some(VETH), None, None]);
    }
}
