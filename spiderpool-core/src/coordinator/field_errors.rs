//! Everything that is wrong with settings where somebody writes them, before any pod meets them: [`Settings::resolve`]
//! stops at the first fault, because a plugin has no use for a second one.

use std::net::IpAddr;
use std::str::FromStr;

use super::choice::{Dataplane, NodeLinkCallers, RouteHints};
use super::error::STRICT_WITH_PROGRAMS;
use super::policy_route::PolicyRouteText;
use super::values::{
    parse_link_address, parse_mtu, parse_net, parse_nic, parse_rp_filter, parse_table, parse_tx_queue_len,
};
use super::{MacPrefix, Mode, Settings};
use crate::field_error::FieldError;
use crate::ip::Family;

const CIDR: &str = "must be a CIDR or an address, like 10.96.0.0/12 or fd00::1";

impl Settings {
    /// All faults, in the order of the fields; `path` is that of the object with the settings, as `spec`.
    pub fn field_errors(&self, path: &str) -> Vec<FieldError> {
        let mut faults = Faults { path, found: Vec::new() };
        faults.choice::<Mode>("mode", self.mode.as_deref(), &Mode::SPELLINGS);
        for (field, name) in [
            ("podDefaultCniNic", &self.pod_default_cni_nic),
            ("podDefaultRouteNIC", &self.pod_default_route_nic),
        ] {
            let name = name.as_deref().filter(|name| !name.is_empty());
            faults.value(field, name, "must be the name of an interface", |name| parse_nic("", name).is_ok());
        }
        for (field, cidrs) in [
            ("overlayPodCIDR", &self.overlay_pod_cidr),
            ("serviceCIDR", &self.service_cidr),
            ("hijackCIDR", &self.hijack_cidr),
        ] {
            for (index, cidr) in cidrs.iter().flatten().enumerate() {
                faults.value(&format!("{field}[{index}]"), Some(cidr.as_str()), CIDR, |cidr| {
                    parse_net(cidr).is_some()
                });
            }
        }
        for (index, route) in self.policy_routes.iter().flatten().enumerate() {
            faults.route(&format!("policyRoutes[{index}]"), route);
        }
        let prefix = self.pod_mac_prefix.as_deref().filter(|prefix| !prefix.is_empty());
        let detail = "must be two hex bytes of a unicast address joined by ':', like 0a:1b";
        faults.value("podMACPrefix", prefix, detail, |prefix| prefix.parse::<MacPrefix>().is_ok());
        faults
            .number("vethMTU", self.veth_mtu, "must be from 68 to 65535", |mtu| parse_mtu(Some(mtu)).is_ok());
        let address = self.veth_link_address.as_deref().filter(|address| !address.is_empty());
        faults.value("vethLinkAddress", address, "must be an IPv4 address", |address| {
            parse_link_address(address).is_ok()
        });
        let detail = "must be 0, 1, 2, or negative to leave it alone";
        faults
            .number("podRPFilter", self.pod_rp_filter, detail, |value| parse_rp_filter(Some(value)).is_ok());
        if self.is_strict_with_programs() {
            faults.push("podRPFilter", 1, STRICT_WITH_PROGRAMS);
        }
        faults.number(
            "txQueueLen",
            self.tx_queue_len,
            "must not be negative, nor above 4294967295",
            |length| parse_tx_queue_len(Some(length)).is_ok(),
        );
        // 0 is not set, as Go writes it.
        let table = self.host_rule_table.filter(|table| *table != 0);
        let detail = "must be from 1 to 252, or from 256 on: the others are the kernel's own";
        faults.number("hostRuleTable", table, detail, |table| parse_table(Some(table)).is_ok());
        faults.choice::<Dataplane>("dataplane", self.dataplane.as_deref(), &Dataplane::SPELLINGS);
        let hints = self.ebpf.as_ref().and_then(|ebpf| ebpf.route_hints.as_deref());
        faults.choice::<RouteHints>("ebpf.routeHints", hints, &RouteHints::SPELLINGS);
        let callers = self.ebpf.as_ref().and_then(|ebpf| ebpf.node_link.as_deref());
        faults.choice::<NodeLinkCallers>("ebpf.nodeLink", callers, &NodeLinkCallers::SPELLINGS);
        faults.found
    }
}

