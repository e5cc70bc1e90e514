//! The coordinator's configuration: as written, merged, validated.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

use super::{MacPrefix, Mode, SettingsError};
use crate::ip::Family;
use crate::names::IfName;

/// As written in the CNI configuration, or as the agent answered. Empty means: not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// auto, underlay, overlay, disabled.
    pub mode: String,
    /// The NIC that the main CNI plugin made.
    pub pod_default_cni_nic: String,
    /// The NIC that keeps the default route.
    pub pod_default_route_nic: String,
    /// Pod CIDRs of the overlay.
    #[serde(rename = "overlayPodCIDR")]
    pub overlay_pod_cidr: Vec<String>,
    /// Service CIDRs.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Vec<String>,
    /// Further CIDRs that leave by the cluster NIC; single addresses are accepted.
    #[serde(rename = "hijackCIDR")]
    pub hijack_cidr: Vec<String>,
    /// Routes that win over the CIDRs.
    pub policy_routes: Vec<PolicyRouteText>,
    /// Whether default routes are moved.
    pub tune_pod_routes: Option<bool>,
    /// Two bytes before the address in the NIC's MAC.
    #[serde(rename = "podMACPrefix")]
    pub pod_mac_prefix: String,
    /// MTU of the node link.
    #[serde(rename = "vethMTU")]
    pub veth_mtu: Option<i64>,
    /// rp_filter in the pod.
    #[serde(rename = "podRPFilter")]
    pub pod_rp_filter: Option<i64>,
    /// Transmit queue of the NIC.
    pub tx_queue_len: Option<i64>,
    /// ebpf or policy.
    pub dataplane: String,
    /// Of `dataplane: ebpf` only.
    pub ebpf: EbpfSettings,
}

/// `ebpf` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EbpfSettings {
    /// auto or never.
    pub route_hints: String,
}

/// A route of `policyRoutes` as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PolicyRouteText {
    /// Address or CIDR.
    pub dst: String,
    /// Next hop.
    pub gw: String,
}

/// A route of `policyRoutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop, of the same family.
    pub gw: IpAddr,
}

/// What steers the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dataplane {
    /// tc programs.
    Ebpf,
    /// ip rules and tables.
    Policy,
}

/// Merged and validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Mode.
    pub mode: Mode,
    /// The NIC that the main CNI plugin made.
    pub first_nic: IfName,
    /// The NIC that keeps the default route; `None` means the first.
    pub default_route_nic: Option<IfName>,
    /// Overlay, Service and hijack CIDRs, in this order.
    pub cluster_cidrs: Vec<IpNet>,
    /// Whether the network's configuration names CIDRs itself, so that the agent's do not apply.
    pub own_cidrs: bool,
    /// Routes that win over the CIDRs.
    pub policy_routes: Vec<PolicyRoute>,
    /// Whether default routes are moved.
    pub tune_pod_routes: bool,
    /// First bytes of the NIC's MAC.
    pub mac_prefix: Option<MacPrefix>,
    /// MTU of the node link.
    pub mtu: u32,
    /// rp_filter in the pod; `None` leaves it alone.
    pub rp_filter: Option<u8>,
    /// Transmit queue of the NIC; `None` leaves it alone.
    pub tx_queue_len: Option<u32>,
    /// What steers the packets.
    pub dataplane: Dataplane,
    /// Whether routes may hint the kernel at the cluster NIC.
    pub route_hints: bool,
}

/// The NIC that the main CNI plugin makes, unless `podDefaultCniNic` says otherwise.
pub const DEFAULT_FIRST_NIC: &str = "eth0";
const DEFAULT_MTU: i64 = 1500;

