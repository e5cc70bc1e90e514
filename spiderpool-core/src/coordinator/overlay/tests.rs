//! Plans for pods of a Calico-like node, as snapshots.

use super::*;
use crate::Unsupported;
use crate::coordinator::fixture::{Pod, link, nic, route};
use crate::coordinator::{Namespace, Step, project, unsteered_destinations};
use crate::ip::Family;
use crate::mac::MacAddr;
use crate::net::{Address, Medium};

impl Pod {
    fn plan(&self, name: &str) -> Result<EbpfPlan, PlanError> {
        plan_overlay(&self.inputs(&nic(name)))
    }

    fn apply_plan(&mut self, plan: &EbpfPlan) {
        self.apply(&[plan.links.as_slice(), &plan.routes].concat());
    }

    /// Writing a kernel parameter again changes nothing, so it may stay in a repeated plan.
    fn check_settled(&self, name: &str) {
        let plan = self.plan(name).unwrap();
        let rest: Vec<_> = plan.links.iter().filter(|s| !matches!(s, Step::SetSysctl { .. })).collect();
        assert_eq!((rest, &plan.routes), (vec![], &vec![]));
    }
}

#[test]
fn the_default_route_stays_on_eth0() {
    let mut pod = Pod::new("{}");
    let plan = pod.plan("net1").unwrap();
    insta::assert_snapshot!("default_on_eth0", plan);
    pod.apply_plan(&plan);
    pod.check_settled("net1");
}

#[test]
fn the_default_route_moves_to_net1() {
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net1"}"#);
    let plan = pod.plan("net1").unwrap();
    insta::assert_snapshot!("default_on_net1", plan);
    pod.apply_plan(&plan);
    pod.check_settled("net1");
}

#[test]
fn everything_that_can_be_configured() {
    let mut pod = Pod::new(
        r#"{"podMACPrefix":"0a:1b","txQueueLen":2000,"vethMTU":9000,"podRPFilter":-1,"podDefaultRouteNic":"net1",
            "policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"}],"ebpf":{"routeHints":"never"}}"#,
    );
    pod.namespace.links[2].up = false;
    let plan = pod.plan("net1").unwrap();
    insta::assert_snapshot!("everything", plan);
    pod.apply_plan(&plan);
    pod.check_settled("net1");
    assert!(
        unsteered_destinations(&pod.namespace.routes, &nic("eth0"))
            .contains(&"192.168.3.0/24".parse().unwrap())
    );
}

#[test]
fn an_ipv4_pod_is_not_given_ipv6() {
    let mut pod = Pod::new("{}");
    pod.namespace.addresses.retain(|a| a.net.addr().is_ipv4());
    pod.namespace.routes.retain(|r| r.family() == Family::V4);
    let text = pod.plan("net1").unwrap().to_string();
    assert!(!text.contains("fd00") && !text.contains("fe80") && !text.contains("disable_ipv6"), "{text}");
}

#[test]
fn a_second_underlay_nic_shares_the_node_link() {
    let mut pod = Pod::new("{}");
    let plan = pod.plan("net1").unwrap();
    pod.apply_plan(&plan);
    pod.namespace.links.push(link(10, "net2", "macvlan"));
    pod.namespace.addresses.push(Address::new(nic("net2"), "10.7.0.5/16".parse().unwrap()));
    pod.namespace.routes.push(route("10.7.0.0/16", "net2", None, 0));
    pod.namespace.routes.push(route("0.0.0.0/0", "net2", Some("10.7.0.1"), 0));
    let plan = pod.plan("net2").unwrap();
    insta::assert_snapshot!("second_nic", plan);
    pod.apply_plan(&plan);
    pod.check_settled("net2");
    pod.check_settled("net1");
}

