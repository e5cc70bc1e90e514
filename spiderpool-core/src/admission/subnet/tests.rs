use std::collections::BTreeMap;

use super::*;
use crate::label_selector::{ExpressionFields, SelectorFields};

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn texts(faults: impl IntoIterator<Item = FieldError>) -> Vec<String> {
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

fn fields<'a>(name: &'a str, subnet: &'a str, ips: &'a [String]) -> PoolFields<'a> {
    PoolFields { name, subnet, ips, ..PoolFields::default() }
}

fn pool(name: &str, subnet: &str, ips: &[&str]) -> Pool {
    Pool::parse(&fields(name, subnet, &owned(ips))).unwrap()
}

fn subnet(name: &str, cidr: &str, ips: &[&str]) -> Subnet {
    Subnet::parse(&fields(name, cidr, &owned(ips))).unwrap()
}

fn records(text: &str) -> ControlledPools {
    ControlledPools::parse(Some(text), crate::ip::Family::V4)
}

#[test]
fn a_subnet_is_refused_where_another_one_or_a_pool_of_another_prefix_length_is() {
    let new = fields("s", "10.6.0.0/16", &[]);
    let others = [
        subnet("same", "10.6.0.0/16", &[]),
        subnet("wide", "10.0.0.0/8", &["10.9.0.1"]),
        subnet("far", "10.7.0.0/16", &[]),
        subnet("s", "10.6.0.0/16", &[]),
    ];
    let pools = [
        pool("member", "10.6.0.0/16", &["10.6.0.1"]),
        pool("narrow", "10.6.9.0/24", &[]),
        pool("six", "fd00::/64", &[]),
    ];
    assert_eq!(
        texts(overlap_faults(&new, None, &others, &pools)),
        [
            "spec.subnet: Invalid value: \"10.6.0.0/16\": overlap with SpiderSubnet same which 'spec.subnet' is 10.6.0.0/16",
            "spec.subnet: Invalid value: \"10.6.0.0/16\": overlap with SpiderSubnet wide which 'spec.subnet' is 10.0.0.0/8",
            "spec.subnet: Invalid value: \"10.6.0.0/16\": overlap with SpiderIPPool narrow which 'spec.subnet' is 10.6.9.0/24",
        ]
    );
    assert_eq!(overlap_faults(&new, Some(&new), &others, &pools), [], "it was admitted once");
    let invalid = fields("s", "10.6.1.0/16", &[]);
    assert_eq!(overlap_faults(&new, Some(&invalid), &others, &pools).len(), 3, "it is corrected");
    assert_eq!(overlap_faults(&invalid, None, &others, &pools), [], "that is said by other rules");
}

#[test]
fn a_subnet_of_services_addresses_is_refused() {
    let ips = owned(&["10.6.0.1-10.6.0.9"]);
    let new = fields("s", "10.6.0.0/16", &ips);
    assert_eq!(
        texts(service_fault(&new, &["10.6.0.0/30".parse().unwrap()])),
        [
            "spec.ips: Forbidden: SpiderSubnet s overlaps the Service CIDR 10.6.0.0/30 in 10.6.0.1-10.6.0.3: change its \
          spec.ips or spec.excludeIPs"
        ]
    );
    assert_eq!(service_fault(&new, &["10.97.0.0/16".parse().unwrap()]), None);
}

#[test]
fn what_pools_have_stays_in_the_subnet() {
    let wide = owned(&["10.6.0.1-10.6.0.100"]);
    let narrow = owned(&["10.6.0.1-10.6.0.9"]);
    let [old, new] = [&wide, &narrow].map(|ips| fields("s", "10.6.0.0/16", ips));
    let recorded = records(
        r#"{"auto":{"ips":["10.6.0.8-10.6.0.12"],"application":"apps_v1_Deployment_a_b"},"both":{"ips":["10.6.0.40"]},
            "empty":{"ips":[]}}"#,
    );
    let members = [pool("both", "10.6.0.0/16", &["10.6.0.50"]), pool("low", "10.6.0.0/16", &["10.6.0.2"])];
    let held = held(&recorded, &members);
    assert_eq!(held.keys().collect::<Vec<_>>(), ["auto", "both", "low"]);
    assert_eq!(
        texts(held_faults(&new, Some(&old), &held)),
        [
            "spec.ips: Forbidden: remove some IP ranges [10.6.0.10-10.6.0.12] that is being used by IPPool auto",
            "spec.ips: Forbidden: remove some IP ranges [10.6.0.40, 10.6.0.50] that is being used by IPPool both",
        ]
    );
    assert_eq!(held_faults(&old, Some(&new), &held), [], "it grows");
    assert_eq!(held_faults(&new, Some(&new), &held), [], "what it lost before is no fault of this change");
    assert_eq!(
        texts(held_faults(&new, None, &held)),
        [
            "spec.ips: Forbidden: SpiderIPPool auto owns some IP addresses [10.6.0.10-10.6.0.12] that SpiderSubnet s can't \
             control: add them, or take them from the pool",
            "spec.ips: Forbidden: SpiderIPPool both owns some IP addresses [10.6.0.40, 10.6.0.50] that SpiderSubnet s can't \
             control: add them, or take them from the pool",
        ]
    );
    let excluded = owned(&["10.6.0.11"]);
    let excluding = PoolFields { exclude_ips: &excluded, ..old.clone() };
    assert_eq!(held_faults(&excluding, Some(&old), &held).len(), 1);
}

