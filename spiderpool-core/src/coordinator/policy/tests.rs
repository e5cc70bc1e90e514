//! Plans for pods of a Calico-like node, as snapshots: in them the listing of upstream's state for the same pod.

use std::net::IpAddr;

use super::*;
use crate::coordinator::fixture::{Pod, link, nic, route};
use crate::coordinator::{Namespace, PeerMacs};
use crate::mac::MacAddr;
use crate::net::{MAIN_TABLE, Rule, Selector};

const CONTAINER: &str = "c0ffee";
const NETWORK: &str = "macvlan";

impl Pod {
    fn policy(&self, name: &str) -> Result<Vec<Step>, PlanError> {
        self.policy_to(name, PeerMacs::both(MacAddr([0xee; 6])))
    }

    fn policy_to(&self, name: &str, peers: PeerMacs) -> Result<Vec<Step>, PlanError> {
        plan_policy_overlay(&PolicyInputs {
            container_id: CONTAINER,
            network: NETWORK,
            nic: &nic(name),
            config: &self.config,
            pod: &self.namespace,
            node: &self.host_end,
            host_end: &nic("cali1234"),
            peers,
            nodes: &self.nodes,
            expected: self.expected.as_deref(),
        })
    }

    /// Plans, applies, and plans again: what is left is what every plan has.
    fn add(&mut self, name: &str) -> Vec<String> {
        let steps = self.policy(name).unwrap();
        self.apply(&steps);
        self.check_policy_settled(name);
        steps.iter().map(ToString::to_string).collect()
    }

    fn check_policy_settled(&self, name: &str) {
        let repeated = |step: &&Step| {
            matches!(
                step,
                Step::SetSysctl { .. }
                    | Step::SetReturnMarks(_)
                    | Step::AddRule { namespace: Namespace::Node, .. }
            )
        };
        let left: Vec<_> = self.policy(name).unwrap().into_iter().filter(|step| !repeated(&step)).collect();
        assert_eq!(left, [], "{name}");
    }

    /// As `ip rule`, `ip route` and `ip route show table` list it, without who made what; IPv4 alone.
    fn listing(&self) -> Vec<String> {
        let pod = &self.namespace;
        let mut lines: Vec<String> = Vec::new();
        let mut rules: Vec<_> = pod.rules.iter().filter(|rule| rule.family == Family::V4).collect();
        rules.sort_by_key(|rule| (rule.priority, rule.table));
        lines.extend(rules.iter().map(|rule| rule.to_string().replace(" proto 0x53", "")));
        let mut routes: Vec<_> = pod.routes.iter().chain(&pod.table_routes).collect();
        routes.retain(|route| route.family() == Family::V4);
        routes.sort_by_key(|route| (route.table != MAIN_TABLE, route.table, route.dst, route.dev.clone()));
        for route in routes {
            let text = route.to_string();
            let protocol = format!(" proto {:#x}", route.protocol);
            lines.push(text.replace(&protocol, ""));
        }
        lines
    }
}

/// On a switch the routers of the families may be two.
#[test]
fn the_node_has_the_mac_of_each_familys_next_hop() {
    let peers = PeerMacs { v4: MacAddr([4; 6]), v6: MacAddr([6; 6]) };
    let steps = Pod::new("{}").policy_to("net1", peers).unwrap();
    let neighbors = steps.iter().filter_map(|step| match step {
        Step::SetNeighbor { namespace: Namespace::Pod, neighbor } => Some(neighbor),
        _ => None,
    });
    let mut families = Vec::new();
    for neighbor in neighbors {
        let family = Family::of(neighbor.address);
        assert_eq!(neighbor.mac, peers.of(family), "{neighbor}");
        families.push(family);
    }
    assert!(Family::ALL.iter().all(|family| families.contains(family)), "{families:?}");
}

