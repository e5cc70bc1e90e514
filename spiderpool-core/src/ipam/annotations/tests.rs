use proptest::prelude::*;

use super::*;
use crate::ipam::pool_list::PoolReference;

fn parse(pairs: &[(&str, &str)]) -> Result<PodAnnotations, String> {
    let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    PodAnnotations::parse(&annotations).map_err(|e| e.to_string())
}

fn reference(reference: &PoolReference) -> String {
    match reference {
        PoolReference::Name(name) => name.to_string(),
        PoolReference::Wildcard(wildcard) => format!("({wildcard})"),
    }
}

/// NIC, pools and default route of `ippools`, one text per NIC.
#[track_caller]
fn check_ippools(text: &str, networks: Option<&str>, expect: Result<&[&str], &str>) {
    let mut pairs = vec![(key::IPPOOLS, text)];
    pairs.extend(networks.map(|n| (key::MULTUS_NETWORKS, n)));
    let got = parse(&pairs).map(|a| {
        let show = |n: NicPools| {
            let names = |l: Vec<PoolReference>| l.iter().map(reference).collect::<Vec<_>>().join("+");
            format!("{} {}/{} {:?}", n.nic, names(n.pools.ipv4), names(n.pools.ipv6), n.default_route)
        };
        a.ippools.unwrap().into_iter().map(show).collect::<Vec<_>>()
    });
    match expect {
        Ok(nics) => assert_eq!(got, Ok(nics.iter().map(ToString::to_string).collect()), "{text}"),
        Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{text}: {got:?}"),
    }
}

const PREFIX: &str = "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/ippools': ";

