//! Specs that the schema lets through and that make no sense: what is in the API server where the webhooks were away.

use serde_json::{Value, json};

/// Names and specs of pools, and what is said of each.
pub(crate) fn pools() -> Vec<(&'static str, Value, &'static str)> {
    let of = |field: &str, value: Value| {
        let mut spec = json!({"subnet": "10.61.0.0/16", "ips": ["10.61.0.2-10.61.0.9"]});
        spec[field] = value;
        spec
    };
    let reversed: Vec<_> =
        (0..10_000).map(|n| format!("10.61.{}.{}-10.61.{}.0", n / 250, n % 250 + 1, n / 250)).collect();
    vec![
        ("host-bits", of("subnet", json!("10.61.0.1/16")), "spec.subnet: unformatted subnet 10.61.0.1/16"),
        ("no-net", of("subnet", json!("::::/64")), "spec.subnet: \"::::/64\" is not a network in CIDR form"),
        ("version", of("ipVersion", json!(6)), "spec.ipVersion: 6 is not the version of spec.subnet"),
        ("outside", of("ips", json!(["10.62.0.1"])), "spec.ips[0]: 10.62.0.1 is not inside of spec.subnet"),
        ("family", of("ips", json!(["fd61::1-fd61::9"])), "spec.ips[0]: "),
        ("no-range", of("ips", json!(["1:2:.3"])), "spec.ips[0]: "),
        ("reversed", of("ips", json!(["10.61.0.9-10.61.0.2"])), "spec.ips[0]: "),
        ("many", of("ips", json!(reversed)), ", and 9980 more]"),
        ("excluded", of("excludeIPs", json!(["10.61.0.9-10.61.0.2"])), "spec.excludeIPs[0]: "),
        ("far-gateway", of("gateway", json!("10.62.0.1")), "spec.gateway: 10.62.0.1 is not an address of"),
        ("given-gateway", of("gateway", json!("10.61.0.3")), "spec.gateway: 10.61.0.3 is one of spec.ips"),
        ("v6-gateway", of("gateway", json!("fd61::1")), "spec.gateway: fd61::1 is not an address of"),
        ("route", of("routes", json!([{"dst": "x", "gw": "y"}])), "spec.routes[0]: "),
        ("mixed", of("routes", json!([{"dst": "fd00::/8", "gw": "10.61.0.1"}])), "spec.routes[0]: "),
        ("key", of("podAffinity", json!({"matchLabels": {"a/b/c": "d"}})), "spec.podAffinity.matchLabels"),
        (
            "operator",
            of("nodeAffinity", json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})),
            "spec.nodeAffinity.matchExpressions[0].operator: \"Like\" is not a selector operator",
        ),
    ]
}

/// Those that mean the same of a subnet: all but those with selectors, which it has not.
pub(crate) fn subnets() -> Vec<(&'static str, Value)> {
    let is_subnets = |spec: &Value| spec.get("podAffinity").is_none() && spec.get("nodeAffinity").is_none();
    pools().into_iter().map(|(name, spec, _)| (name, spec)).filter(|(_, spec)| is_subnets(spec)).collect()
}

/// Names, annotations and specs of networks, and what is said of each.
pub(crate) fn networks() -> Vec<(&'static str, Value, Value, &'static str)> {
    let macvlan = |field: &str, value: Value| {
        let mut spec = json!({"cniType": "macvlan", "macvlan": {"master": ["ens192"]}});
        spec[field] = value;
        spec
    };
    let annotated = |key: &str, value: &str| json!({(format!("multus.spidernet.io/{key}")): value});
    let none = json!({});
    vec![
        ("chained", none.clone(), macvlan("chainCNIJsonData", json!(["{"])), "spec.chainCNIJsonData[0]"),
        (
            "hijacked",
            none.clone(),
            macvlan("coordinator", json!({"hijackCIDR": ["x"], "podMACPrefix": "01:00"})),
            "spec.coordinator.hijackCIDR[0]",
        ),
        ("custom", none, json!({"cniType": "custom", "customCNI": "{"}), "spec.customCNI"),
        (
            "versioned",
            annotated("cni-version", "9"),
            macvlan("enableCoordinator", json!(true)),
            "metadata.annotations[multus.spidernet.io/cni-version]",
        ),
        (
            "named",
            annotated("cr-name", "Not/A.Name"),
            macvlan("enableCoordinator", json!(true)),
            "metadata.annotations[multus.spidernet.io/cr-name]",
        ),
    ]
}
