use super::*;
use crate::label_selector::SelectorFields;

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn pool(
    name: &str,
    subnet: &str,
    ips: &[&str],
    exclude: &[&str],
    gateway: Option<&str>,
) -> Result<Pool, PoolError> {
    let (ips, exclude_ips) = (texts(ips), texts(exclude));
    let fields =
        PoolFields { name, subnet, ips: &ips, exclude_ips: &exclude_ips, gateway, ..PoolFields::default() };
    Pool::parse(&fields)
}

#[track_caller]
fn check(subnet: &str, ips: &[&str], exclude: &[&str], gateway: Option<&str>, expect: Result<&str, &str>) {
    let got = pool("p", subnet, ips, exclude, gateway)
        .map(|p| p.usable.ranges().map(|r| r.to_string()).collect::<Vec<_>>().join(" "))
        .map_err(|e| e.to_string());
    match expect {
        Ok(usable) => assert_eq!(got.as_deref(), Ok(usable)),
        Err(part) => assert!(
            got.as_ref().is_err_and(|e| e.starts_with("IPPool p is invalid: ") && e.contains(part)),
            "{got:?}"
        ),
    }
}

#[test]
fn usable_is_ips_without_excluded() {
    check(
        "10.6.0.0/16",
        &["10.6.0.1-10.6.0.9", "10.6.0.5-10.6.0.20"],
        &["10.6.0.7"],
        Some("10.6.0.7"),
        Ok("10.6.0.1-10.6.0.6 10.6.0.8-10.6.0.20"),
    );
    check("10.6.0.0/16", &[], &[], None, Ok(""));
    check(
        "fd00::/64",
        &["fd00::-fd00::ffff:ffff:ffff:ffff"],
        &["fd00::1"],
        Some("fd00::1"),
        Ok("fd00::2-fd00::ffff:ffff:ffff:ffff"),
    );
}

/// A pod with one of them answers nobody: its neighbors take what it sends for a broadcast, routers answer for it.
#[test]
fn network_broadcast_and_subnet_router_anycast_addresses_of_a_range_are_not_usable() {
    check("10.6.0.0/24", &["10.6.0.0-10.6.0.255"], &[], None, Ok("10.6.0.1-10.6.0.254"));
    check("10.6.0.0/30", &["10.6.0.0-10.6.0.3"], &[], None, Ok("10.6.0.1-10.6.0.2"));
    check("fd00::/126", &["fd00::-fd00::3"], &[], None, Ok("fd00::1-fd00::3"));
    check("0.0.0.0/0", &["255.255.255.254-255.255.255.255"], &[], None, Ok("255.255.255.254"));
    // A range inside of the subnet has ends of its own.
    check("10.6.0.0/16", &["10.6.1.0-10.6.1.255"], &[], None, Ok("10.6.1.0-10.6.1.255"));
    // The gateway is not in their way.
    check("fd00::/64", &["fd00::-fd00::f"], &[], Some("fd00::"), Ok("fd00::1-fd00::f"));
}

/// RFC 3021 and RFC 6164: links of two hosts.
#[test]
fn subnets_of_two_or_one_address_have_only_hosts() {
    check("10.6.0.0/31", &["10.6.0.0-10.6.0.1"], &[], None, Ok("10.6.0.0-10.6.0.1"));
    check("10.6.0.7/32", &["10.6.0.7"], &[], None, Ok("10.6.0.7"));
    check("fd00::/127", &["fd00::-fd00::1"], &[], None, Ok("fd00::-fd00::1"));
    check("fd00::7/128", &["fd00::7"], &[], None, Ok("fd00::7"));
}

