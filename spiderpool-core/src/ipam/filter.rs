//! Which pools of a candidate serve the pod, and in which order they are tried.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::candidates::Candidate;
use super::error::{IpamError, Rejection};
use super::{Pool, PoolError};
use crate::ip::Family;
use crate::names::PoolName;

/// The pools that the candidates name, as far as they exist.
pub type PoolTable = BTreeMap<PoolName, Result<Pool, PoolError>>;

/// Where the pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodPlace<'a> {
    /// `spec.nodeName`.
    pub node: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
}

/// The pools that remain, most specific first; among equals the user's order stays.
pub fn filter_pools<'t>(
    candidate: &Candidate,
    pools: &'t PoolTable,
    place: PodPlace<'_>,
) -> Result<Vec<&'t Pool>, IpamError> {
    let mut kept = Vec::new();
    let mut rejections = Vec::new();
    for name in &candidate.pools {
        let Some(entry) = pools.get(name) else {
            return Err(IpamError::PoolMissing { pool: name.clone(), nic: candidate.nic.clone() });
        };
        match entry.as_ref().map_err(|error| Rejection::Invalid(error.clone())).and_then(|pool| {
            check(pool, candidate.family, place)?;
            Ok(pool)
        }) {
            Ok(pool) => kept.push(pool),
            Err(rejection) => rejections.push(rejection),
        }
    }
    if kept.is_empty() {
        return Err(IpamError::AllFiltered {
            family: candidate.family,
            nic: candidate.nic.clone(),
            pools: candidate.pools.clone(),
            rejections,
        });
    }
    kept.sort_by_key(|pool| Reverse(rank(pool)));
    Ok(kept)
}

/// The first rule that keeps the pool from serving the pod.
fn check(pool: &Pool, family: Family, place: PodPlace<'_>) -> Result<(), Rejection> {
    let name = || pool.name.clone();
    let unsupported = |field| Err(Rejection::NotSupported { pool: name(), field });
    let lists = |names: &[String], wanted: &str| names.iter().any(|n| n == wanted);
    if pool.terminating {
        return Err(Rejection::Terminating(name()));
    }
    if pool.disabled {
        return Err(Rejection::Disabled(name()));
    }
    if pool.family() != family {
        return Err(Rejection::Family { pool: name(), expected: family, found: pool.family() });
    }
    if !pool.node_names.is_empty() {
        if !lists(&pool.node_names, place.node) {
            return Err(Rejection::NodeName { pool: name(), node: place.node.to_owned() });
        }
    } else if pool.selectors.node {
        return unsupported("nodeAffinity");
    }
    if !pool.namespace_names.is_empty() {
        if !lists(&pool.namespace_names, place.namespace) {
            let namespace = place.namespace.to_owned();
            return Err(Rejection::NamespaceName { pool: name(), namespace });
        }
    } else if pool.selectors.namespace {
        return unsupported("namespaceAffinity");
    }
    if pool.selectors.pod {
        return unsupported("podAffinity");
    }
    if pool.selectors.multus {
        return unsupported("multusName");
    }
    Ok(())
}