#[test]
fn a_pod_keeps_its_dataplane() {
    use Dataplane::{Ebpf, Policy};
    let mut pod = Pod::new("{}");
    for wanted in [Ebpf, Policy] {
        assert_eq!(pod_dataplane(&pod.namespace, false, wanted), wanted);
        assert_eq!(pod_dataplane(&pod.namespace, true, wanted), Ebpf);
    }
    // Routes of ours are hints where there are programs, also if somebody has deleted the node link.
    pod.add("net1");
    assert_eq!(pod_dataplane(&pod.namespace, false, Ebpf), Policy);
    assert_eq!(pod_dataplane(&pod.namespace, true, Policy), Ebpf);
    pod.namespace.links.push(link(9, NODE_LINK, "veth"));
    assert_eq!(pod_dataplane(&pod.namespace, false, Policy), Ebpf);
}

/// Upstream's listing of this pod, but for the priority that both rules have.
#[test]
fn the_default_route_stays_on_eth0() {
    let mut pod = Pod::new("{}");
    let steps = pod.add("net1");
    insta::assert_snapshot!("default_on_eth0", steps.join("\n"));
    insta::assert_snapshot!("listing_default_on_eth0", pod.listing().join("\n"));
}

#[test]
fn the_default_route_moves_to_net1() {
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net1"}"#);
    let steps = pod.add("net1");
    insta::assert_snapshot!("default_on_net1", steps.join("\n"));
    insta::assert_snapshot!("listing_default_on_net1", pod.listing().join("\n"));
}

#[test]
fn three_nics_have_tables_of_their_own() {
    let mut pod = Pod::new("{}");
    pod.add("net1");
    pod.attach("net2", "10.7.0.5/16", "10.7.0.1");
    let steps = pod.add("net2");
    insta::assert_snapshot!("second_nic", steps.join("\n"));
    pod.check_policy_settled("net1");
    insta::assert_snapshot!("listing_three_nics", pod.listing().join("\n"));
}

/// Upstream derives the number from how many links are up, so that a link of a service mesh shifts it.
#[test]
fn tables_do_not_depend_on_how_many_links_there_are() {
    let tables = |pod: &Pod| {
        let rules = pod.namespace.rules.iter().filter(|rule| rule.family == Family::V4);
        let by_source = rules.filter(|rule| matches!(rule.selector, Selector::From(_)));
        by_source.map(|rule| rule.table).collect::<Vec<_>>()
    };
    let mut pod = Pod::new("{}");
    pod.namespace.links.push(link(9, "dummy0", "dummy"));
    pod.add("net1");
    assert_eq!(tables(&pod), [100, 101]);
    // A table that somebody else uses is left alone.
    let theirs = Rule { protocol: 3, ..Rule::new(Family::V4, 500, Selector::Mark(1337), 102) };
    pod.namespace.rules.push(theirs);
    pod.attach("net2", "10.7.0.5/16", "10.7.0.1");
    pod.add("net2");
    assert_eq!(tables(&pod), [100, 101, 103]);
}

