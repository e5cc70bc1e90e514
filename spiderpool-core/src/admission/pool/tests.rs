use super::*;
use crate::label_selector::SelectorFields;

const BOTH: Families = Families { v4: true, v6: true };

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn texts(faults: &[FieldError]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn pool(name: &str, subnet: &str, ips: &[&str]) -> Pool {
    Pool::parse(&PoolFields { name, subnet, ips: &owned(ips), ..PoolFields::default() }).unwrap()
}

/// As the first pool of a quick start, which names no version.
#[test]
fn version_and_label_come_from_the_subnet_and_ranges_are_joined() {
    let ips = owned(&["10.6.0.9", "10.6.0.1-10.6.0.8"]);
    let fields = PoolFields { name: "p", subnet: "10.6.0.0/16", ips: &ips, ..PoolFields::default() };
    let defaults = pool_defaults(&fields);
    assert_eq!((defaults.ip_version, defaults.subnet_label.as_deref()), (Some(4), Some("10-6-0-0-16")));
    assert_eq!(defaults.ips.unwrap(), ["10.6.0.1-10.6.0.9"]);
    assert_eq!(defaults.exclude_ips, None);
    let version = PoolFields { ip_version: Some(6), ..fields.clone() };
    assert_eq!(pool_defaults(&version).ip_version, None, "what is written stays, also if it is wrong");
    let unspecified = PoolFields { subnet: "::/64", ips: &[], ..fields.clone() };
    assert_eq!(pool_defaults(&unspecified).subnet_label, None, "the API server would not take it");
    let host_bits = PoolFields { subnet: "10.6.1.0/16", ..fields };
    assert_eq!(pool_defaults(&host_bits).subnet_label, None);
}

#[test]
fn joining_ranges_takes_no_usable_address_away() {
    let ips = owned(&["10.6.0.255", "10.6.0.1-10.6.0.254"]);
    let fields = PoolFields { name: "p", subnet: "10.6.0.0/24", ips: &ips, ..PoolFields::default() };
    assert_eq!(
        pool_defaults(&fields).ips,
        None,
        "the broadcast address is usable because it is named singly"
    );
}

#[test]
fn every_fault_is_in_one_answer() {
    let ips = owned(&["10.6.0.1-10.6.0.9", "10.7.0.1", "x"]);
    let exclude_ips = owned(&["fd00::1"]);
    let fields = PoolFields {
        name: "p",
        ip_version: Some(6),
        subnet: "10.6.0.0/16",
        ips: &ips,
        exclude_ips: &exclude_ips,
        gateway: Some("10.6.0.2"),
        routes: vec![
            ("0.0.0.0/0", "10.6.0.1"),
            ("10.0.0.0/8", "10.9.0.1"),
            ("10.0.0.0/8", "10.6.0.1"),
            ("a", "b"),
        ],
        pod_affinity: Some(SelectorFields::default()),
        ..PoolFields::default()
    };
    let found = texts(&pool_faults(&fields, None, Families { v4: false, v6: true }));
    let starts = [
        "spec.subnet: Forbidden: IPv4 is disabled",
        "spec.ipVersion: Invalid value: \"6\"",
        "spec.ips[1]: Invalid value: \"10.7.0.1\": 10.7.0.1 is not inside of spec.subnet 10.6.0.0/16",
        "spec.ips[2]: Invalid value: \"x\"",
        "spec.excludeIPs[0]: Invalid value: \"fd00::1\"",
        "spec.gateway: Invalid value: \"10.6.0.2\": 10.6.0.2 is one of spec.ips: add it to spec.excludeIPs",
        "spec.routes[3]: Invalid value: \"a via b\"",
        "spec.routes[0].dst: Invalid value: \"0.0.0.0/0\": please specify 'spec.gateway' to configure the default route",
        "spec.routes[1].gw: Invalid value: \"10.9.0.1\": is not an address of spec.subnet 10.6.0.0/16",
        "spec.routes[2].dst: Duplicate value: \"10.0.0.0/8\"",
        "spec.podAffinity: Invalid value: \"{}\": empty podAffinity is invalid for SpiderIPPool",
    ];
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}\nin place of {start}");
    }
    assert_eq!(found.len(), starts.len(), "{found:#?}");
}

#[test]
fn a_subnet_is_not_changeable_unless_it_never_was_one() {
    let fields = |subnet, ip_version| PoolFields { name: "p", subnet, ip_version, ..PoolFields::default() };
    let faults = |new: &PoolFields<'_>, old: &PoolFields<'_>| texts(&pool_faults(new, Some(old), BOTH));
    let old = fields("10.6.0.0/16", Some(4));
    assert_eq!(faults(&old, &old), [""; 0]);
    assert_eq!(
        faults(&fields("fd00::/64", Some(6)), &old),
        ["spec.subnet: Forbidden: is not changeable", "spec.ipVersion: Forbidden: is not changeable"]
    );
    assert_eq!(faults(&old, &fields("10.6.1.0/16", Some(4))), [""; 0]);
}

#[test]
fn a_pool_of_others_addresses_is_refused_by_the_others_names() {
    let ips = owned(&["10.6.0.1-10.6.0.9"]);
    let new = PoolFields { name: "p", subnet: "10.6.0.0/16", ips: &ips, ..PoolFields::default() };
    let same = pool("same", "10.6.0.0/16", &["10.6.0.9-10.6.0.12"]);
    let narrow = pool("narrow", "10.6.9.0/24", &["10.6.9.1"]);
    let far = pool("far", "10.7.0.0/16", &["10.7.0.1"]);
    let own = pool("p", "10.6.0.0/16", &["10.6.0.1"]);
    let disabled = Pool { disabled: true, ..pool("off", "10.6.0.0/16", &["10.6.0.1"]) };
    let others = [&same, &narrow, &far, &own, &disabled];
    let services = ["10.6.0.0/30".parse().unwrap()];
    assert_eq!(
        texts(&overlap_faults(&new, true, others, &services)),
        [
            "spec.ips: Forbidden: overlap with IPPool same in IP ranges [10.6.0.9]",
            "spec.subnet: Invalid value: \"10.6.0.0/16\": overlap with IPPool narrow which 'spec.subnet' is 10.6.9.0/24",
            "spec.ips: Forbidden: IPPool p overlaps the Service CIDR 10.6.0.0/30 in 10.6.0.1-10.6.0.3: change its \
             spec.ips or spec.excludeIPs",
        ]
    );
    assert_eq!(overlap_faults(&new, false, [&narrow], &[]), [], "it was admitted once");
    let disabled = PoolFields { disable: true, ..new };
    assert_eq!(overlap_faults(&disabled, true, others, &services), []);
}

#[test]
fn addresses_in_use_stay_in_the_pool() {
    let lost = |last: u8| (1..=last).rev().map(|n| IpAddr::from([10, 6, 0, n])).collect::<Vec<_>>();
    assert_eq!(in_use_fault("p", lost(0)), None);
    let one = in_use_fault("p", lost(1)).unwrap().to_string();
    assert_eq!(
        one,
        "spec.ips: Forbidden: remove an IP address 10.6.0.1 that is being used by a Pod: see kubectl get spideripaddresses \
         -l ipam.spidernet.io/ippool=p"
    );
    let many = in_use_fault("p", lost(17)).unwrap().to_string();
    assert!(many.contains("10.6.0.5 that is being used by a Pod, and 12 more: see"), "{many}");
    assert_eq!(deletion_fault(0), None);
    assert_eq!(
        deletion_fault(2).unwrap().to_string(),
        "status.allocatedIPCount: Forbidden: cannot delete an IPPool with allocated IPs(2)"
    );
}