/// The more a pool is reserved for, the earlier it is tried; the first difference decides.
fn rank(pool: &Pool) -> [bool; 6] {
    [
        pool.selectors.pod,
        !pool.node_names.is_empty(),
        pool.selectors.node,
        !pool.namespace_names.is_empty(),
        pool.selectors.namespace,
        pool.selectors.multus,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::candidates::DefaultRoute;
    use crate::ipam::pool::{PoolFields, Selectors};

    const PLACE: PodPlace<'_> = PodPlace { node: "n1", namespace: "shop" };

    fn pool(name: &str, change: impl FnOnce(&mut Pool)) -> (PoolName, Result<Pool, PoolError>) {
        let fields = PoolFields { name, subnet: "10.6.0.0/16", ..PoolFields::default() };
        let mut pool = Pool::parse(fields, []).unwrap();
        change(&mut pool);
        (pool.name.clone(), Ok(pool))
    }

    fn names(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn filter(table: &PoolTable, pools: &[&str], family: Family) -> Result<Vec<PoolName>, String> {
        let candidate = Candidate {
            nic: "eth0".parse().unwrap(),
            family,
            pools: names(pools),
            default_route: DefaultRoute::Keep,
        };
        filter_pools(&candidate, table, PLACE)
            .map(|kept| kept.iter().map(|p| p.name.clone()).collect())
            .map_err(|e| e.to_string())
    }

    #[track_caller]
    fn check_rejected(change: impl FnOnce(&mut Pool), family: Family, expect: &str) {
        let error = filter(&[pool("p", change)].into(), &["p"], family).unwrap_err();
        let start = format!("no IPPool available, all {family} IPPools [p] of eth0 filtered out: {expect}");
        assert!(error.starts_with(&start), "{error}");
    }

    #[test]
    fn each_rule_says_why() {
        use Family::{V4, V6};
        check_rejected(|p| p.terminating = true, V4, "terminating IPPool p: ");
        check_rejected(|p| p.disabled = true, V4, "disabled IPPool p: set its spec.disable to false");
        check_rejected(|_| {}, V6, "expect an IPv6 IPPool, but the version of the IPPool p is IPv4: ");
        check_rejected(
            |p| p.node_names = vec!["n2".into()],
            V4,
            "unmatched Node name of IPPool p: its spec.nodeName does not list n1",
        );
        check_rejected(
            |p| p.namespace_names = vec!["x".into()],
            V4,
            "unmatched Namespace name of IPPool p: its spec.namespaceName does not list shop",
        );
        let unsupported = |field: &str| format!("spec.{field} of IPPool p is not supported yet: remove it");
        check_rejected(|p| p.selectors.node = true, V4, &unsupported("nodeAffinity"));
        check_rejected(|p| p.selectors.namespace = true, V4, &unsupported("namespaceAffinity"));
        check_rejected(|p| p.selectors.pod = true, V4, &unsupported("podAffinity"));
        check_rejected(|p| p.selectors.multus = true, V4, &unsupported("multusName"));
        check_rejected(|p| (p.disabled, p.terminating) = (true, true), V4, "terminating IPPool p: ");
    }

    #[test]
    fn names_win_over_selectors() {
        let table = [pool("p", |p| {
            p.node_names = vec!["n1".into()];
            p.namespace_names = vec!["shop".into()];
            p.selectors = Selectors { node: true, namespace: true, ..Selectors::default() };
        })]
        .into();
        assert_eq!(filter(&table, &["p"], Family::V4), Ok(names(&["p"])));
    }

    #[test]
    fn one_pool_left_is_enough_and_a_missing_one_is_not_forgiven() {
        let table = [pool("a", |p| p.disabled = true), pool("b", |_| {})].into();
        assert_eq!(filter(&table, &["a", "b"], Family::V4), Ok(names(&["b"])));
        let error = filter(&table, &["b", "c"], Family::V4).unwrap_err();
        assert!(error.starts_with("failed to get original IPPool c: "), "{error}");
    }

    #[test]
    fn an_invalid_pool_is_named() {
        let error =
            Pool::parse(PoolFields { name: "bad", subnet: "x", ..PoolFields::default() }, []).unwrap_err();
        let table = [("bad".parse().unwrap(), Err(error))].into();
        let text = filter(&table, &["bad"], Family::V4).unwrap_err();
        assert!(text.ends_with(
            "filtered out: IPPool bad is invalid: spec.subnet \"x\" is not a network in CIDR form"
        ));
    }

    /// Upstream rebuilds the list from a hash map and sorts it unstably: equal pools come in random order there.
    #[test]
    fn pools_of_equal_rank_keep_the_users_order() {
        let table = [
            pool("a", |_| {}),
            pool("b", |_| {}),
            pool("ns", |p| p.namespace_names = vec!["shop".into()]),
            pool("node", |p| p.node_names = vec!["n1".into()]),
            pool("z", |_| {}),
        ]
        .into();
        let order = filter(&table, &["z", "a", "ns", "b", "node"], Family::V4);
        assert_eq!(order, Ok(names(&["node", "ns", "z", "a", "b"])));
    }
}