/// Upstream fails the ADD of net1 when the annotation names net2, so that the pod never starts.
#[test]
fn the_default_route_goes_to_a_nic_that_comes_later_and_back() {
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net2"}"#);
    pod.expected = Some(vec![nic("net1"), nic("net2")]);
    pod.add("net1");
    let default = |pod: &Pod| {
        let routes = pod.namespace.routes.iter().filter(|r| r.is_default() && r.family() == Family::V4);
        routes.map(|route| route.dev.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(default(&pod), ["eth0"]);
    pod.attach("net2", "10.7.0.5/16", "10.7.0.1");
    pod.add("net2");
    assert_eq!(default(&pod), ["net2"]);
    // A network that names eth0 has it from eth0's table.
    pod.config = Pod::new(r#"{"podDefaultRouteNic":"eth0"}"#).config;
    pod.attach("net3", "10.8.0.5/16", "10.8.0.1");
    pod.add("net3");
    assert_eq!(default(&pod), ["eth0"]);
    pod.expected = Some(vec![nic("net1")]);
    pod.config = Pod::new(r#"{"podDefaultRouteNic":"net9"}"#).config;
    assert_eq!(pod.policy("net1"), Err(PlanError::DefaultRouteNic(nic("net9"))));
}

/// Upstream's table of the first underlay NIC lacks the CIDRs: a socket that is bound to it reaches no Service.
#[test]
fn a_socket_that_is_bound_to_net1_has_a_way_to_services() {
    let mut pod = Pod::new("{}");
    pod.add("net1");
    let tables = &pod.namespace.table_routes;
    let service =
        |table: u32| tables.iter().any(|r| r.table == table && r.to_string().contains("10.233.0.0/18"));
    assert!(service(101) && !service(100));
}

#[test]
fn without_tuning_no_route_is_moved() {
    let mut pod = Pod::new(r#"{"tunePodRoutes":false,"podDefaultRouteNic":"net9"}"#);
    pod.expected = Some(vec![]);
    pod.add("net1");
    assert_eq!(
        (pod.namespace.rules.as_slice(), pod.namespace.table_routes.as_slice()),
        ([].as_slice(), [].as_slice())
    );
    let defaults = pod.namespace.routes.iter().filter(|r| r.is_default() && r.family() == Family::V4);
    assert_eq!(defaults.count(), 2);
    assert!(pod.listing().iter().any(|line| line.starts_with("10.233.0.0/18 via 10.6.212.132 dev eth0")));
}

#[test]
fn policy_routes_win_over_the_clusters_cidrs() {
    let settings = r#"{"policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"},{"dst":"192.168.4.0/24","gw":"10.8.0.9"},
        {"dst":"10.233.0.0/18","gw":"10.6.0.9"}]}"#;
    let mut pod = Pod::new(settings);
    pod.add("net1");
    let policy: Vec<_> = pod.listing().into_iter().filter(|line| line.contains(".0.9")).collect();
    assert_eq!(
        policy,
        [
            "10.233.0.0/18 via 10.6.0.9 dev net1",
            "192.168.3.0/24 via 10.6.0.9 dev net1",
            "10.233.0.0/18 via 10.6.0.9 dev net1 table 101",
            "192.168.3.0/24 via 10.6.0.9 dev net1 table 101",
        ]
    );
    assert!(!pod.listing().iter().any(|line| line.starts_with("10.233.0.0/18 via 10.6.212.132")));
}

/// Upstream sets the queue of a NIC of the node with the same name, and rp_filter of `all` alone.
#[test]
fn the_nic_itself_is_as_configured() {
    let settings = r#"{"podMACPrefix":"0a:1b","txQueueLen":2000,"podRPFilter":2}"#;
    let mut pod = Pod::new(settings);
    pod.namespace.links[2].up = false;
    let steps = pod.add("net1");
    for step in [
        "pod: link set net1 up",
        "pod: link set net1 address 0a:1b:0a:06:d4:91",
        "pod: link set net1 txqueuelen 2000",
        "pod: sysctl net/ipv4/conf/net1/rp_filter = 2",
        "pod: sysctl net/ipv4/conf/default/rp_filter = 2",
    ] {
        assert!(steps.contains(&step.to_owned()), "{step}: {steps:#?}");
    }
}

/// Upstream adds none, and Services are unreachable.
#[test]
fn a_node_without_address_of_a_family_has_eth0s_gateway_as_next_hop() {
    let mut pod = Pod::new("{}");
    pod.nodes.retain(IpAddr::is_ipv4);
    let steps = pod.add("net1");
    let service =
        "pod: route add fd00:96::/108 via fe80::ecee:eeff:feee:eeee dev eth0 src fd00:233::210 metric 1024";
    assert!(steps.iter().any(|step| step.starts_with(service)), "{steps:#?}");
}

/// The kernel refuses routes by a NIC without IPv6.
#[test]
fn a_family_that_eth0_has_not_is_left_out() {
    let mut pod = Pod::new("{}");
    pod.namespace.addresses.retain(|a| a.dev.as_str() != "eth0" || a.net.addr().is_ipv4());
    pod.namespace.routes.retain(|r| r.dev.as_str() != "eth0" || r.family() == Family::V4);
    let steps = pod.add("net1");
    assert!(!steps.iter().any(|step| step.contains("fd00:96::") || step.starts_with("node: route add fd00")));
}

#[test]
fn the_route_of_a_pod_that_had_the_address_before_is_replaced() {
    let mut pod = Pod::new("{}");
    let stale = |metric| Route {
        table: 500,
        metric,
        ..Route::new("10.6.212.145/32".parse().unwrap(), nic("cali9999"))
    };
    pod.host_end.table_routes = vec![stale(7), stale(8)];
    let steps = pod.add("net1");
    let deleted =
        steps.iter().filter(|step| step.starts_with("node: route del 10.6.212.145/32 dev cali9999"));
    assert_eq!(deleted.count(), 2, "{steps:#?}");
    assert_eq!(pod.host_end.table_routes.len(), 2, "one per family");
}

#[test]
fn a_nic_with_an_address_of_the_node_is_refused() {
    let mut pod = Pod::new("{}");
    let address: IpAddr = "10.6.212.145".parse().unwrap();
    pod.nodes.push(address);
    assert_eq!(pod.policy("net1"), Err(PlanError::NodeAddress { nic: nic("net1"), address }));
}

/// A NIC is known by its container, network and name: a late DEL of an earlier sandbox meets nothing of this one.
#[test]
fn marks_of_routes_differ() {
    let marks = [("a", "n", "net1"), ("b", "n", "net1"), ("a", "m", "net1"), ("a", "n", "net2")];
    let mut marks = marks.map(|(container, network, nic)| host_route_mark(container, network, nic)).to_vec();
    marks.sort_unstable();
    marks.dedup();
    assert_eq!(marks.len(), 4);
}

#[test]
fn removing_nics_goes_back_to_what_was_without_them() {
    for wanted in ["eth0", "net1", "net2"] {
        let mut pod = Pod::new(&format!(r#"{{"podDefaultRouteNic":"{wanted}"}}"#));
        pod.namespace.routes.retain(|r| r.dev.as_str() == "eth0");
        let before = pod.listing();
        let macvlan = |pod: &mut Pod| {
            pod.namespace.routes.push(route("10.6.0.0/16", "net1", None, 0));
            pod.namespace.routes.push(route("0.0.0.0/0", "net1", Some("10.6.0.1"), 0));
        };
        macvlan(&mut pod);
        pod.add("net1");
        pod.attach("net2", "10.7.0.5/16", "10.7.0.1");
        pod.add("net2");
        for name in ["net2", "net1"] {
            let (gone, eth0) = (nic(name), nic("eth0"));
            let addresses = pod.namespace.usable_addresses(&gone);
            let steps = plan_removal(&pod.namespace, &gone, &addresses, &eth0);
            pod.apply(&steps);
            // As the kernel does when the main plugin deletes the NIC.
            pod.namespace.routes.retain(|route| route.dev != gone);
            pod.namespace.table_routes.retain(|route| route.dev != gone);
            pod.namespace.addresses.retain(|address| address.dev != gone);
            let rules = pod.namespace.rules.iter().filter(|rule| rule.family == Family::V4).count();
            assert_eq!(rules, if name == "net2" { 3 } else { 0 }, "{wanted}, without {name}");
        }
        let after: Vec<_> = pod.listing();
        assert_eq!(after, before, "{wanted}");
    }
}

impl Pod {
    fn add_underlay(&mut self, name: &str) -> Vec<String> {
        let plan = |pod: &Self| {
            let veth0 = veth0_of(CONTAINER, &pod.config).unwrap();
            plan_policy_underlay(&PolicyInputs {
                container_id: CONTAINER,
                network: NETWORK,
                nic: &nic(name),
                config: &pod.config,
                pod: &pod.namespace,
                node: &pod.host_end,
                host_end: &veth0.host,
                peers: PeerMacs::both(veth0.host_mac),
                nodes: &pod.nodes,
                expected: pod.expected.as_deref(),
            })
        };
        let steps = plan(self).unwrap();
        self.apply(&steps);
        let repeated = |step: &Step| {
            matches!(
                step,
                Step::SetSysctl { .. }
                    | Step::SetReturnMarks(_)
                    | Step::AddRule { namespace: Namespace::Node, .. }
            )
        };
        let left: Vec<_> = plan(self).unwrap().into_iter().filter(|step| !repeated(step)).collect();
        assert_eq!(left, [], "{name}");
        steps.iter().map(ToString::to_string).collect()
    }
}

/// Upstream's listing of this pod.
#[test]
fn an_underlay_pod_has_veth0_and_marks() {
    let mut pod = Pod::underlay("{}");
    let steps = pod.add_underlay("eth0");
    insta::assert_snapshot!("underlay", steps.join("\n"));
    insta::assert_snapshot!("listing_underlay", pod.listing().join("\n"));
}

/// In upstream the rule by source address comes before the one by mark, and both NICs share table 101.
#[test]
fn a_second_underlay_nic_has_a_table_of_its_own_behind_the_marks() {
    for wanted in ["eth0", "net1"] {
        let mut pod = Pod::underlay(&format!(r#"{{"podDefaultRouteNic":"{wanted}"}}"#));
        pod.add_underlay("eth0");
        let before = pod.listing();
        pod.attach("net1", "172.19.0.5/16", "172.19.0.1");
        pod.add_underlay("net1");
        insta::assert_snapshot!(format!("listing_underlay_{wanted}"), pod.listing().join("\n"));
        // Unplugging it leaves the way to the node alone.
        let (gone, first) = (nic("net1"), nic("eth0"));
        let addresses = pod.namespace.usable_addresses(&gone);
        let steps = plan_removal(&pod.namespace, &gone, &addresses, &first);
        pod.apply(&steps);
        pod.namespace.routes.retain(|route| route.dev != gone);
        assert_eq!(pod.listing(), before, "{wanted}");
    }
}

/// The way back to the cluster in table 100 is nobody's default route.
#[test]
fn a_pod_without_default_routes_stays_so() {
    let defaults = |pod: &Pod| pod.namespace.routes.iter().filter(|route| route.is_default()).count();
    let mut pod = Pod::underlay("{}");
    pod.namespace.routes.retain(|route| !route.is_default());
    pod.add_underlay("eth0");
    pod.attach("net1", "172.19.0.5/16", "172.19.0.1");
    pod.namespace.routes.retain(|route| !route.is_default());
    pod.add_underlay("net1");
    assert_eq!(defaults(&pod), 0);
    let mut pod = Pod::new("{}");
    pod.namespace.routes.retain(|route| !route.is_default());
    pod.add("net1");
    pod.add("net1");
    assert_eq!(defaults(&pod), 0);
    let (gone, eth0) = (nic("net1"), nic("eth0"));
    let steps = plan_removal(&pod.namespace, &gone, &pod.namespace.usable_addresses(&gone), &eth0);
    pod.apply(&steps);
    assert_eq!(defaults(&pod), 0);
}

#[test]
fn veth0_is_as_configured() {
    let mut pod = Pod::underlay(r#"{"vethLinkAddress":"169.254.100.1","podRPFilter":-1}"#);
    pod.namespace.links[1].mtu = 9000;
    let steps = pod.add_underlay("eth0");
    for part in ["addr add 169.254.100.1/32 dev veth0", "mtu 9000 type veth"] {
        assert!(steps.iter().any(|step| step.contains(part)), "{part}: {steps:#?}");
    }
    assert!(!steps.iter().any(|step| step.contains("rp_filter")));
    let mut pod = Pod::underlay(r#"{"vethMTU":1400}"#);
    let steps = pod.add_underlay("eth0");
    assert!(steps.iter().any(|step| step.contains("mtu 1400 type veth")), "it was asked for");
}