#[test]
fn undoing_goes_back_to_what_was() {
    let pod = Pod::new(r#"{"podMACPrefix":"0a:1b","podDefaultRouteNic":"net1"}"#);
    let plan = pod.plan("net1").unwrap();
    let undo: Vec<_> = plan.routes.iter().rev().filter_map(|step| step.inverse(None)).collect();
    let mut routes = project(&project(&pod.namespace.routes, &plan.routes), &undo);
    let mut before = pod.namespace.routes.clone();
    for list in [&mut routes, &mut before] {
        list.sort_by_key(ToString::to_string);
    }
    assert_eq!(routes, before);
    let mac = plan.links.iter().find(|s| matches!(s, Step::SetMac { .. })).unwrap();
    assert_eq!(
        mac.inverse(None),
        Some(Step::SetMac {
            dev: nic("net1"),
            mac: MacAddr([2, 0, 0, 0, 0, 3]),
            before: Some("0a:1b:0a:06:d4:91".parse().unwrap())
        })
    );
}

#[test]
fn a_sysctl_is_undone_only_if_it_changed() {
    let step = Step::interface_sysctl(Namespace::Pod, Family::V4, "eth0", "arp_announce", 2);
    assert_eq!(step.inverse(Some("2")), None);
    let undo = step.inverse(Some("0")).unwrap();
    assert_eq!(undo.to_string(), "pod: sysctl net/ipv4/conf/eth0/arp_announce = 0");
}

#[test]
fn connected_subnets_and_pool_routes_stay() {
    let mut pod = Pod::new("{}");
    pod.namespace.routes.push(route("192.168.0.0/16", "net1", Some("10.6.0.9"), 0));
    pod.namespace.routes.push(route("fe80::/64", "net1", None, 256));
    let found: Vec<_> =
        unsteered_destinations(&pod.namespace.routes, &nic("eth0")).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.6.0.0/16", "192.168.0.0/16", "fd00:10:6::/64"]);
}

/// Upstream fails where a second NIC cannot have a route of policyRoutes, or the first has it already.
#[test]
fn policy_routes_are_for_the_nics_that_reach_their_gateways() {
    let mut pod = Pod::new(
        r#"{"policyRoutes":[{"dst":"192.168.3.0/24","gw":"10.6.0.9"},{"dst":"192.168.4.0/24","gw":"10.8.0.9"},
            {"dst":"10.233.0.0/18","gw":"10.6.0.9"}]}"#,
    );
    let policy = |plan: &EbpfPlan| {
        let steps = plan.routes.iter().map(ToString::to_string);
        steps.filter(|step| step.contains("route add") && step.contains(".0.9")).collect::<Vec<_>>()
    };
    let plan = pod.plan("net1").unwrap();
    assert_eq!(
        policy(&plan),
        [
            "pod: route add 192.168.3.0/24 via 10.6.0.9 dev net1 proto 0x53",
            "pod: route add 10.233.0.0/18 via 10.6.0.9 dev net1 proto 0x53",
        ]
    );
    pod.apply_plan(&plan);
    for (position, (name, address)) in
        [("net2", "10.6.0.77/16"), ("net3", "10.7.0.5/16")].into_iter().enumerate()
    {
        pod.namespace.links.push(link(10 + position as u32, name, "macvlan"));
        pod.namespace.addresses.push(Address::new(nic(name), address.parse().unwrap()));
        assert_eq!(policy(&pod.plan(name).unwrap()), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_policy_route_takes_the_place_of_a_hint() {
    let settings = r#"{"podDefaultRouteNic":"net1"}"#;
    let mut pod = Pod::new(settings);
    let plan = pod.plan("net1").unwrap();
    pod.apply_plan(&plan);
    let policy = r#"{"podDefaultRouteNic":"net1","policyRoutes":[{"dst":"10.233.0.0/18","gw":"10.6.0.9"}]}"#;
    pod.config = Pod::new(policy).config;
    let shown: Vec<_> = pod.plan("net1").unwrap().routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "pod: route del 10.233.0.0/18 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
            "pod: route add 10.233.0.0/18 via 10.6.0.9 dev net1 proto 0x53",
        ]
    );
}

#[test]
fn a_default_route_nic_that_never_comes_is_an_error() {
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net9"}"#);
    assert!(pod.plan("net1").is_ok(), "nobody knows what comes");
    pod.expected = Some(vec![nic("net1"), nic("net9")]);
    assert!(pod.plan("net1").is_ok(), "it comes later");
    pod.expected = Some(vec![nic("net1")]);
    let error = pod.plan("net1").unwrap_err();
    assert_eq!(error, PlanError::DefaultRouteNic(nic("net9")));
    assert!(error.to_string().contains("podDefaultRouteNIC: net9 don't exist in pod"), "{error}");
    pod.config.tune_pod_routes = false;
    assert!(pod.plan("net1").is_ok(), "no route is tuned");
    let mut pod = Pod::new(r#"{"podDefaultRouteNic":"net1"}"#);
    pod.expected = Some(vec![]);
    assert!(pod.plan("net1").is_ok(), "the NIC that is added is there");
}

#[test]
fn pods_that_cannot_be_set_up_are_told_apart() {
    let pod = Pod::new("{}");
    assert_eq!(pod.plan("net9"), Err(PlanError::NoNic(nic("net9"))));
    let mut pod = Pod::new("{}");
    pod.namespace.addresses.retain(|a| a.dev.as_str() != "net1");
    assert_eq!(pod.plan("net1"), Err(PlanError::NoAddress(nic("net1"))));
    let mut pod = Pod::new("{}");
    pod.namespace.links.remove(1);
    assert_eq!(pod.plan("net1"), Err(PlanError::NoClusterNic(nic("eth0"))));
    let mut pod = Pod::new(r#"{"podMACPrefix":"0a:1b"}"#);
    pod.namespace.links[2].kind = "ipvlan".to_owned();
    assert_eq!(pod.plan("net1"), Err(PlanError::IpvlanMac(nic("net1"))));
    let mut pod = Pod::new("{}");
    pod.namespace.links[2].medium = Medium::Infiniband;
    assert!(matches!(pod.plan("net1"), Err(PlanError::Unsupported(Unsupported::LinkLayer(_)))));
}
