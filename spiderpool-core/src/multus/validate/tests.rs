//! What is refused, by field, and that all of it is said at once.

use std::collections::BTreeMap;

use super::*;
use crate::coordinator::Settings;
use crate::multus::annotations::{
    CNI_CONFIG_NAME, CNI_VERSION, NETWORK_RESOURCE_INJECT, RDMA_RESOURCE_INJECT,
};
use crate::multus::{
    Bond, IbSriovConfig, IpoibConfig, MultusPools, OvsConfig, SriovConfig, Trunk, VlanConfig, VlanMode,
    VlanNicConfig,
};

fn of(cni_type: CniType) -> MultusFields<'static> {
    MultusFields { name: "net", cni_type, enable_coordinator: true, ..MultusFields::default() }
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn nic(masters: &[&str]) -> VlanNicConfig {
    VlanNicConfig { master: list(masters), ..VlanNicConfig::default() }
}

#[track_caller]
fn check(fields: &MultusFields<'_>, expect: &[&str]) {
    let texts: Vec<_> = validate(fields).iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), expect.len(), "{texts:#?}");
    for (text, part) in texts.iter().zip(expect) {
        assert!(text.starts_with(part) || text.contains(&format!(": {part}")), "{part}: {text}");
    }
}

#[track_caller]
fn check_macvlan(config: &VlanNicConfig, expect: &[&str]) {
    check(&MultusFields { macvlan: Some(config), ..of(CniType::Macvlan) }, expect);
}

#[test]
fn the_block_of_the_type_and_no_other() {
    let (macvlan, ipoib) = (nic(&["a"]), IpoibConfig::default());
    check(&of(CniType::Custom), &[]);
    check(
        &MultusFields { ipoib: Some(&ipoib), custom: Some("{}"), ..of(CniType::Macvlan) },
        &[
            "spec.macvlan: Required value: cniType macvlan needs it",
            "spec.ipoib: Forbidden: cniType is macvlan",
            "spec.customCNI: Forbidden: cniType is macvlan",
        ],
    );
    check(
        &MultusFields { macvlan: Some(&macvlan), ..of(CniType::Custom) },
        &["spec.macvlan: Forbidden: cniType is custom"],
    );
}

#[test]
fn masters_are_interfaces_and_several_need_a_bond() {
    check_macvlan(&nic(&["ens192"]), &[]);
    check_macvlan(&nic(&[]), &["spec.macvlan.master: Required value"]);
    check_macvlan(&nic(&["a/b"]), &["spec.macvlan.master[0]: Invalid value: \"a/b\""]);
    check_macvlan(
        &nic(&["a", "a"]),
        &["spec.macvlan.master[1]: Duplicate value", "spec.macvlan.bond: Required value"],
    );
    let bond = |name: &str, mode, options: &str| {
        let bond = Bond { name: name.to_owned(), mode, options: Some(options.to_owned()) };
        VlanNicConfig { bond: Some(bond), ..nic(&["a", "b"]) }
    };
    check_macvlan(&bond("bond0", 1, "miimon=100;primary=b"), &[]);
    check_macvlan(
        &bond("", 7, "x"),
        &["spec.macvlan.bond.name: Invalid", "spec.macvlan.bond.mode: Invalid value: \"7\""],
    );
    check_macvlan(
        &bond("b", 4, "primary=a"),
        &[
            "spec.macvlan.bond.name: Invalid value: \"b\": it is one of the masters",
            "spec.macvlan.bond.options: Invalid value: \"primary=a\": primary does not work in mode 4 (802.3ad)",
        ],
    );
    // One master is none of a bond.
    check_macvlan(&VlanNicConfig { master: list(&["a"]), ..bond("", 7, "x") }, &[]);
}

#[test]
fn vlans_on_masters_have_numbers_and_names() {
    let with = |vlan_id| VlanNicConfig { vlan_id: Some(vlan_id), ..nic(&["a"]) };
    check_macvlan(&with(0), &[]);
    check_macvlan(&with(4095), &["spec.macvlan.vlanID: Invalid value: \"4095\": must be from 0 to 4094"]);
    check_macvlan(&with(100), &[]);
    let ipvlan = VlanNicConfig { master: list(&["enp3s0f0np0"]), ..with(1000) };
    check(
        &MultusFields { ipvlan: Some(&ipvlan), ..of(CniType::Ipvlan) },
        &["spec.ipvlan.vlanID: Invalid value: \"1000\": the VLAN interface would be named enp3s0f0np0.1000"],
    );
    let bond = Bond { name: "a_long_bond".into(), mode: 1, options: None };
    check_macvlan(
        &VlanNicConfig { bond: Some(bond), ..VlanNicConfig { master: list(&["a", "b"]), ..with(1000) } },
        &["spec.macvlan.vlanID: Invalid value: \"1000\": the VLAN interface would be named a_long_bond.1000"],
    );
}