/// What was found in the settings at `path`.
struct Faults<'a> {
    path: &'a str,
    found: Vec<FieldError>,
}

impl Faults<'_> {
    fn push(&mut self, field: &str, value: impl std::fmt::Display, detail: &str) {
        self.found.push(FieldError::invalid(format!("{}.{field}", self.path), value, detail));
    }

    fn value(&mut self, field: &str, value: Option<&str>, detail: &str, is_valid: impl Fn(&str) -> bool) {
        if let Some(value) = value.filter(|value| !is_valid(value)) {
            self.push(field, value, detail);
        }
    }

    fn number(&mut self, field: &str, value: Option<i64>, detail: &str, is_valid: impl Fn(i64) -> bool) {
        if let Some(value) = value.filter(|value| !is_valid(*value)) {
            self.push(field, value, detail);
        }
    }

    fn choice<T: FromStr>(&mut self, field: &str, value: Option<&str>, spellings: &[&str]) {
        let value = value.filter(|value| !value.is_empty());
        if let Some(value) = value.filter(|value| value.parse::<T>().is_err()) {
            self.found.push(FieldError::not_supported(format!("{}.{field}", self.path), value, spellings));
        }
    }

    fn route(&mut self, field: &str, route: &PolicyRouteText) {
        let (dst, gw) = (parse_net(&route.dst), route.gw.trim().parse::<IpAddr>().ok());
        if dst.is_none() {
            self.push(&format!("{field}.dst"), &route.dst, CIDR);
        }
        match (dst, gw) {
            (_, None) => self.push(&format!("{field}.gw"), &route.gw, "must be an address"),
            (Some(dst), Some(gw)) if Family::of_net(&dst) != Family::of(gw) => {
                self.push(&format!("{field}.gw"), &route.gw, "must be of the same family as dst");
            }
            (_, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::settings::EbpfSettings;

    fn text(value: &str) -> String {
        value.to_owned()
    }

    fn route(dst: &str, gw: &str) -> PolicyRouteText {
        PolicyRouteText { dst: dst.to_owned(), gw: gw.to_owned() }
    }

    #[test]
    fn every_fault_is_found_by_its_name_in_yaml() {
        let settings = Settings {
            mode: Some(text("underly")),
            pod_default_route_nic: Some(text("a/b")),
            hijack_cidr: Some(vec!["10.0.0.0/8".into(), "10.0.0.0/33".into()]),
            policy_routes: Some(vec![route("x", "y"), route("10.0.0.0/8", "fd00::1")]),
            pod_mac_prefix: Some(text("01:00")),
            veth_mtu: Some(1),
            veth_link_address: Some(text("10.0.0.1/32")),
            pod_rp_filter: Some(3),
            tx_queue_len: Some(-1),
            host_rule_table: Some(254),
            dataplane: Some(text("iptables")),
            ebpf: Some(EbpfSettings { route_hints: Some(text("x")), node_link: Some(text("x")) }),
            ..Settings::default()
        };
        let found: Vec<_> = settings.field_errors("spec").iter().map(ToString::to_string).collect();
        let fields: Vec<_> = found.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        assert_eq!(
            fields,
            [
                "spec.mode",
                "spec.podDefaultRouteNIC",
                "spec.hijackCIDR[1]",
                "spec.policyRoutes[0].dst",
                "spec.policyRoutes[0].gw",
                "spec.policyRoutes[1].gw",
                "spec.podMACPrefix",
                "spec.vethMTU",
                "spec.vethLinkAddress",
                "spec.podRPFilter",
                "spec.txQueueLen",
                "spec.hostRuleTable",
                "spec.dataplane",
                "spec.ebpf.routeHints",
                "spec.ebpf.nodeLink",
            ]
        );
        assert_eq!(
            found[0],
            "spec.mode: Unsupported value: \"underly\": supported values: \"auto\", \"underlay\", \"overlay\", \
             \"disabled\", \"disable\""
        );
        assert_eq!(
            found[2],
            "spec.hijackCIDR[1]: Invalid value: \"10.0.0.0/33\": must be a CIDR or an address, like 10.96.0.0/12 or \
             fd00::1"
        );
    }

    #[test]
    fn the_defaults_have_no_fault() {
        assert_eq!(Settings::defaults().field_errors("spec"), []);
        assert_eq!(Settings::default().field_errors("spec"), []);
    }
}
