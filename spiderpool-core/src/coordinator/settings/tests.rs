//! What the layers say, which wins, and what is refused.

use super::*;
use crate::go_json::from_go_json;

fn settings(json: &str) -> Settings {
    from_go_json(json).unwrap()
}

fn resolve(network: Settings) -> Result<Config, SettingsError> {
    Settings::resolve(network, Settings::default())
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[track_caller]
fn check_error(json: &str, part: &str) {
    let error = resolve(settings(json)).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn the_networks_configuration_wins() {
    let own = settings(
        r#"{"mode":"overlay","podDefaultRouteNic":"net1","serviceCIDR":["10.233.0.0/18"],"tunePodRoutes":false,
            "hostRuleTable":500,"podRPFilter":2}"#,
    );
    let agent = Settings {
        mode: Some("auto".into()),
        pod_default_route_nic: Some("eth0".into()),
        overlay_pod_cidr: Some(list(&["10.233.64.0/18"])),
        service_cidr: Some(list(&["10.96.0.0/12"])),
        hijack_cidr: Some(list(&["169.254.0.0/16"])),
        tune_pod_routes: Some(true),
        pod_rp_filter: Some(0),
        veth_mtu: Some(0),
        dataplane: Some("ebpf".into()),
        ..Settings::default()
    };
    let config = Settings::resolve(own, agent.clone()).unwrap();
    assert_eq!(config.mode, Mode::Overlay);
    assert_eq!(config.default_route_nic.unwrap().as_str(), "net1");
    let cidrs: Vec<_> = config.cluster_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["10.233.64.0/18", "10.233.0.0/18", "169.254.0.0/16"]);
    assert_eq!(config.own_cidrs.service, Some(["10.233.0.0/18".parse().unwrap()].into()));
    assert_eq!((&config.own_cidrs.pod, &config.own_cidrs.hijack), (&None, &None));
    assert!(!config.tune_pod_routes && config.route_hints == RouteHints::Auto);
    assert_eq!((config.rp_filter, config.mtu, config.dataplane), (Some(2), 1500, Dataplane::Ebpf));

    let config = Settings::resolve(Settings::default(), agent).unwrap();
    assert_eq!((config.mode, config.tune_pod_routes), (Mode::Auto, true));
    assert_eq!(config.own_cidrs, OwnCidrs::default());
    assert_eq!(config.rp_filter, Some(0));
}

