//! Settings, options and plans, as tables. What a plan does to a node is in the tests of the plugin, with a kernel.

use std::fmt::Debug;

use super::*;
use crate::coordinator::NamespaceState;
use crate::go_json::from_go_json;
use crate::names::IfName;
use crate::net::{Address, BondMode, Link, LinkDetail, Medium, Route, Vlan, VlanProtocol};

fn parse(json: &str) -> Result<Option<WantedInterfaces>, IfacerSettingsError> {
    from_go_json::<IfacerSettings>(json).unwrap().parse()
}

fn wanted(json: &str) -> WantedInterfaces {
    parse(json).unwrap().unwrap()
}

const VLAN: &str = r#"{"interfaces":["eth1"],"vlanID":100}"#;
const BOND: &str = r#"{"interfaces":["eth1","eth2"],"bond":{"name":"bond0","mode":1,"options":""}}"#;
const BOND_VLAN: &str =
    r#"{"interfaces":["eth1","eth2"],"vlanID":100,"bond":{"name":"bond0","mode":1,"options":"miimon=50"}}"#;

#[track_caller]
fn fails<T: Debug>(result: Result<T, impl ToString>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn what_the_main_plugin_works_on() {
    for (json, name) in [(VLAN, "eth1.100"), (BOND, "bond0"), (BOND_VLAN, "bond0.100")] {
        assert_eq!(wanted(json).name().as_str(), name);
    }
    let unnamed = wanted(r#"{"interfaces":["a","b"],"bond":{"mode":4}}"#);
    assert_eq!(unnamed.name().as_str(), DEFAULT_BOND);
    // A bond of one interface is none.
    let one = wanted(r#"{"interfaces":["a"],"vlanID":5,"bond":{"name":"bond0","mode":1}}"#);
    assert_eq!(one.name().as_str(), "a.5");
}

#[test]
fn there_may_be_nothing_to_make() {
    for json in [
        r#"{"interfaces":["eth1"]}"#,
        r#"{"interfaces":["eth1"],"vlanID":0,"bond":null}"#,
        r#"{"interfaces":["a","b"]}"#,
    ] {
        assert_eq!(parse(json), Ok(None), "{json}");
    }
}

#[test]
fn wrong_settings_are_named() {
    for (json, parts) in [
        ("{}", &["interfaces is missing"][..]),
        (r#"{"interfaces":["a/b"]}"#, &["\"a/b\""]),
        (r#"{"interfaces":["a","a"],"bond":{}}"#, &["a more than once"]),
        (r#"{"interfaces":["a"],"vlanID":4095}"#, &["4095", "0 to 4094"]),
        (r#"{"interfaces":["a"],"vlanID":-1}"#, &["-1", "0 to 4094"]),
        (r#"{"interfaces":["a"],"vlanID":65636}"#, &["65636", "0 to 4094"]),
        (r#"{"interfaces":["a","b"],"vlanID":1}"#, &["bond is missing"]),
        (r#"{"interfaces":["a","b"],"bond":{"mode":7}}"#, &["bond.mode 7", "0 to 6"]),
        (r#"{"interfaces":["a","b"],"bond":{"name":"a","mode":1}}"#, &["bond.name a", "another name"]),
        (r#"{"interfaces":["a","b"],"bond":{"name":"a b","mode":1}}"#, &["\"a b\""]),
        (r#"{"interfaces":["enp3s0f0np0"],"vlanID":1000}"#, &["enp3s0f0np0.1000", "15 characters"]),
        (
            r#"{"interfaces":["a","b"],"bond":{"name":"x","mode":1,"options":"fast"}}"#,
            &["bond.options of x", "\"fast\" is not KEY=VALUE"],
        ),
    ] {
        fails(parse(json), parts);
    }
}

fn options(mode: BondMode, text: &str) -> Result<String, BondOptionError> {
    let members = ["eth1", "eth2"].map(|name| name.parse::<IfName>().unwrap());
    let options = parse_bond_options(text, mode, &members)?;
    Ok(options.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

#[test]
fn options_are_in_the_kernels_order() {
    use BondMode::{ActiveBackup, BalanceRr, Lacp};
    for (mode, text, expect) in [
        (ActiveBackup, "", "miimon 100"),
        (ActiveBackup, ";", "miimon 100"),
        (
            ActiveBackup,
            "primary=eth2; updelay=200 ;miimon=100;active_slave=eth1",
            "miimon 100; updelay 200; primary eth2; active_slave eth1",
        ),
        // Upstream spells it so, and ignores 0.
        (ActiveBackup, "up_delay=200;use_carrier=0", "miimon 100; updelay 200; use_carrier 0"),
        (Lacp, "lacp_rate=fast;xmit_hash_policy=layer3+4", "miimon 100; xmit_hash_policy 1; lacp_rate 1"),
        (Lacp, "ad_actor_system=02:00:00:00:00:01", "miimon 100; ad_actor_system 02:00:00:00:00:01"),
        (BalanceRr, "miimon=0;packets_per_slave=2", "miimon 0; packets_per_slave 2"),
        (
            ActiveBackup,
            r#"arp_interval=500;arp_ip_target=["10.6.0.1","10.6.0.2"]"#,
            "arp_interval 500; arp_ip_target 10.6.0.1,10.6.0.2",
        ),
        (
            ActiveBackup,
            "arp_ip_target=10.6.0.1,10.6.0.2;arp_interval=500;arp_validate=all",
            "arp_interval 500; arp_validate 3; arp_ip_target 10.6.0.1,10.6.0.2",
        ),
    ] {
        assert_eq!(options(mode, text).as_deref(), Ok(expect), "{text}");
    }
}

#[test]
fn wrong_options_are_named() {
    use BondMode::{ActiveBackup, Lacp};
    for (mode, text, parts) in [
        // Upstream skips it, and cannot parse what is left.
        (ActiveBackup, "miimon;updelay=1", &["\"miimon\" is not KEY=VALUE"][..]),
        (ActiveBackup, "miimon=1=2", &["\"miimon=1=2\""]),
        (ActiveBackup, "speed=1", &["\"speed\"", "miimon", "primary"]),
        (ActiveBackup, "miimon=1;miimon=2", &["miimon is there more than once"]),
        (ActiveBackup, "up_delay=1;updelay=2", &["updelay is there more than once"]),
        (ActiveBackup, "miimon=often", &["miimon=often", "a number from 0 to 2147483647"]),
        (ActiveBackup, "miimon=-1", &["miimon=-1"]),
        (Lacp, "lacp_rate=2", &["lacp_rate=2", "slow, fast"]),
        (ActiveBackup, "lacp_rate=1", &["lacp_rate does not work in mode 1", "mode 4 (802.3ad)"]),
        (Lacp, "primary=eth1", &["primary does not work in mode 4"]),
        (Lacp, "arp_interval=5", &["arp_interval does not work in mode 4"]),
        (ActiveBackup, "primary=eth3", &["primary=eth3", "one of the bond's interfaces"]),
        (ActiveBackup, "active_slave=a/b", &["active_slave=a/b"]),
        (Lacp, "ad_actor_system=01:00:00:00:00:01", &["ad_actor_system=01:"]),
        (ActiveBackup, "arp_ip_target=fd00::1", &["arp_ip_target=fd00::1", "IPv4"]),
        (ActiveBackup, "arp_ip_target=[]", &["arp_ip_target=[]"]),
        (ActiveBackup, "arp_interval=5", &["arp_interval needs arp_ip_target"]),
        (
            ActiveBackup,
            "arp_interval=5;arp_ip_target=10.6.0.1;miimon=100",
            &["arp_interval and miimon exclude each other"],
        ),
        (ActiveBackup, "miimon=0;downdelay=100", &["downdelay needs miimon"]),
    ] {
        fails(options(mode, text), parts);
    }
}

/// Of a kind and index, up.
fn link(index: u32, name: &str, kind: &str) -> Link {
    Link::of_kind(name, index, kind)
}

fn vlan_link(index: u32, name: &str, parent: u32, id: u16) -> Link {
    let detail = LinkDetail::Vlan(Vlan { id, protocol: VlanProtocol::Customer });
    Link { detail, peer: Some(parent), ..link(index, name, "vlan") }
}

fn bond_link(mode: BondMode) -> Link {
    Link { detail: LinkDetail::Bond(mode), ..link(10, "bond0", "bond") }
}

fn member(index: u32, name: &str) -> Link {
    Link { master: Some(10), ..link(index, name, "") }
}

fn node(links: Vec<Link>) -> NamespaceState {
    NamespaceState { links, ..NamespaceState::default() }
}

fn nics() -> Vec<Link> {
    vec![link(1, "eth1", ""), link(2, "eth2", "")]
}

fn whole_bond() -> Vec<Link> {
    vec![member(1, "eth1"), member(2, "eth2"), bond_link(BondMode::ActiveBackup)]
}

#[track_caller]
fn plans(json: &str, links: Vec<Link>, expect: &[&str]) {
    let plan = plan_interfaces(&wanted(json), &node(links)).unwrap();
    let steps: Vec<_> = plan.steps.iter().chain(&plan.preference).map(ToString::to_string).collect();
    assert_eq!(steps, expect);
    assert_eq!(plan.is_empty(), expect.is_empty());
}

#[track_caller]
fn conflicts(json: &str, links: Vec<Link>, parts: &[&str]) {
    fails(plan_interfaces(&wanted(json), &node(links)), parts);
}

#[test]
fn a_vlan_is_made_and_set_up() {
    let made = ["node: link add link eth1 name eth1.100 type vlan id 100", "node: link set eth1.100 up"];
    plans(VLAN, nics(), &made);
    let down = vec![Link { up: false, ..link(1, "eth1", "") }];
    plans(VLAN, down, &["node: link set eth1 up", made[0], made[1]]);
    // The same number on another interface is another network, also by another protocol on this one.
    let mut others = nics();
    others.push(vlan_link(5, "eth2.100", 2, 100));
    others.push(vlan_link(6, "eth1.101", 1, 101));
    let outer = LinkDetail::Vlan(Vlan { id: 100, protocol: VlanProtocol::Other });
    others.push(Link { detail: outer, ..vlan_link(7, "outer", 1, 100) });
    plans(VLAN, others, &made);
}

#[test]
fn a_vlan_that_is_there_is_used() {
    let with = |vlan: Link| [nics(), vec![vlan]].concat();
    plans(VLAN, with(vlan_link(5, "eth1.100", 1, 100)), &[]);
    let down = Link { up: false, ..vlan_link(5, "eth1.100", 1, 100) };
    plans(VLAN, with(down), &["node: link set eth1.100 up"]);
}

#[test]
fn another_interface_in_the_vlans_place_is_an_error() {
    let with = |vlan: Link| [nics(), vec![vlan]].concat();
    conflicts(VLAN, vec![], &["interface eth1 is not on this node"]);
    conflicts(
        VLAN,
        with(link(5, "eth1.100", "macvlan")),
        &["eth1.100 is there already and is of the kind macvlan"],
    );
    conflicts(
        VLAN,
        with(vlan_link(5, "eth1.100", 1, 7)),
        &["eth1.100", "is VLAN 7 on eth1", "VLAN 100 on eth1"],
    );
    conflicts(VLAN, with(vlan_link(5, "eth1.100", 2, 100)), &["is VLAN 100 on eth2"]);
    let foreign = Link { peer_netns: Some(0), ..vlan_link(5, "eth1.100", 1, 100) };
    conflicts(VLAN, with(foreign), &["VLAN 100 on an interface of another network namespace"]);
    let outer = LinkDetail::Vlan(Vlan { id: 100, protocol: VlanProtocol::Other });
    conflicts(VLAN, with(Link { detail: outer, ..vlan_link(5, "eth1.100", 1, 100) }), &["not of 802.1Q"]);
    let parts =
        ["VLAN 100 on eth1 is there already and is called storage", "vlanID 0", "ip link del storage"];
    conflicts(VLAN, with(vlan_link(5, "storage", 1, 100)), &parts);
}

#[test]
fn a_bond_is_made_with_its_options_before_its_members() {
    plans(
        BOND_VLAN,
        nics(),
        &[
            "node: link add bond0 mtu 1500 type bond mode 1",
            "node: link set bond0 type bond miimon 50",
            "node: link set eth1 master bond0",
            "node: link set eth2 master bond0",
            "node: link set bond0 up",
            "node: link add link bond0 name bond0.100 type vlan id 100",
            "node: link set bond0.100 up",
        ],
    );
    let preferring = r#"{"interfaces":["eth1","eth2"],"bond":{"mode":1,"options":"active_slave=eth2"}}"#;
    let plan = plan_interfaces(&wanted(preferring), &node(nics())).unwrap();
    assert_eq!(plan.preference.unwrap().to_string(), "node: link set sp_bond0 type bond active_slave eth2");
}

#[test]
fn a_bond_that_is_there_is_used() {
    plans(BOND, whole_bond(), &[]);
    let made = ["node: link add link bond0 name bond0.100 type vlan id 100", "node: link set bond0.100 up"];
    plans(BOND_VLAN, whole_bond(), &made);
    let down: Vec<_> = whole_bond().into_iter().map(|link| Link { up: false, ..link }).collect();
    let up = ["node: link set eth1 up", "node: link set eth2 up", "node: link set bond0 up"];
    plans(BOND, down, &up);
}

#[test]
fn another_bond_in_its_place_is_an_error() {
    let bonded = |links: Vec<Link>| [links, vec![bond_link(BondMode::ActiveBackup)]].concat();
    conflicts(BOND, [nics(), vec![link(10, "bond0", "bridge")]].concat(), &["bond0", "of the kind bridge"]);
    conflicts(BOND, [nics(), vec![link(10, "bond0", "")]].concat(), &["bond0", "a physical interface"]);
    let mut lacp = whole_bond();
    lacp[2] = bond_link(BondMode::Lacp);
    let parts = ["mode 4 (802.3ad)", "mode 1 (active-backup)", "ip link del bond0"];
    conflicts(BOND, lacp, &parts);
    conflicts(BOND, [whole_bond(), vec![member(3, "eth3")]].concat(), &["members [eth1, eth2, eth3]"]);
    conflicts(BOND, bonded(vec![link(1, "eth1", "")]), &["interface eth2 is not on this node"]);
    // What is called as its VLAN cannot be on a bond that is not there.
    conflicts(BOND_VLAN, [nics(), vec![vlan_link(5, "bond0.100", 1, 100)]].concat(), &["VLAN 100 on eth1"]);
}

/// An ADD was killed, or an interface was away: every later ADD failed.
#[test]
fn a_bond_that_lacks_members_gets_them() {
    let bonded = |links: Vec<Link>| [links, vec![bond_link(BondMode::ActiveBackup)]].concat();
    let [first, second] = ["node: link set eth1 master bond0", "node: link set eth2 master bond0"];
    plans(BOND, bonded(vec![member(1, "eth1"), link(2, "eth2", "")]), &[second]);
    plans(BOND, bonded(nics()), &[first, second]);
    let plan = plan_interfaces(&wanted(BOND), &node(bonded(vec![member(1, "eth1")]))).unwrap();
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(plan.absent, ["eth2".parse::<IfName>().unwrap()]);
}

#[test]
fn a_bond_has_the_smallest_mtu_of_its_members() {
    let links = vec![Link { mtu: 9000, ..link(1, "eth1", "") }, Link { mtu: 8000, ..link(2, "eth2", "") }];
    let plan = plan_interfaces(&wanted(BOND), &node(links)).unwrap();
    assert_eq!(plan.steps[0].to_string(), "node: link add bond0 mtu 8000 type bond mode 1");
}

#[test]
fn interfaces_that_the_node_needs_are_not_taken() {
    let bridge = link(7, "br0", "bridge");
    let port = Link { master: Some(7), ..link(2, "eth2", "") };
    conflicts(BOND, vec![link(1, "eth1", ""), port, bridge], &["eth2", "a port of br0", "nomaster"]);
    conflicts(BOND, vec![link(1, "eth1", "")], &["interface eth2 is not on this node"]);
    for default in ["0.0.0.0/0", "::/0"] {
        let route = Route::new(default.parse().unwrap(), "eth1".parse().unwrap());
        let state = NamespaceState { routes: vec![route], ..node(nics()) };
        fails(plan_interfaces(&wanted(BOND), &state), &["eth1", "default route", "would be lost"]);
    }
    // Also by a VLAN: a bond takes its frames away with those of the interface.
    let vlan = || [nics(), vec![vlan_link(5, "uplink", 1, 10)]].concat();
    for (dev, links) in [("eth1", nics()), ("uplink", vlan())] {
        let route = Route::new("0.0.0.0/0".parse().unwrap(), dev.parse().unwrap());
        let state = NamespaceState { routes: vec![route], ..node(links.clone()) };
        fails(plan_interfaces(&wanted(BOND), &state), &["eth1", "default route"]);
        let address = Address::new(dev.parse().unwrap(), "10.6.0.3/16".parse().unwrap());
        let state = NamespaceState { addresses: vec![address], ..node(links) };
        fails(plan_interfaces(&wanted(BOND), &state), &["eth1", "the address 10.6.0.3", dev]);
    }
    let local = Address::new("eth1".parse().unwrap(), "fe80::1/64".parse().unwrap());
    let state = NamespaceState { addresses: vec![local], ..node(nics()) };
    assert!(plan_interfaces(&wanted(BOND), &state).is_ok());
    let loopback = Link { medium: Medium::Loopback, ..link(1, "eth1", "") };
    conflicts(BOND, vec![loopback, link(2, "eth2", "")], &["eth1", "no Ethernet interface"]);
}