#[test]
fn a_subnet_with_pools_is_not_deleted_and_they_are_named() {
    assert_eq!(deletion_fault(&BTreeMap::new()), None);
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let pools = names.map(|name| pool(name, "10.6.0.0/16", &["10.6.0.1"]));
    assert_eq!(
        texts(deletion_fault(&held(&ControlledPools::default(), &pools))),
        [
            "status.allocatedIPCount: Forbidden: cannot delete a SpiderSubnet with allocated IPs(7): IPPool a, b, c, d, e and 2 \
          more have them, delete these first"
        ]
    );
}

#[test]
fn a_pool_is_within_its_subnet_or_elsewhere() {
    let subnet = subnet("s", "10.6.0.0/16", &["10.6.0.1-10.6.0.9"]);
    let ips = owned(&["10.6.0.8-10.6.0.12"]);
    let new = fields("p", "10.6.0.0/16", &ips);
    assert_eq!(
        texts(outside_fault(&new, None, &subnet)),
        [
            "spec.ips: Forbidden: add some IP ranges [10.6.0.10-10.6.0.12] that are not contained in controller SpiderSubnet s: \
          add them to the subnet first"
        ]
    );
    assert_eq!(outside_fault(&new, Some(&new), &subnet), None, "of a time before");
    let exclude = owned(&["10.6.0.10-10.6.0.12"]);
    assert_eq!(outside_fault(&PoolFields { exclude_ips: &exclude, ..new }, None, &subnet), None);
    let narrow = fields("p", "10.6.9.0/24", &[]);
    assert_eq!(
        texts(other_subnet_faults(&narrow, [&subnet])),
        [
            "spec.subnet: Invalid value: \"10.6.9.0/24\": overlap with SpiderSubnet s which 'spec.subnet' is 10.6.0.0/16: a pool \
          of it has the same 'spec.subnet'"
        ]
    );
    for elsewhere in ["10.6.0.0/16", "10.7.0.0/16", "fd00::/64"] {
        assert_eq!(other_subnet_faults(&fields("p", elsewhere, &[]), [&subnet]), []);
    }
}

#[test]
fn an_applications_pool_is_for_its_pods_alone() {
    let of = |pod_affinity| PoolFields { pod_affinity, ..fields("p", "10.6.0.0/16", &[]) };
    let mut labels = crate::subnet::Application::new("apps/v1", "Deployment", "ns", "web").pod_labels();
    let own = labels.clone();
    let own = SelectorFields { match_labels: Some(&own), match_expressions: Vec::new() };
    assert_eq!(affinity_faults(&of(Some(own))), []);
    labels.insert("team".to_owned(), "a".to_owned());
    let more = SelectorFields {
        match_labels: Some(&labels),
        match_expressions: vec![ExpressionFields { key: "tier", operator: "Exists", values: &[] }],
    };
    let detail = "it's invalid to add additional podAffinity to a pool that is made for an application";
    assert_eq!(
        texts(affinity_faults(&of(Some(more)))),
        ["matchLabels team=a", "matchExpressions tier"]
            .map(|part| format!("spec.podAffinity: Invalid value: \"{part}\": {detail}"))
    );
    assert_eq!(
        texts(affinity_faults(&of(None))),
        ["spec.podAffinity: Required value: a pool that is made for an application names the application"]
    );
}

/// Upstream's case I00018.
#[test]
fn the_addresses_of_an_applications_pool_are_those_of_its_record() {
    let records = records(r#"{"auto":{"ips":["10.6.0.1-10.6.0.2"]}}"#);
    let [two, three, joined] =
        [&["10.6.0.1", "10.6.0.2"][..], &["10.6.0.1-10.6.0.3"], &["10.6.0.1-10.6.0.2"]].map(owned);
    let of = |name, ips| fields(name, "10.6.0.0/16", ips);
    let check = |new: PoolFields<'_>, old: Option<PoolFields<'_>>| {
        texts(carved_fault(&new, old.as_ref(), "s", &records))
    };
    for ips in [&two, &joined] {
        assert_eq!(check(of("auto", ips), None), [""; 0]);
    }
    let refused = check(of("auto", &three), Some(of("auto", &two)));
    assert_eq!(
        refused,
        [
            "spec.ips: Forbidden: it's illegal to update AutoPool.Spec.IPs that are different from those that SpiderSubnet s \
          has for the pool in status.controlledIPPools: [10.6.0.1-10.6.0.2], and not [10.6.0.1-10.6.0.3]; the Pod annotation \
          ipam.spidernet.io/ippool-ip-number says how many the application gets"
        ]
    );
    assert_eq!(check(of("auto", &three), Some(of("auto", &three))), [""; 0], "its addresses do not change");
    assert_eq!(check(of("auto", &[]), Some(of("auto", &two))).len(), 1, "the subnet has some for it");
    assert_eq!(check(of("scaled-to-0", &[]), None), [""; 0]);
    assert_eq!(check(of("unknown", &two), None).len(), 1);
}