#[test]
fn a_network_or_broadcast_address_that_is_named_singly_is_usable_and_known() {
    let special = |subnet, ips: &[&str], exclude: &[&str]| {
        let pool = pool("p", subnet, ips, exclude, None).unwrap();
        pool.usable_special().map(|special| special.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        special("10.6.0.0/24", &["10.6.0.0-10.6.0.9", "10.6.0.0", "10.6.0.255-10.6.0.255"], &[]),
        [
            "10.6.0.0 is the network address of spec.subnet",
            "10.6.0.255 is the broadcast address of spec.subnet"
        ]
    );
    assert_eq!(
        special("fd00::/64", &["fd00::"], &[]),
        ["fd00:: is the subnet-router anycast address of spec.subnet"]
    );
    assert!(special("10.6.0.0/24", &["10.6.0.0"], &["10.6.0.0"]).is_empty());
    assert!(special("10.6.0.0/24", &["10.6.0.0-10.6.0.255"], &[]).is_empty());
    assert!(special("10.6.0.0/31", &["10.6.0.0"], &[]).is_empty());
}

#[test]
fn each_fault_is_named_with_its_field() {
    check(
        "10.6.1.0/16",
        &[],
        &[],
        None,
        Err("spec.subnet: unformatted subnet 10.6.1.0/16, please change it to 10.6.0.0/16"),
    );
    check("10.6.0.0", &[], &[], None, Err("spec.subnet: \"10.6.0.0\" is not a network"));
    check(
        "10.6.0.0/16",
        &["10.7.0.1"],
        &[],
        None,
        Err("spec.ips[0]: 10.7.0.1 is not inside of spec.subnet 10.6.0.0/16"),
    );
    check("10.6.0.0/16", &["10.6.0.1-10.7.0.1"], &[], None, Err("is not inside of"));
    check("10.6.0.0/16", &["fd00::1"], &[], None, Err("is not inside of"));
    check("10.6.0.0/16", &[], &["10.7.0.1"], None, Err("spec.excludeIPs[0]: 10.7.0.1 is not inside of"));
    check(
        "10.6.0.0/16",
        &["10.6.0.9-10.6.0.1"],
        &[],
        None,
        Err("spec.ips[0]: IP range \"10.6.0.9-10.6.0.1\" is reversed"),
    );
    check("10.6.0.0/16", &["10.6.0.0/24"], &[], None, Err("is a CIDR"));
    check("10.6.0.0/16", &["10.6.0.1-10.6.0.9"], &[], Some("10.6.0.1"), Err("add it to spec.excludeIPs"));
    check(
        "10.6.0.0/16",
        &[],
        &[],
        Some("10.7.0.1"),
        Err("spec.gateway: 10.7.0.1 is not an address of spec.subnet"),
    );
    check("10.6.0.0/16", &[], &[], Some("x"), Err("spec.gateway: \"x\" is not an address"));
}

#[test]
fn version_and_routes_are_checked() {
    let fields =
        PoolFields { name: "p", subnet: "10.6.0.0/16", ip_version: Some(6), ..PoolFields::default() };
    let error = Pool::parse(&fields).unwrap_err().to_string();
    assert!(
        error.contains("spec.ipVersion: 6 is not the version of spec.subnet 10.6.0.0/16, which is IPv4"),
        "{error}"
    );
    let fields = PoolFields { ip_version: Some(4), routes: vec![("10.0.0.0/8", "10.6.0.1")], ..fields };
    assert_eq!(Pool::parse(&fields).unwrap().routes.len(), 1);
    let fields = PoolFields { routes: vec![("10.0.0.0/8", "fd00::1")], ..fields };
    let error = Pool::parse(&fields).unwrap_err().to_string();
    assert!(error.contains("spec.routes[0]: "), "{error}");
}

#[test]
fn all_faults_are_found_in_the_order_of_the_fields() {
    let (ips, exclude_ips) = (texts(&["10.6.0.1", "10.7.0.1", "x"]), texts(&["y"]));
    let labels = [("a b".to_owned(), "c".to_owned())].into();
    let selector = SelectorFields { match_labels: Some(&labels), ..SelectorFields::default() };
    let fields = PoolFields {
        name: "P",
        ip_version: Some(6),
        subnet: "10.6.1.0/16",
        ips: &ips,
        exclude_ips: &exclude_ips,
        gateway: Some("10.6.0.1"),
        routes: vec![("10.0.0.0/8", "10.6.0.1"), ("z", "10.6.0.1")],
        node_affinity: Some(selector),
        ..PoolFields::default()
    };
    let error = Pool::parse(&fields).unwrap_err();
    let paths: Vec<_> = error.faults.iter().map(|fault| fault.path.as_str()).collect();
    let expected = [
        "metadata.name",
        "spec.subnet",
        "spec.ipVersion",
        "spec.ips[1]",
        "spec.ips[2]",
        "spec.excludeIPs[0]",
        "spec.gateway",
        "spec.routes[1]",
        "spec.nodeAffinity.matchLabels[a b]",
    ];
    assert_eq!(paths, expected);
    let text = error.to_string();
    assert!(text.starts_with("IPPool P is invalid: [metadata.name: "), "{text}");
    assert!(expected.iter().all(|path| text.contains(&format!("{path}: "))), "{text}");
}

/// Without a subnet to compare with, what can be said of the other fields is said.
#[test]
fn a_subnet_that_does_not_parse_hides_no_other_fault() {
    let error = pool("p", "x", &["10.6.0.1", "y"], &[], Some("z")).unwrap_err();
    let paths: Vec<_> = error.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["spec.subnet", "spec.ips[1]", "spec.gateway"]);
}

