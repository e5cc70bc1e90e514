//! Which pools the NICs of a pod may draw from, by the source that comes first. Sources are never mixed: a source
//! that is there but names nothing useful is an error, never a reason to take the next one.

use std::collections::BTreeMap;

use super::annotations::{PodAnnotations, PoolLists, from_go_json, key};
use super::error::IpamError;
use crate::ip::Family;
use crate::names::{IfName, PoolName};

/// Whether a NIC gets a default route by its pool's gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// It does.
    #[default]
    Keep,
    /// It does not (`cleangateway`).
    Clean,
}

/// Whether pools are made for applications that name a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPool {
    /// `enableSpiderSubnet` and `enableAutoPoolForApplication`.
    Enabled,
    /// One of them is off.
    Disabled,
}

/// What decides about a NIC's pools.
#[derive(Debug, Clone)]
pub struct CandidateRequest<'a> {
    /// The NIC that is being added.
    pub nic: &'a IfName,
    /// The families that the configuration enables.
    pub families: &'a [Family],
    /// The pod's annotations.
    pub annotations: &'a PodAnnotations,
    /// The annotations of its namespace.
    pub namespace_annotations: &'a BTreeMap<String, String>,
    /// IPv4 pools of the CNI configuration.
    pub cni_ipv4: &'a [String],
    /// IPv6 pools of the CNI configuration.
    pub cni_ipv6: &'a [String],
    /// `clean_gateway` of the CNI configuration.
    pub cni_default_route: DefaultRoute,
    /// `match_master_subnet` of the CNI configuration.
    pub match_master_subnet: bool,
    /// Whether subnet annotations are served.
    pub auto_pool: AutoPool,
    /// The pools with `spec.default`, and their families.
    pub default_pools: &'a [(PoolName, Family)],
}

/// One address that is wanted: a NIC, a family, and where it may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The NIC.
    pub nic: IfName,
    /// The family.
    pub family: Family,
    /// The pools, best first.
    pub pools: Vec<PoolName>,
    /// Whether the NIC gets a default route.
    pub default_route: DefaultRoute,
}

/// The addresses that are wanted. The annotation `ippools` speaks of all NICs of the pod, everything else of the
/// one that is being added.
pub fn plan_candidates(request: &CandidateRequest<'_>) -> Result<Vec<Candidate>, IpamError> {
    if request.match_master_subnet {
        return Err(IpamError::NotSupported {
            what: format!("match_master_subnet in the CNI configuration of NIC {}", request.nic),
            advice: "set it to false and name the IPPools",
        });
    }
    let (source_name, nics) = choose_source(request)?;
    let mut candidates = Vec::new();
    for (nic, lists, default_route) in nics {
        for &family in request.families {
            let pools = lists.of(family).to_vec();
            if let Some(pool) = first_duplicate(&pools) {
                return Err(IpamError::DuplicatePool { pool, nic });
            }
            if !pools.is_empty() {
                candidates.push(Candidate { nic: nic.clone(), family, pools, default_route });
            }
        }
        if !candidates.iter().any(|candidate| candidate.nic == nic) {
            return Err(IpamError::NoPoolOfFamily { source_name: source_name.to_owned(), nic });
        }
    }
    Ok(candidates)
}

type NicSource = (IfName, PoolLists, DefaultRoute);

fn choose_source(request: &CandidateRequest<'_>) -> Result<(&'static str, Vec<NicSource>), IpamError> {
    let one = |lists: PoolLists| vec![(request.nic.clone(), lists, request.cni_default_route)];
    if request.annotations.wants_subnet {
        return Err(match request.auto_pool {
            AutoPool::Disabled => IpamError::AutoPoolDisabled,
            AutoPool::Enabled => IpamError::NotSupported {
                what: format!("the Pod annotation '{}' or '{}'", key::SUBNETS, key::SUBNET),
                advice: "name an IPPool in 'ipam.spidernet.io/ippool'",
            },
        });
    }
    if let Some(nics) = &request.annotations.ippools {
        if !nics.iter().any(|entry| entry.nic == *request.nic) {
            let cause = format!("interface {} must be specified", request.nic);
            return Err(IpamError::Annotation { key: key::IPPOOLS, cause });
        }
        let nics = nics.iter().map(|e| (e.nic.clone(), e.pools.clone(), e.default_route)).collect();
        return Ok(("the Pod annotation 'ipam.spidernet.io/ippools'", nics));
    }
    if let Some(lists) = &request.annotations.ippool {
        return Ok(("the Pod annotation 'ipam.spidernet.io/ippool'", one(lists.clone())));
    }
    refuse_namespace_pools(request.namespace_annotations)?;
    if !request.cni_ipv4.is_empty() || !request.cni_ipv6.is_empty() {
        let invalid = |cause| IpamError::CniPools { nic: request.nic.clone(), cause };
        let lists = PoolLists::parse(request.cni_ipv4, request.cni_ipv6, "the CNI configuration", invalid)?;
        return Ok(("the CNI configuration", one(lists)));
    }
    if request.default_pools.is_empty() {
        return Err(IpamError::NoSource);
    }
    Ok(("the cluster's default", one(default_lists(request.default_pools))))
}