impl Settings {
    /// The network's own settings win over `other`, field by field, and are validated as one.
    pub fn merge(self, other: Self) -> Result<Config, SettingsError> {
        let own_cidrs = !(self.overlay_pod_cidr.is_empty()
            && self.service_cidr.is_empty()
            && self.hijack_cidr.is_empty());
        let cidrs = [
            ("overlayPodCIDR", longer(self.overlay_pod_cidr, other.overlay_pod_cidr)),
            ("serviceCIDR", longer(self.service_cidr, other.service_cidr)),
            ("hijackCIDR", longer(self.hijack_cidr, other.hijack_cidr)),
        ];
        let mut cluster_cidrs = Vec::new();
        for (field, texts) in &cidrs {
            for text in texts {
                let cidr = parse_cidr(field, text)?;
                if !cluster_cidrs.contains(&cidr) {
                    cluster_cidrs.push(cidr);
                }
            }
        }
        let routes = longer(self.policy_routes, other.policy_routes);
        let default_route_nic = said(self.pod_default_route_nic, other.pod_default_route_nic);
        let first_nic =
            said(said(self.pod_default_cni_nic, other.pod_default_cni_nic), DEFAULT_FIRST_NIC.to_owned());
        let mac_prefix = said(self.pod_mac_prefix, other.pod_mac_prefix);
        // A number of the agent that says nothing is zero; of the network's configuration it is absent.
        let mtu = self.veth_mtu.or(other.veth_mtu.filter(|mtu| *mtu > 0)).unwrap_or(DEFAULT_MTU);
        let tx_queue_len = self.tx_queue_len.or(other.tx_queue_len).unwrap_or_default();
        Ok(Config {
            mode: parse_or_default(&said(self.mode, other.mode))?,
            first_nic: parse_nic("podDefaultCniNic", &first_nic)?,
            default_route_nic: some(&default_route_nic)
                .map(|t| parse_nic("podDefaultRouteNic", t))
                .transpose()?,
            cluster_cidrs,
            own_cidrs,
            policy_routes: routes.iter().map(PolicyRouteText::parse).collect::<Result<_, _>>()?,
            tune_pod_routes: self.tune_pod_routes.or(other.tune_pod_routes).unwrap_or(true),
            mac_prefix: some(&mac_prefix).map(str::parse).transpose()?,
            mtu: u16::try_from(mtu).ok().filter(|m| *m >= 68).ok_or(SettingsError::Mtu(mtu))?.into(),
            rp_filter: parse_rp_filter(self.pod_rp_filter.or(other.pod_rp_filter))?,
            tx_queue_len: u32::try_from(tx_queue_len)
                .map(|length| (length > 0).then_some(length))
                .map_err(|_| SettingsError::TxQueueLen(tx_queue_len))?,
            dataplane: match said(self.dataplane, other.dataplane).as_str() {
                "ebpf" => Dataplane::Ebpf,
                "policy" | "" => Dataplane::Policy,
                text => return Err(SettingsError::Dataplane(text.to_owned())),
            },
            route_hints: match said(self.ebpf.route_hints, other.ebpf.route_hints).as_str() {
                "auto" | "" => true,
                "never" => false,
                text => return Err(SettingsError::RouteHints(text.to_owned())),
            },
        })
    }
}

impl PolicyRouteText {
    fn parse(&self) -> Result<PolicyRoute, SettingsError> {
        let error =
            |reason| SettingsError::PolicyRoute { dst: self.dst.clone(), gw: self.gw.clone(), reason };
        let dst = parse_net(&self.dst).ok_or_else(|| error("dst is neither an address nor a CIDR"))?;
        let gw = self.gw.trim().parse().map_err(|_| error("gw is not an address"))?;
        if Family::of_net(&dst) == Family::of(gw) {
            Ok(PolicyRoute { dst, gw })
        } else {
            Err(error("dst and gw are of different families"))
        }
    }
}

fn said(own: String, other: String) -> String {
    if own.is_empty() { other } else { own }
}

fn longer<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
    if own.is_empty() { other } else { own }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn parse_or_default<T: FromStr + Default>(text: &str) -> Result<T, T::Err> {
    some(text).map_or_else(|| Ok(T::default()), str::parse)
}

fn parse_nic(field: &'static str, text: &str) -> Result<IfName, SettingsError> {
    text.parse().map_err(|_| SettingsError::Nic { field, text: text.to_owned() })
}

fn parse_cidr(field: &'static str, text: &str) -> Result<IpNet, SettingsError> {
    parse_net(text).ok_or_else(|| SettingsError::Cidr { field, text: text.to_owned() })
}

/// A single address is the network of it alone.
fn parse_net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

