//! What is wrong with settings as the fields of an object, all at once; [`Settings::resolve`] ends at the first.

use std::net::IpAddr;

use super::settings::Settings;
use super::values::{parse_mtu, parse_net, parse_nic, parse_rp_filter, parse_tx_queue_len};
use super::{Dataplane, MacPrefix, Mode, RouteHints};
use crate::field_error::FieldError;

impl Settings {
    /// All that is wrong with the fields below `path`. What is not set is not asked for.
    pub fn field_errors(&self, path: &str) -> Vec<FieldError> {
        let at = |field: &str| format!("{path}.{field}");
        let mut errors = self.word_errors(path);
        let nic = set(self.pod_default_route_nic.as_ref());
        if let Some(name) = nic.filter(|name| parse_nic("", name).is_err()) {
            let detail =
                "a network interface name has 1 to 15 characters, none of them '/', ':' or white space";
            errors.push(FieldError::invalid(at("podDefaultRouteNIC"), name, detail));
        }
        for (index, text) in self.hijack_cidr.iter().flatten().enumerate() {
            if parse_net(text).is_none() {
                let detail = "must be a CIDR or an address, like 169.254.0.0/16 or fd00::10";
                errors.push(FieldError::invalid(at(&format!("hijackCIDR[{index}]")), text, detail));
            }
        }
        for (index, route) in self.policy_routes.iter().flatten().enumerate() {
            if route.parse().is_err() {
                let value = format!("dst {:?} gw {:?}", route.dst, route.gw);
                let detail = "dst must be a CIDR or an address, and gw an address of the same family";
                errors.push(FieldError::invalid(at(&format!("policyRoutes[{index}]")), value, detail));
            }
        }
        if let Some(text) =
            set(self.pod_mac_prefix.as_ref()).filter(|text| text.parse::<MacPrefix>().is_err())
        {
            let detail = "must be two hex bytes of a unicast address joined by ':', like 0a:1b";
            errors.push(FieldError::invalid(at("podMACPrefix"), text, detail));
        }
        if let Some(text) =
            set(self.veth_link_address.as_ref()).filter(|text| text.parse::<IpAddr>().is_err())
        {
            errors.push(FieldError::invalid(at("vethLinkAddress"), text, "must be an address, or empty"));
        }
        errors.extend(self.number_errors(path));
        errors
    }

    fn word_errors(&self, path: &str) -> Vec<FieldError> {
        let hints = self.ebpf.as_ref().and_then(|ebpf| set(ebpf.route_hints.as_ref()));
        let words = [
            ("mode", set(self.mode.as_ref()), &Mode::SPELLINGS[..]),
            ("dataplane", set(self.dataplane.as_ref()), &Dataplane::SPELLINGS[..]),
            ("ebpf.routeHints", hints, &RouteHints::SPELLINGS[..]),
        ];
        let error = |(field, word, words): (&str, Option<&str>, &[&str])| {
            let word = word.filter(|word| !words.contains(word))?;
            Some(FieldError::not_supported(format!("{path}.{field}"), word, words))
        };
        words.into_iter().filter_map(error).collect()
    }

    fn number_errors(&self, path: &str) -> Vec<FieldError> {
        let numbers = [
            (
                "vethMTU",
                self.veth_mtu.filter(|mtu| parse_mtu(Some(*mtu)).is_err()),
                "must be from 68 to 65535",
            ),
            (
                "podRPFilter",
                self.pod_rp_filter.filter(|value| parse_rp_filter(Some(*value)).is_err()),
                "must be 0, 1, 2, or negative to leave it alone",
            ),
            (
                "txQueueLen",
                self.tx_queue_len.filter(|length| parse_tx_queue_len(Some(*length)).is_err()),
                "must not be negative",
            ),
        ];
        let error = |(field, wrong, detail): (&str, Option<i64>, &str)| {
            wrong.map(|value| FieldError::invalid(format!("{path}.{field}"), value, detail))
        };
        numbers.into_iter().filter_map(error).collect()
    }
}

/// An empty text sets nothing.
fn set(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_json::from_go_json;

    fn paths(json: &str) -> Vec<String> {
        let settings: Settings = from_go_json(json).unwrap();
        settings.field_errors("spec").into_iter().map(|error| error.path).collect()
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let json = r#"{"mode":"tuned","hijackCIDR":["10.0.0.0/8","x"],"policyRoutes":[{"dst":"1.2.3.0/24","gw":"fd00::1"}],
            "podMACPrefix":"01:00","vethLinkAddress":"x","vethMTU":67,"podRPFilter":3,"txQueueLen":-1,
            "podDefaultRouteNic":"a/b","dataplane":"iptables","ebpf":{"routeHints":"on"}}"#;
        assert_eq!(
            paths(json),
            [
                "spec.mode",
                "spec.dataplane",
                "spec.ebpf.routeHints",
                "spec.podDefaultRouteNIC",
                "spec.hijackCIDR[1]",
                "spec.policyRoutes[0]",
                "spec.podMACPrefix",
                "spec.vethLinkAddress",
                "spec.vethMTU",
                "spec.podRPFilter",
                "spec.txQueueLen",
            ]
        );
    }

    #[test]
    fn what_is_empty_or_not_set_is_right() {
        assert!(paths("{}").is_empty());
        assert!(
            paths(r#"{"mode":"","hijackCIDR":[],"podMACPrefix":"","vethLinkAddress":"","podRPFilter":-1}"#)
                .is_empty()
        );
    }
}