#[test]
fn vlans_are_numbered_by_hand() {
    let vlan = |vlan_mode, vlan_id| VlanConfig {
        master: list(&["a"]),
        vlan_mode,
        vlan_id,
        mtu: -1,
        ..VlanConfig::default()
    };
    let check = |config: &VlanConfig, expect: &[&str]| {
        let expect = [&["spec.vlan.mtu: Invalid value: \"-1\""], expect].concat();
        check(&MultusFields { vlan: Some(config), ..of(CniType::Vlan) }, &expect);
    };
    check(&vlan(VlanMode::Manual, Some(100)), &[]);
    check(&vlan(VlanMode::Manual, None), &[]);
    check(&vlan(VlanMode::Manual, Some(-1)), &["spec.vlan.vlanID: Invalid value: \"-1\""]);
    check(
        &vlan(VlanMode::Auto, Some(1)),
        &["spec.vlan.vlanID: Forbidden: vlanMode is auto", "spec.vlan.vlanMode: Forbidden: vlanMode auto"],
    );
}

/// Upstream's webhook fills in 0 for a highest rate that is absent.
#[test]
fn a_lowest_rate_needs_no_highest() {
    for max_tx_rate_mbps in [None, Some(0), Some(20)] {
        let sriov = SriovConfig {
            resource_name: Some("r".into()),
            min_tx_rate_mbps: Some(20),
            max_tx_rate_mbps,
            ..SriovConfig::default()
        };
        check(&MultusFields { sriov: Some(&sriov), ..of(CniType::Sriov) }, &[]);
    }
}

/// Upstream dereferences the macvlan block of an sriov network whose MTU is negative.
#[test]
fn sriov_needs_a_resource_and_rates_that_make_a_range() {
    let sriov = SriovConfig {
        vlan_id: Some(5000),
        mtu: -1,
        min_tx_rate_mbps: Some(20),
        max_tx_rate_mbps: Some(10),
        ippools: Some(MultusPools { match_master_subnet: true, ..MultusPools::default() }),
        ..SriovConfig::default()
    };
    check(
        &MultusFields { sriov: Some(&sriov), ..of(CniType::Sriov) },
        &[
            "spec.sriov.resourceName: Required value",
            "spec.sriov.vlanID: Invalid value: \"5000\"",
            "spec.sriov.mtu: Invalid value: \"-1\"",
            "spec.sriov.minTxRateMbps: Invalid value: \"20\": must be at most maxTxRateMbps, which is 10",
            "spec.sriov.ippools.matchMasterSubnet: Forbidden: matchMasterSubnet is not supported yet",
        ],
    );
    let ibsriov = IbSriovConfig { resource_name: Some(String::new()), ..IbSriovConfig::default() };
    check(
        &MultusFields { ibsriov: Some(&ibsriov), ..of(CniType::IbSriov) },
        &["spec.ibsriov.resourceName: Required value"],
    );
    let ipoib = IpoibConfig::default();
    check(
        &MultusFields { ipoib: Some(&ipoib), ..of(CniType::Ipoib) },
        &["spec.ipoib.master: Required value"],
    );
}

/// Upstream dereferences a minID that is not there.
#[test]
fn trunks_are_vlans_or_ranges() {
    let trunk = |min_id, max_id, id| Trunk { min_id, max_id, id };
    let ovs = OvsConfig {
        bridge: String::new(),
        vlan: Some(4095),
        trunk: vec![
            trunk(Some(1), Some(9), None),
            trunk(None, None, Some(7)),
            trunk(Some(9), Some(1), None),
            trunk(None, Some(5), None),
            trunk(Some(5), None, None),
            trunk(None, None, None),
            trunk(None, None, Some(4096)),
        ],
        ..OvsConfig::default()
    };
    check(
        &MultusFields { ovs: Some(&ovs), ..of(CniType::Ovs) },
        &[
            "spec.ovs.bridge: Required value",
            "spec.ovs.vlan: Invalid value: \"4095\"",
            "spec.ovs.trunk[2].minID: Invalid value: \"9\": must be at most maxID, which is 1",
            "spec.ovs.trunk[3].minID: Required value",
            "spec.ovs.trunk[4].maxID: Required value",
            "spec.ovs.trunk[5].id: Required value",
            "spec.ovs.trunk[6].id: Invalid value: \"4096\"",
        ],
    );
}

#[test]
fn pools_are_names() {
    let pools = MultusPools {
        ipv4: list(&["a", "A", "a", "b*", "c[*"]),
        ipv6: list(&["c"]),
        match_master_subnet: true,
    };
    check_macvlan(
        &VlanNicConfig { ippools: Some(pools), ..nic(&["ens192"]) },
        &[
            "spec.macvlan.ippools.ipv4[1]: Invalid value: \"A\"",
            "spec.macvlan.ippools.ipv4[2]: Duplicate value: \"a\"",
            "spec.macvlan.ippools.ipv4[4]: Invalid value: \"c[*\": the wildcard \"c[*\" for IPPools is invalid: ",
            "spec.macvlan.ippools.matchMasterSubnet: Forbidden: it is for cniType sriov, and this is macvlan",
        ],
    );
}