#[test]
fn pools_must_not_share_an_address() {
    let a = pool("a", "10.6.0.0/16", &["10.6.0.1-10.6.0.9"], &[], None).unwrap();
    let b = pool("b", "10.6.0.0/16", &["10.6.0.8-10.6.0.20"], &[], None).unwrap();
    let c = pool("c", "10.6.0.0/16", &["10.6.0.8-10.6.0.20"], &["10.6.0.8-10.6.0.9"], None).unwrap();
    let d = pool("d", "fd00::/64", &["fd00::1"], &[], None).unwrap();
    let ranges = shared_addresses(&a, &b);
    assert_eq!(shared_addresses(&b, &a), ranges);
    let conflict = PoolConflict::OlderPool { pool: b.name.clone(), older: a.name.clone(), ranges };
    assert_eq!(conflict.to_string(), "IPPool b overlaps the older IPPool a in 10.6.0.8-10.6.0.9");
    assert!(shared_addresses(&a, &c).is_empty() && shared_addresses(&a, &d).is_empty());
}

#[test]
fn addresses_of_services_are_a_conflict_and_a_subnet_around_them_is_none() {
    let cidrs = ["fd96::/112", "10.96.0.0/16"].map(|cidr| cidr.parse().unwrap());
    let conflict = |ips: &[&str], exclude: &[&str]| {
        let pool = pool("p", "10.0.0.0/8", ips, exclude, None).unwrap();
        PoolConflict::with_service_cidrs(&pool, &cidrs).map(|conflict| conflict.to_string())
    };
    assert_eq!(
        conflict(&["10.95.255.0-10.96.0.9"], &[]).as_deref(),
        Some("IPPool p overlaps the Service CIDR 10.96.0.0/16 in 10.96.0.0-10.96.0.9")
    );
    assert_eq!(conflict(&["10.95.255.0-10.96.0.9"], &["10.96.0.0-10.96.0.9"]), None);
    assert_eq!(conflict(&["10.6.0.1-10.6.0.9"], &[]), None);
}

#[test]
fn free_is_what_nobody_has() {
    let pool = pool("a", "10.6.0.0/16", &["10.6.0.1-10.6.0.9"], &[], None).unwrap();
    let set = |range: &str| IpSet::from_ranges(Family::V4, [range.parse().unwrap()]);
    let reserved = set("10.6.0.1-10.6.0.3");
    let in_use = set("10.6.0.9");
    let free: Vec<_> = pool.free(&reserved, &in_use).ranges().map(|r| r.to_string()).collect();
    assert_eq!(free, ["10.6.0.4-10.6.0.8"]);
    assert_eq!(pool.with_prefix("10.6.0.4".parse().unwrap()).unwrap().to_string(), "10.6.0.4/16");
}
