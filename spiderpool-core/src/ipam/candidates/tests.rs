use super::*;

/// Pod annotations, namespace annotations, pools of the CNI configuration (IPv4, IPv6), default pools.
#[derive(Default)]
struct Case<'a> {
    pod: &'a [(&'a str, &'a str)],
    namespace: &'a [(&'a str, &'a str)],
    cni: (&'a [&'a str], &'a [&'a str]),
    defaults: &'a [(&'a str, Family)],
    match_master_subnet: bool,
}

fn plan(
    case: &Case<'_>,
    nic: &str,
    families: &[Family],
    auto_pools: AutoPools<'_>,
) -> Result<Vec<String>, String> {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let defaults: Vec<_> = case.defaults.iter().map(|(name, f)| (name.parse().unwrap(), *f)).collect();
    let nic = nic.parse().unwrap();
    let annotations = PodAnnotations::parse(&map(case.pod)).map_err(|e| e.to_string())?;
    let request = CandidateRequest {
        nic: &nic,
        families,
        annotations: &annotations,
        namespace: "shop",
        namespace_annotations: &map(case.namespace),
        cni_ipv4: &list(case.cni.0),
        cni_ipv6: &list(case.cni.1),
        cni_default_route: DefaultRoute::Clean,
        match_master_subnet: case.match_master_subnet,
        auto_pools,
        default_pools: &defaults,
    };
    let matching = |wildcard: &PoolWildcard| {
        let all = [("w1", Some(Family::V4)), ("w2", Some(Family::V6)), ("w3", None)];
        let all = all.map(|(name, family)| (name.parse::<PoolName>().unwrap(), family));
        all.into_iter().filter(|(name, _)| wildcard.matches(name)).collect()
    };
    plan_candidates(&request, matching)
        .map(|candidates| {
            candidates
                .iter()
                .map(|c| {
                    let pools: Vec<_> = c.pools.iter().map(PoolName::as_str).collect();
                    format!("{} {} {} {:?}", c.nic, c.family, pools.join("+"), c.default_route)
                })
                .collect()
        })
        .map_err(|e| e.to_string())
}

#[track_caller]
fn check(case: &Case<'_>, expect: Result<&[&str], &str>) {
    let got = plan(case, "eth0", &Family::ALL, AutoPools::Disabled);
    match expect {
        Ok(lines) => assert_eq!(got, Ok(lines.iter().map(ToString::to_string).collect())),
        Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
    }
}

const IPPOOLS: (&str, &str) =
    (key::IPPOOLS, r#"[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["b"],"ipv6":["c"]}]"#);
const IPPOOL: (&str, &str) = (key::IPPOOL, r#"{"ipv4":["d"]}"#);
const DEFAULTS: &[(&str, Family)] = &[("z4", Family::V4), ("y6", Family::V6), ("y4", Family::V4)];

#[test]
fn the_first_source_wins() {
    let all = Case { pod: &[IPPOOLS, IPPOOL], cni: (&["e"], &[]), defaults: DEFAULTS, ..Case::default() };
    check(&all, Ok(&["eth0 IPv4 a Keep", "net1 IPv4 b Keep", "net1 IPv6 c Keep"]));
    check(&Case { pod: &[IPPOOL], ..all }, Ok(&["eth0 IPv4 d Clean"]));
    check(&Case { pod: &[], ..all }, Ok(&["eth0 IPv4 e Clean"]));
    check(&Case { pod: &[], cni: (&[], &[]), ..all }, Ok(&["eth0 IPv4 y4+z4 Clean", "eth0 IPv6 y6 Clean"]));
    check(&Case::default(), Err("no IPPool available, no pool selection rules of any type are specified"));
}

#[test]
fn subnet_annotations_come_first_of_all() {
    for key in [key::SUBNET, key::SUBNETS] {
        let case = Case { pod: &[(key, "{}"), IPPOOLS], ..Case::default() };
        check(
            &case,
            Err(
                "it's invalid to use 'ipam.spidernet.io/subnets' or 'ipam.spidernet.io/subnet' annotation when \
                 Auto-Pool feature is disabled",
            ),
        );
        let made = ["b", "a"].map(|name| (name.parse().unwrap(), Family::V4));
        let plan = |pools| plan(&case, "eth0", &Family::ALL, AutoPools::Enabled(pools));
        assert_eq!(plan(&made), Ok(vec!["eth0 IPv4 a+b Clean".to_owned()]));
        assert!(plan(&[]).unwrap_err().contains("is listed for NIC eth0 by the Pod annotation"));
    }
}

/// Upstream reads wildcards there, too.
#[test]
fn pools_of_the_namespace_come_before_those_of_the_network() {
    let with = |text| Case {
        namespace: Box::leak(Box::new([(key::NAMESPACE_IPV6_POOLS, text)])),
        cni: (&["e"], &[]),
        defaults: DEFAULTS,
        ..Case::default()
    };
    check(&with(r#"["x"]"#), Ok(&["eth0 IPv6 x Clean"]));
    check(&with(r#"["w*","x"]"#), Ok(&["eth0 IPv6 w2+w3+x Clean"]));
    check(
        &with("junk"),
        Err("annotation 'ipam.spidernet.io/default-ipv6-ippool' of Namespace shop: expected"),
    );
    check(&with("[]"), Ok(&["eth0 IPv4 e Clean"]));
    check(&Case { pod: &[IPPOOL], ..with(r#"["x"]"#) }, Ok(&["eth0 IPv4 d Clean"]));
}

#[test]
fn a_source_without_a_useful_pool_does_not_fall_through() {
    let case = Case { pod: &[(key::IPPOOL, "{}")], defaults: DEFAULTS, ..Case::default() };
    check(
        &case,
        Err(
            "no IPPool of an enabled address family is listed for NIC eth0 by the Pod annotation 'ipam.spidernet.io/ippool'",
        ),
    );
    let only_v6 =
        plan(&Case { pod: &[IPPOOL], ..Case::default() }, "eth0", &[Family::V6], AutoPools::Disabled);
    assert!(only_v6.unwrap_err().starts_with("no IPPool available, "));
}

#[test]
fn what_is_wrong_is_said() {
    check(
        &Case { pod: &[(key::IPPOOL, r#"{"ipv4":["a","b","a"]}"#)], ..Case::default() },
        Err("wrong input, duplicate IPPool a specified for NIC eth0"),
    );
    let absent =
        plan(&Case { pod: &[IPPOOLS], ..Case::default() }, "net2", &Family::ALL, AutoPools::Disabled);
    assert!(absent.unwrap_err().ends_with("'ipam.spidernet.io/ippools': interface net2 must be specified"));
    // Whether that is an error depends on what the NIC holds.
    check(&Case { cni: (&["a*"], &[]), ..Case::default() }, Ok(&["eth0 IPv4  Clean"]));
    check(
        &Case { cni: (&["A"], &[]), ..Case::default() },
        Err("wrong input, the CNI configuration of NIC eth0"),
    );
    check(&Case { match_master_subnet: true, ..Case::default() }, Err("match_master_subnet"));
}