/// Upstream's NetworkAttachmentDefinitions always say `mode: auto`, and SpiderCoordinator's mode never counts.
#[test]
fn a_network_that_says_auto_takes_the_clusters_mode() {
    let generated =
        || settings(r#"{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}"#);
    for (cluster, mode) in [("overlay", Mode::Overlay), ("disabled", Mode::Disabled), ("auto", Mode::Auto)] {
        let agent = Settings { mode: Some(cluster.into()), tx_queue_len: Some(1000), ..Settings::default() };
        let config = Settings::resolve(generated(), agent).unwrap();
        assert_eq!((config.mode, config.tx_queue_len), (mode, Some(1000)));
    }
    let config = resolve(generated()).unwrap();
    assert_eq!((config.mode, config.tx_queue_len), (Mode::Auto, None));
    let own = Settings { mode: Some("overlay".into()), ..Settings::default() };
    let agent = Settings { mode: Some("disabled".into()), ..Settings::default() };
    assert_eq!(Settings::resolve(own, agent).unwrap().mode, Mode::Overlay);
}

/// A SpiderMultusConfig without a block has `tunePodRoutes: true` in its text.
#[test]
fn a_network_without_a_block_takes_the_clusters_tune_pod_routes() {
    let cluster = || Settings { tune_pod_routes: Some(false), ..Settings::default() };
    let tunes = |network: &str| Settings::resolve(settings(network), cluster()).unwrap().tune_pod_routes;
    assert!(!tunes(r#"{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}"#));
    assert!(!tunes(r#"{"type":"coordinator"}"#));
    assert!(tunes(r#"{"tunePodRoutes":true,"type":"coordinator"}"#), "it is the network's own");
    assert!(tunes(r#"{"txQueueLen":0,"tunePodRoutes":true,"mode":"overlay","type":"coordinator"}"#));
}

#[test]
fn an_agent_that_does_not_know_dataplanes_means_policy() {
    let config = resolve(Settings::default()).unwrap();
    assert_eq!((config.dataplane, config.first_nic.as_str()), (Dataplane::Policy, "eth0"));
}

/// An agent whose node cannot load programs answers policy.
#[test]
fn a_network_does_not_ask_for_programs_where_there_are_none() {
    let dataplane = |network: &str, cluster: &str| {
        let of = |text: &str| Settings { dataplane: Some(text.into()), ..Settings::default() };
        Settings::resolve(of(network), of(cluster)).map(|config| config.dataplane)
    };
    assert_eq!(dataplane("ebpf", "policy"), Ok(Dataplane::Policy));
    assert_eq!(dataplane("policy", "ebpf"), Ok(Dataplane::Policy));
    assert_eq!(dataplane("ebpf", "ebpf"), Ok(Dataplane::Ebpf));
    assert!(dataplane("iptables", "policy").is_err());
}

/// Upstream's webhook turns single addresses into networks for SpiderCoordinator only, and ADD then failed.
#[test]
fn hijack_cidrs_may_be_single_addresses() {
    let config = resolve(settings(r#"{"hijackCIDR":["169.254.20.10"," fd00::a "]}"#)).unwrap();
    let cidrs: Vec<_> = config.cluster_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(cidrs, ["169.254.20.10/32", "fd00::a/128"]);
}

/// Upstream writes -2 to the kernel.
#[test]
fn a_negative_rp_filter_leaves_it_alone() {
    for value in [-1, -2, -100] {
        let own = Settings { pod_rp_filter: Some(value), ..Settings::default() };
        assert_eq!(resolve(own).unwrap().rp_filter, None);
    }
}

/// As SpiderCoordinator spells it, and as Go writes what is not set.
#[test]
fn fields_are_read_as_go_reads_them() {
    let read = settings(
        r#"{"podDefaultRouteNIC":"net1","PODMACPrefix":"0a:1b","mode":null,"hijackCIDR":null,"tunePodRoutes":null,
            "vethMTU":null,"ebpf":{"RouteHints":"never"},"policyRoutes":[{"Dst":"1.2.3.0/24","gw":null}]}"#,
    );
    let expect = Settings {
        pod_default_route_nic: Some("net1".into()),
        pod_mac_prefix: Some("0a:1b".into()),
        ebpf: Some(EbpfSettings { route_hints: Some("never".into()), ..EbpfSettings::default() }),
        policy_routes: Some(vec![PolicyRouteText { dst: "1.2.3.0/24".into(), gw: String::new() }]),
        ..Settings::default()
    };
    assert_eq!(read, expect);
    assert_eq!(settings(r#"{"ebpf":null,"policyRoutes":null,"dataplane":null}"#), Settings::default());
}

#[test]
fn wrong_values_are_named() {
    check_error(r#"{"mode":"Overlay"}"#, "mode \"Overlay\" is unknown");
    check_error(r#"{"dataplane":"iptables"}"#, "dataplane \"iptables\" is unknown");
    check_error(r#"{"ebpf":{"routeHints":"on"}}"#, "routeHints \"on\"");
    check_error(r#"{"ebpf":{"nodeLink":"pods"}}"#, "nodeLink \"pods\"");
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

/// Every setting: a field that `or` or the reader forgets would be missed here.
fn everything() -> Settings {
    Settings {
        mode: Some("overlay".into()),
        pod_default_cni_nic: Some("eth9".into()),
        pod_default_route_nic: Some("net9".into()),
        overlay_pod_cidr: Some(list(&["10.1.0.0/16"])),
        service_cidr: Some(list(&["10.2.0.0/16"])),
        hijack_cidr: Some(list(&["10.3.0.0/16"])),
        policy_routes: Some(vec![PolicyRouteText { dst: "10.4.0.0/16".into(), gw: "10.6.0.1".into() }]),
        tune_pod_routes: Some(false),
        pod_mac_prefix: Some("0a:1b".into()),
        veth_mtu: Some(1400),
        veth_link_address: Some("169.254.100.1".into()),
        pod_rp_filter: Some(2),
        tx_queue_len: Some(9),
        host_rule_table: Some(501),
        dataplane: Some("policy".into()),
        ebpf: Some(EbpfSettings { route_hints: Some("never".into()), node_link: Some("node".into()) }),
    }
}

#[test]
fn what_is_not_set_is_the_lower_layers() {
    assert_eq!(Settings::default().or(everything()), everything());
    assert_eq!(everything().or(Settings::defaults()), everything());
    let empty = settings(
        r#"{"mode":"","podDefaultCniNic":"","podDefaultRouteNIC":"","overlayPodCIDR":[],"serviceCIDR":[],
            "hijackCIDR":[],"policyRoutes":[],"podMACPrefix":"","vethLinkAddress":"","dataplane":"",
            "ebpf":{"routeHints":""}}"#,
    );
    assert_eq!(empty.or(everything()), everything());
    assert_eq!(resolve(Settings::default()), resolve(settings(r#"{"mode":"","ebpf":{"routeHints":""}}"#)));
}

#[test]
fn every_setting_is_read_in_any_case() {
    let json = serde_json::to_string(&everything()).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), everything());
    assert_eq!(settings(&json.to_ascii_lowercase()), everything());
}
