//! Upstream's texts, and a snapshot of each type with all that it can have.

use super::*;
use crate::coordinator::{PolicyRouteText, Settings};
use crate::multus::{
    Bond, IbSriovConfig, IpoibConfig, LinkState, MultusPools, OvsConfig, SriovConfig, Trunk, VlanConfig,
};

const COORDINATOR: &str = r#"{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}"#;

fn of(cni_type: CniType) -> MultusFields<'static> {
    MultusFields { name: "net", cni_type, enable_coordinator: true, ..MultusFields::default() }
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn text(fields: &MultusFields<'_>) -> String {
    render(fields).unwrap().unwrap()
}

/// The plugins of the configuration, as upstream writes them.
#[track_caller]
fn check(fields: &MultusFields<'_>, plugins: &str) {
    assert_eq!(text(fields), format!(r#"{{"cniVersion":"0.3.1","name":"net","plugins":[{plugins}]}}"#));
}

fn nic(masters: &[&str]) -> VlanNicConfig {
    VlanNicConfig { master: list(masters), ..VlanNicConfig::default() }
}

#[test]
fn the_seeds_macvlan() {
    let pools = MultusPools { ipv4: list(&["10-6-v4"]), ..MultusPools::default() };
    let macvlan = VlanNicConfig { vlan_id: Some(0), ippools: Some(pools), ..nic(&["ens192"]) };
    let fields = MultusFields { name: "macvlan-ens192", macvlan: Some(&macvlan), ..of(CniType::Macvlan) };
    assert_eq!(
        text(&fields),
        r#"{"cniVersion":"0.3.1","name":"macvlan-ens192","plugins":[{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool","default_ipv4_ippool":["10-6-v4"]}},{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}]}"#
    );
}

#[test]
fn a_bond_with_a_vlan() {
    let bond = Bond { name: "bond0".into(), mode: 1, options: None };
    let macvlan = VlanNicConfig { vlan_id: Some(100), bond: Some(bond), ..nic(&["ens192", "ens224"]) };
    let fields = MultusFields { macvlan: Some(&macvlan), ..of(CniType::Macvlan) };
    let ifacer = r#"{"vlanID":100,"type":"ifacer","interfaces":["ens192","ens224"],"bond":{"name":"bond0","mode":1,"options":""}}"#;
    let main =
        r#"{"type":"macvlan","master":"bond0.100","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{ifacer},{main},{COORDINATOR}"));

    let vlan = VlanConfig {
        master: macvlan.master.clone(),
        bond: macvlan.bond.clone(),
        vlan_id: Some(7),
        ..VlanConfig::default()
    };
    let fields = MultusFields { vlan: Some(&vlan), ..of(CniType::Vlan) };
    let ifacer =
        r#"{"type":"ifacer","interfaces":["ens192","ens224"],"bond":{"name":"bond0","mode":1,"options":""}}"#;
    let main = r#"{"type":"vlan","master":"bond0","vlanMode":"manual","vlanId":7,"mtu":0,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{ifacer},{main},{COORDINATOR}"));
}

#[test]
fn sriov_with_rdma_and_an_mtu() {
    let sriov = SriovConfig {
        resource_name: Some("spidernet.io/sriov_netdevice".into()),
        rdma_isolation: true,
        mtu: 9000,
        ..SriovConfig::default()
    };
    let fields = MultusFields { sriov: Some(&sriov), ..of(CniType::Sriov) };
    let main = r#"{"vlan":0,"min_tx_rate":0,"max_tx_rate":0,"type":"sriov","ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!(r#"{main},{{"type":"rdma"}},{COORDINATOR},{{"type":"tuning","mtu":9000}}"#));
}

#[test]
fn ib_sriov_ovs_and_vlan() {
    let ibsriov = IbSriovConfig::default();
    let fields = MultusFields { ibsriov: Some(&ibsriov), ..of(CniType::IbSriov) };
    let main = r#"{"type":"ib-sriov","pkey":"","link_state":"enable","rdmaIsolation":true,"ibKubernetesEnabled":false,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{main},{COORDINATOR}"));

    let ovs = OvsConfig { bridge: "br1".into(), vlan: Some(10), ..OvsConfig::default() };
    let fields = MultusFields { ovs: Some(&ovs), ..of(CniType::Ovs) };
    let main = r#"{"vlan":10,"type":"ovs","bridge":"br1","ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{main},{COORDINATOR}"));

    let vlan = VlanConfig { master: list(&["ens192"]), vlan_id: Some(100), ..VlanConfig::default() };
    let fields = MultusFields { vlan: Some(&vlan), ..of(CniType::Vlan) };
    let main = r#"{"type":"vlan","master":"ens192","vlanMode":"manual","vlanId":100,"mtu":0,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{main},{COORDINATOR}"));
    let unnumbered = VlanConfig { vlan_id: None, ..vlan.clone() };
    let fields = MultusFields { vlan: Some(&unnumbered), ..of(CniType::Vlan) };
    let main = r#"{"type":"vlan","master":"ens192","vlanMode":"manual","vlanId":0,"mtu":0,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{main},{COORDINATOR}"));
    let auto = VlanConfig { vlan_mode: VlanMode::Auto, vlan_id: None, ..vlan };
    let fields = MultusFields { vlan: Some(&auto), ..of(CniType::Vlan) };
    let main = r#"{"type":"vlan","master":"ens192","vlanMode":"auto","mtu":0,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{main},{COORDINATOR}"));
}

#[test]
fn without_a_coordinator_it_is_a_list_all_the_same() {
    let ipvlan = nic(&["ens192"]);
    let fields = MultusFields {
        ipvlan: Some(&ipvlan),
        enable_coordinator: false,
        disable_ipam: true,
        ..of(CniType::Ipvlan)
    };
    check(&fields, r#"{"type":"ipvlan","master":"ens192","mtu":0}"#);
}

#[test]
fn chained_plugins_come_before_the_coordinator_with_their_keys_sorted() {
    let macvlan = nic(&["ens192"]);
    let chain = list(&[r#"{ "type": "tuning", "sysctl": {"b": "1", "a": "2"}, "mtu": 1400 }"#]);
    let fields = MultusFields { macvlan: Some(&macvlan), chain: &chain, ..of(CniType::Macvlan) };
    let main = r#"{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}"#;
    let tuning = r#"{"mtu":1400,"sysctl":{"a":"2","b":"1"},"type":"tuning"}"#;
    check(&fields, &format!("{main},{tuning},{COORDINATOR}"));
}

#[track_caller]
fn check_block(block: &Settings, plugin: &str) {
    let macvlan = nic(&["ens192"]);
    let fields = MultusFields { macvlan: Some(&macvlan), coordinator: Some(block), ..of(CniType::Macvlan) };
    let main = r#"{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool"}}"#;
    check(&fields, &format!("{main},{plugin}"));
}

/// Upstream fills its defaults into each block, and writes podRPFilter only beside podCIDRType and hostRuleTable never.
#[test]
fn a_coordinator_block_is_written_as_it_is() {
    check_block(&Settings::default(), r#"{"type":"coordinator"}"#);
    let empty = Settings {
        mode: Some(String::new()),
        hijack_cidr: Some(Vec::new()),
        pod_mac_prefix: Some(String::new()),
        ..Settings::default()
    };
    check_block(&empty, r#"{"type":"coordinator"}"#);
    let overlay = Settings { mode: Some("overlay".into()), pod_rp_filter: Some(0), ..Settings::default() };
    check_block(&overlay, r#"{"mode":"overlay","type":"coordinator","podRPFilter":0}"#);
    let full = Settings {
        tx_queue_len: Some(1000),
        veth_link_address: Some("169.254.100.1".into()),
        veth_mtu: Some(1400),
        tune_pod_routes: Some(false),
        pod_mac_prefix: Some("0a:1b".into()),
        mode: Some("auto".into()),
        pod_default_route_nic: Some("net1".into()),
        pod_rp_filter: Some(2),
        host_rule_table: Some(501),
        hijack_cidr: Some(list(&["10.3.0.0/16"])),
        policy_routes: Some(vec![PolicyRouteText { dst: "10.4.0.0/16".into(), gw: "10.6.0.1".into() }]),
        ..Settings::default()
    };
    check_block(
        &full,
        r#"{"txQueueLen":1000,"vethLinkAddress":"169.254.100.1","vethMTU":1400,"tunePodRoutes":false,"podMACPrefix":"0a:1b","mode":"auto","type":"coordinator","podDefaultRouteNic":"net1","podRPFilter":2,"hostRuleTable":501,"hijackCIDR":["10.3.0.0/16"],"policyRoutes":[{"dst":"10.4.0.0/16","gw":"10.6.0.1"}]}"#,
    );
}

/// Upstream's webhook and definition fill all of these in, and its text has three of them.
#[test]
fn a_block_that_upstream_has_filled_in_is_none() {
    let filled_in = Settings {
        mode: Some("auto".into()),
        hijack_cidr: Some(Vec::new()),
        policy_routes: Some(Vec::new()),
        veth_link_address: Some(String::new()),
        pod_mac_prefix: Some(String::new()),
        pod_default_route_nic: Some(String::new()),
        pod_rp_filter: Some(0),
        tune_pod_routes: Some(true),
        host_rule_table: Some(500),
        tx_queue_len: Some(0),
        ..Settings::default()
    };
    check_block(&filled_in, COORDINATOR);
    let own = Settings { pod_rp_filter: Some(2), ..filled_in };
    check_block(
        &own,
        r#"{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator","podRPFilter":2,"hostRuleTable":500}"#,
    );
}

#[test]
fn a_custom_configuration_is_copied() {
    let custom = " {\"type\": \"bridge\"}\n";
    let fields = MultusFields { custom: Some(custom), ..of(CniType::Custom) };
    assert_eq!(text(&fields), custom);
    for empty in [None, Some(""), Some(" ")] {
        let fields = MultusFields { custom: empty, ..of(CniType::Custom) };
        assert_eq!(render(&fields).unwrap(), None);
    }
}

#[test]
fn annotations_give_name_and_version() {
    let macvlan = nic(&["ens192"]);
    let head = |pairs: &[(&str, &str)]| {
        let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let annotations = Some(&annotations);
        let fields = MultusFields { annotations, macvlan: Some(&macvlan), ..of(CniType::Macvlan) };
        text(&fields).split(r#","plugins""#).next().unwrap().to_owned()
    };
    let pairs = [
        ("multus.spidernet.io/cr-name", "attachment"),
        ("multus.spidernet.io/cni-version", "1.0.0"),
        ("cni.spidernet.io/cniconfig-name", "config"),
    ];
    assert_eq!(head(&pairs), r#"{"cniVersion":"1.0.0","name":"config""#);
    assert_eq!(head(&pairs[..2]), r#"{"cniVersion":"1.0.0","name":"attachment""#);
    assert_eq!(head(&[]), r#"{"cniVersion":"0.3.1","name":"net""#);
}

/// Every member of every type.
#[test]
fn all_types_with_all_that_they_can_have() {
    let pools =
        || Some(MultusPools { ipv4: list(&["a", "b"]), ipv6: list(&["c"]), match_master_subnet: true });
    let nic = VlanNicConfig { mtu: 1400, vlan_id: Some(3), ippools: pools(), ..nic(&["ens192"]) };
    let vlan = VlanConfig {
        master: list(&["ens192"]),
        mtu: 1400,
        vlan_id: Some(3),
        ippools: pools(),
        ..VlanConfig::default()
    };
    let sriov = SriovConfig {
        vlan_id: Some(3),
        min_tx_rate_mbps: Some(10),
        max_tx_rate_mbps: Some(20),
        ippools: pools(),
        ..SriovConfig::default()
    };
    let ibsriov = IbSriovConfig {
        pkey: Some("0x1".into()),
        link_state: LinkState::Auto,
        rdma_isolation: false,
        enable_ib_kubernetes: true,
        ippools: pools(),
        ..IbSriovConfig::default()
    };
    let ipoib = IpoibConfig { master: Some("ib0".into()), ippools: pools() };
    let trunk = |min_id, max_id, id| Trunk { min_id, max_id, id };
    let ovs = OvsConfig {
        bridge: "br1".into(),
        vlan: Some(3),
        trunk: vec![trunk(Some(1), Some(9), None), trunk(None, None, Some(11))],
        device_id: Some("0000:3b:02.1".into()),
        ippools: pools(),
    };
    let fields = |cni_type| MultusFields { enable_coordinator: false, ..of(cni_type) };
    let all = [
        MultusFields { macvlan: Some(&nic), ..fields(CniType::Macvlan) },
        MultusFields { ipvlan: Some(&nic), ..fields(CniType::Ipvlan) },
        MultusFields { vlan: Some(&vlan), ..fields(CniType::Vlan) },
        MultusFields { sriov: Some(&sriov), ..fields(CniType::Sriov) },
        MultusFields { ibsriov: Some(&ibsriov), ..fields(CniType::IbSriov) },
        MultusFields { ipoib: Some(&ipoib), ..fields(CniType::Ipoib) },
        MultusFields { ovs: Some(&ovs), ..fields(CniType::Ovs) },
    ];
    let lines: Vec<_> = all.iter().map(|fields| format!("{}: {}", fields.cni_type, text(fields))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