#[test]
fn chained_and_custom_configurations_are_plugins() {
    let macvlan = nic(&["ens192"]);
    let chain = list(&[r#"{"type":"tuning"}"#, "{}", "x"]);
    check(
        &MultusFields { macvlan: Some(&macvlan), chain: &chain, ..of(CniType::Macvlan) },
        &[
            "spec.chainCNIJsonData[1]: Invalid value: \"{}\"",
            "spec.chainCNIJsonData[2]: Invalid value: \"x\"",
        ],
    );
    check(
        &MultusFields { custom: Some("{"), chain: &chain, ..of(CniType::Custom) },
        &["spec.customCNI: Invalid value: \"{\": is no JSON", "spec.chainCNIJsonData: Forbidden"],
    );
}

#[test]
fn the_coordinator_block_has_its_own_rules() {
    let macvlan = nic(&["ens192"]);
    let block = Settings {
        mode: Some("underlay".into()),
        pod_rp_filter: Some(3),
        hijack_cidr: Some(list(&["x"])),
        ..Settings::default()
    };
    check(
        &MultusFields { macvlan: Some(&macvlan), coordinator: Some(&block), ..of(CniType::Macvlan) },
        &[
            "spec.coordinator.hijackCIDR[0]: Invalid value: \"x\"",
            "spec.coordinator.podRPFilter: Invalid value: \"3\"",
        ],
    );
    // It is taken away from such a network.
    check(&MultusFields { coordinator: Some(&block), ..of(CniType::Custom) }, &[]);
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn annotations_are_checked_and_named() {
    let own = annotations(&[
        (CR_NAME, "Upper"),
        (CNI_CONFIG_NAME, "a b"),
        (CNI_VERSION, "1.1.0"),
        (RDMA_RESOURCE_INJECT, "x"),
        (NETWORK_RESOURCE_INJECT, "y"),
    ]);
    check(
        &MultusFields { annotations: Some(&own), ..of(CniType::Custom) },
        &[
            "metadata.annotations[multus.spidernet.io/cr-name]: Invalid value: \"Upper\"",
            "metadata.annotations[cni.spidernet.io/cniconfig-name]: Invalid value: \"a b\"",
            "metadata.annotations[multus.spidernet.io/cni-version]: Unsupported value: \"1.1.0\"",
            "metadata.annotations[cni.spidernet.io/rdma-resource-inject]: Forbidden",
            "metadata.annotations[cni.spidernet.io/network-resource-inject]: Forbidden",
        ],
    );
    let inject = |key: &str, config: &VlanNicConfig, expect: &[&str]| {
        let own = annotations(&[(key, "x")]);
        check(
            &MultusFields { annotations: Some(&own), macvlan: Some(config), ..of(CniType::Macvlan) },
            expect,
        );
    };
    let resource = VlanNicConfig { rdma_resource_name: Some("a/b".into()), ..nic(&["ens192"]) };
    let pools = MultusPools { ipv6: list(&["p"]), ..MultusPools::default() };
    let complete = VlanNicConfig { ippools: Some(pools), ..resource.clone() };
    let (rdma, network) =
        ("metadata.annotations[cni.spidernet.io/rdma", "metadata.annotations[cni.spidernet.io/network");
    inject(RDMA_RESOURCE_INJECT, &nic(&["ens192"]), &[rdma]);
    inject(NETWORK_RESOURCE_INJECT, &nic(&["ens192"]), &[]);
    inject(RDMA_RESOURCE_INJECT, &resource, &[rdma]);
    inject(NETWORK_RESOURCE_INJECT, &resource, &[network]);
    inject(RDMA_RESOURCE_INJECT, &complete, &[]);
    inject(NETWORK_RESOURCE_INJECT, &complete, &[]);
}

/// Upstream lets the annotation go, and the NetworkAttachmentDefinition of the old name is nobody's.
#[test]
fn the_attachments_name_is_not_changed_added_or_removed() {
    let named = |name: &str| annotations(&[(CR_NAME, name)]);
    let (a, b, own, none) = (named("a"), named("b"), named("net"), BTreeMap::new());
    for (old, new, fits) in
        [(&a, &a, true), (&a, &b, false), (&a, &none, false), (&none, &a, false), (&own, &none, false)]
    {
        let fields = |annotations| MultusFields { annotations: Some(annotations), ..of(CniType::Custom) };
        let faults = validate_update(&fields(old), &fields(new));
        assert_eq!(faults.is_empty(), fits, "{old:?} {new:?} {faults:?}");
        let path = "metadata.annotations[multus.spidernet.io/cr-name]";
        assert!(faults.iter().all(|fault| fault.path == path), "{faults:?}");
    }
}