/// Default pools have no order of their own: by name, so that every agent tries them alike.
fn default_lists(pools: &[(PoolName, Family)]) -> PoolLists {
    let of = |family: Family| {
        let mut names: Vec<_> =
            pools.iter().filter(|(_, f)| *f == family).map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    PoolLists { ipv4: of(Family::V4), ipv6: of(Family::V6) }
}

/// A list in either annotation of the namespace would decide; an empty one would not.
fn refuse_namespace_pools(annotations: &BTreeMap<String, String>) -> Result<(), IpamError> {
    for key in [key::NAMESPACE_IPV4_POOLS, key::NAMESPACE_IPV6_POOLS] {
        let Some(text) = annotations.get(key) else { continue };
        let names: Result<Option<Vec<String>>, _> = from_go_json(text);
        if !names.is_ok_and(|names| names.is_none_or(|names| names.is_empty())) {
            return Err(IpamError::NotSupported {
                what: format!("the Namespace annotation '{key}'"),
                advice: "name the IPPools in the Pod annotation 'ipam.spidernet.io/ippool'",
            });
        }
    }
    Ok(())
}

fn first_duplicate(pools: &[PoolName]) -> Option<PoolName> {
    pools
        .iter()
        .enumerate()
        .find(|(index, pool)| pools[..*index].contains(pool))
        .map(|(_, pool)| pool.clone())
}

#[cfg(test)]
mod tests {
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
        auto_pool: AutoPool,
    ) -> Result<Vec<String>, String> {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let defaults: Vec<_> = case.defaults.iter().map(|(name, f)| (name.parse().unwrap(), *f)).collect();
        plan_candidates(&CandidateRequest {
            nic: &nic.parse().unwrap(),
            families,
            annotations: &PodAnnotations::parse(&map(case.pod)).map_err(|e| e.to_string())?,
            namespace_annotations: &map(case.namespace),
            cni_ipv4: &list(case.cni.0),
            cni_ipv6: &list(case.cni.1),
            cni_default_route: DefaultRoute::Clean,
            match_master_subnet: case.match_master_subnet,
            auto_pool,
            default_pools: &defaults,
        })
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
        let got = plan(case, "eth0", &Family::ALL, AutoPool::Disabled);
        match expect {
            Ok(lines) => assert_eq!(got, Ok(lines.iter().map(ToString::to_string).collect())),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{got:?}"),
        }
    }

    const IPPOOLS: (&str, &str) = (
        key::IPPOOLS,
        r#"[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["b"],"ipv6":["c"]}]"#,
    );
    const IPPOOL: (&str, &str) = (key::IPPOOL, r#"{"ipv4":["d"]}"#);
    const DEFAULTS: &[(&str, Family)] = &[("z4", Family::V4), ("y6", Family::V6), ("y4", Family::V4)];

    #[test]
    fn the_first_source_wins() {
        let all = Case { pod: &[IPPOOLS, IPPOOL], cni: (&["e"], &[]), defaults: DEFAULTS, ..Case::default() };
        check(&all, Ok(&["eth0 IPv4 a Keep", "net1 IPv4 b Keep", "net1 IPv6 c Keep"]));
        check(&Case { pod: &[IPPOOL], ..all }, Ok(&["eth0 IPv4 d Clean"]));
        check(&Case { pod: &[], ..all }, Ok(&["eth0 IPv4 e Clean"]));
        check(
            &Case { pod: &[], cni: (&[], &[]), ..all },
            Ok(&["eth0 IPv4 y4+z4 Clean", "eth0 IPv6 y6 Clean"]),
        );
        check(
            &Case::default(),
            Err("no IPPool available, no pool selection rules of any type are specified"),
        );
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
            let error = plan(&case, "eth0", &Family::ALL, AutoPool::Enabled).unwrap_err();
            assert!(error.contains("is not supported yet"), "{error}");
        }
    }

    #[test]
    fn a_namespace_with_pools_is_refused_and_never_another_pool() {
        let with = |text| Case {
            namespace: Box::leak(Box::new([(key::NAMESPACE_IPV6_POOLS, text)])),
            cni: (&["e"], &[]),
            ..Case::default()
        };
        check(&with(r#"["x"]"#), Err("default-ipv6-ippool' is not supported yet"));
        check(&with("junk"), Err("is not supported yet"));
        check(&with("[]"), Ok(&["eth0 IPv4 e Clean"]));
        check(&Case { pod: &[IPPOOL], ..with(r#"["x"]"#) }, Ok(&["eth0 IPv4 d Clean"]));
    }

    #[test]
    fn a_source_without_a_useful_pool_does_not_fall_through() {
        let case = Case { pod: &[(key::IPPOOL, "{}")], defaults: DEFAULTS, ..Case::default() };
        check(
            &case,
            Err("'ipam.spidernet.io/ippool' names no IPPool of an enabled address family for NIC eth0"),
        );
        let only_v6 =
            plan(&Case { pod: &[IPPOOL], ..Case::default() }, "eth0", &[Family::V6], AutoPool::Disabled);
        assert!(only_v6.unwrap_err().starts_with("no IPPool available, "));
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(
            &Case { pod: &[(key::IPPOOL, r#"{"ipv4":["a","b","a"]}"#)], ..Case::default() },
            Err("wrong input, duplicate IPPool a specified for NIC eth0"),
        );
        let absent =
            plan(&Case { pod: &[IPPOOLS], ..Case::default() }, "net2", &Family::ALL, AutoPool::Disabled);
        assert!(
            absent.unwrap_err().ends_with("'ipam.spidernet.io/ippools': interface net2 must be specified")
        );
        check(
            &Case { cni: (&["a*"], &[]), ..Case::default() },
            Err("the wildcard \"a*\" in the CNI configuration is not supported yet"),
        );
        check(
            &Case { cni: (&["A"], &[]), ..Case::default() },
            Err("wrong input, the CNI configuration of NIC eth0"),
        );
        check(&Case { match_master_subnet: true, ..Case::default() }, Err("match_master_subnet"));
    }
}