#[test]
fn ippools_with_names() {
    check_ippools(
        r#"[{"interface":"eth0","ipv4":["a","b"]},{"interface":"net1","ipv4":["c"],"ipv6":["d"],"cleangateway":true}]"#,
        None,
        Ok(&["eth0 a+b/ Keep", "net1 c/d Clean"]),
    );
    for (text, cause) in [
        ("", "EOF while parsing"),
        ("{}", "invalid type"),
        ("[]", "value requires at least one item"),
        ("null", "value requires at least one item"),
        (r#"[{"interface":"eth0"},{"ipv4":["a"]}]"#, "NIC should be either all specified or all unspecified"),
        (r#"[{"interface":"eth0"},{"interface":"eth0"}]"#, "duplicate interface eth0"),
        (r#"[{"interface":"eth0","ipv4":["UP"]}]"#, "IPPool name \"UP\" is invalid"),
        (r#"[{"interface":"a/b"}]"#, "interface name"),
        (r#"[{"interface":"eth0","ipv4":"a"}]"#, "invalid type: string"),
    ] {
        check_ippools(text, None, Err(PREFIX));
        check_ippools(text, None, Err(cause));
    }
}

#[test]
fn ippools_without_names_follow_the_order_of_the_networks() {
    let text = r#"[{"ipv4":["a"]},{"ipv4":["b"]},{"ipv4":["c"]}]"#;
    check_ippools(text, Some("x, y@data0"), Ok(&["eth0 a/ Keep", "net1 b/ Keep", "data0 c/ Keep"]));
    check_ippools(text, Some("x"), Err("3 items without interface, but the pod has 2 NICs"));
    check_ippools(text, None, Err("has 1 NICs"));
    check_ippools(text, Some("[{"), Err("annotation 'k8s.v1.cni.cncf.io/networks'"));
}

#[test]
fn member_names_are_read_as_go_reads_them() {
    check_ippools(
        r#"[{"Interface":"eth0","IPv4":["a"],"IPV6":null,"CleanGateway":true,"other":1}]"#,
        None,
        Ok(&["eth0 a/ Clean"]),
    );
}

#[test]
fn wildcards_are_told_from_names() {
    check_ippools(
        r#"[{"interface":"eth0","ipv4":["a*","b"],"ipv6":["c[0-9]?"]}]"#,
        None,
        Ok(&["eth0 (a*)+b/(c[0-9]?) Keep"]),
    );
    check_ippools(
        r#"[{"interface":"eth0","ipv4":["a[*"]}]"#,
        None,
        Err("wildcard \"a[*\" for IPPools is invalid"),
    );
}

#[test]
fn a_namespace_lists_pools_by_family() {
    let parse = |pairs: &[(&str, &str)]| {
        let annotations = pairs.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
        pools_of_namespace("shop", &annotations).map_err(|error| error.to_string())
    };
    let both =
        parse(&[(key::NAMESPACE_IPV4_POOLS, r#"["a","b*"]"#), (key::NAMESPACE_IPV6_POOLS, r#"["c"]"#)]);
    let both = both.unwrap();
    let texts = |list: &[PoolReference]| list.iter().map(reference).collect::<Vec<_>>();
    assert_eq!(
        (texts(&both.ipv4), texts(&both.ipv6)),
        (vec!["a".to_owned(), "(b*)".into()], vec!["c".to_owned()])
    );
    for none in ["null", "[]"] {
        assert!(parse(&[(key::NAMESPACE_IPV4_POOLS, none)]).unwrap().is_empty());
    }
    assert!(parse(&[]).unwrap().is_empty());
    for (text, cause) in
        [("junk", "expected"), (r#"["A"]"#, "IPPool name \"A\" is invalid"), ("{}", "invalid type")]
    {
        let error = parse(&[(key::NAMESPACE_IPV6_POOLS, text)]).unwrap_err();
        let start = "wrong input, invalid format of annotation 'ipam.spidernet.io/default-ipv6-ippool' of Namespace shop: ";
        assert!(error.starts_with(start) && error.contains(cause), "{error}");
    }
}

#[test]
fn ippools_wins_over_ippool_which_is_not_even_read() {
    let both =
        parse(&[(key::IPPOOLS, r#"[{"interface":"eth0","ipv4":["a"]}]"#), (key::IPPOOL, "junk")]).unwrap();
    assert_eq!(both.ippool, None);
    let error = parse(&[(key::IPPOOL, "junk")]).unwrap_err();
    assert!(
        error.starts_with(
            "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/ippool': expected"
        ),
        "{error}"
    );
}

#[test]
fn routes_are_pairs_of_one_family() {
    let routes = parse(&[(
        key::ROUTES,
        r#"[{"dst":"10.0.0.0/8","gw":"10.6.0.1"},{"Dst":"fd00::/8","Gw":"fd06::1"}]"#,
    )])
    .unwrap()
    .routes;
    let texts: Vec<_> = routes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.0.0.0/8 via 10.6.0.1", "fd00::/8 via fd06::1"]);
    for text in [
        r#"[{"dst":"10.0.0.0/8","gw":"fd06::1"}]"#,
        r#"[{"dst":"10.0.0.0/40","gw":"10.6.0.1"}]"#,
        r#"[{"dst":"10.0.0.0","gw":"10.6.0.1"}]"#,
        r#"[{"gw":"10.6.0.1"}]"#,
    ] {
        let error = parse(&[(key::ROUTES, text)]).unwrap_err();
        let prefix =
            "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/routes': invalid route format";
        assert!(error.starts_with(prefix), "{error}");
    }
}

proptest! {
    /// Whatever a user writes gives pools or a message.
    #[test]
    fn any_text_is_answered(text in ".{0,40}|[\\[{\"}\\],:a-z0-9 @/]{0,40}", networks in "[a-z0-9,@/\\[{\" ]{0,30}") {
        for key in [key::IPPOOLS, key::IPPOOL, key::ROUTES] {
            if let Err(error) = parse(&[(key, &text), (key::MULTUS_NETWORKS, &networks)]) {
                prop_assert!(error.starts_with("wrong input, "), "{}", error);
            }
        }
    }
}