fn parse_rp_filter(value: Option<i64>) -> Result<Option<u8>, SettingsError> {
    match value {
        None | Some(i64::MIN..=-1) => Ok(None),
        Some(value @ 0..=2) => Ok(Some(value as u8)),
        Some(value) => Err(SettingsError::RpFilter(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap()
    }

    #[track_caller]
    fn check_error(json: &str, part: &str) {
        let error = settings(json).merge(Settings::default()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn the_networks_configuration_wins() {
        let own = settings(
            r#"{"mode":"overlay","podDefaultRouteNic":"net1","serviceCIDR":["10.233.0.0/18"],"tunePodRoutes":false,
                "hostRuleTable":500,"podRPFilter":2}"#,
        );
        let agent = Settings {
            mode: "auto".into(),
            pod_default_route_nic: "eth0".into(),
            overlay_pod_cidr: vec!["10.233.64.0/18".into()],
            service_cidr: vec!["10.96.0.0/12".into()],
            hijack_cidr: vec!["169.254.0.0/16".into()],
            tune_pod_routes: Some(true),
            pod_rp_filter: Some(0),
            veth_mtu: Some(0),
            dataplane: "ebpf".into(),
            ..Settings::default()
        };
        let config = own.merge(agent.clone()).unwrap();
        assert_eq!(config.mode, Mode::Overlay);
        assert_eq!(config.default_route_nic.unwrap().as_str(), "net1");
        let cidrs: Vec<_> = config.cluster_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.233.64.0/18", "10.233.0.0/18", "169.254.0.0/16"]);
        assert!(config.own_cidrs && !config.tune_pod_routes && config.route_hints);
        assert_eq!((config.rp_filter, config.mtu, config.dataplane), (Some(2), 1500, Dataplane::Ebpf));

        let config = Settings::default().merge(agent).unwrap();
        assert_eq!((config.mode, config.own_cidrs, config.tune_pod_routes), (Mode::Auto, false, true));
        assert_eq!(config.rp_filter, Some(0));
    }

    #[test]
    fn an_agent_that_does_not_know_dataplanes_means_policy() {
        let config = Settings::default().merge(Settings::default()).unwrap();
        assert_eq!((config.dataplane, config.first_nic.as_str()), (Dataplane::Policy, "eth0"));
    }

    /// Upstream's webhook turns single addresses into networks for SpiderCoordinator only, and ADD then failed.
    #[test]
    fn hijack_cidrs_may_be_single_addresses() {
        let config =
            settings(r#"{"hijackCIDR":["169.254.20.10"," fd00::a "]}"#).merge(Settings::default()).unwrap();
        let cidrs: Vec<_> = config.cluster_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["169.254.20.10/32", "fd00::a/128"]);
    }

    /// Upstream writes -2 to the kernel.
    #[test]
    fn a_negative_rp_filter_leaves_it_alone() {
        for value in [-1, -2, -100] {
            let own = Settings { pod_rp_filter: Some(value), ..Settings::default() };
            assert_eq!(own.merge(Settings::default()).unwrap().rp_filter, None);
        }
    }

    #[test]
    fn wrong_values_are_named() {
        check_error(r#"{"mode":"Overlay"}"#, "mode \"Overlay\" is unknown");
        check_error(r#"{"dataplane":"iptables"}"#, "dataplane \"iptables\" is unknown");
        check_error(r#"{"ebpf":{"routeHints":"on"}}"#, "routeHints \"on\"");
        check_error(r#"{"serviceCIDR":["10.96.0.0/33"]}"#, "serviceCIDR \"10.96.0.0/33\" is not a CIDR");
        check_error(r#"{"overlayPodCIDR":[""]}"#, "overlayPodCIDR \"\"");
        check_error(r#"{"podMACPrefix":"0b:1b"}"#, "podMACPrefix \"0b:1b\"");
        check_error(r#"{"podRPFilter":3}"#, "podRPFilter 3");
        check_error(r#"{"vethMTU":0}"#, "vethMTU 0");
        check_error(r#"{"txQueueLen":-5}"#, "txQueueLen -5");
        check_error(r#"{"podDefaultRouteNic":"a/b"}"#, "podDefaultRouteNic \"a/b\"");
        check_error(r#"{"policyRoutes":[{"dst":"1.2.3.0/24","gw":"fd00::1"}]}"#, "different families");
        check_error(r#"{"policyRoutes":[{"dst":"1.2.3.0/24"}]}"#, "gw is not an address");
    }
}
