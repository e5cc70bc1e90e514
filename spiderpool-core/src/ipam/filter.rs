//! Which pools of a candidate serve the pod, and in which order they are tried.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::candidates::PoolCandidates;
use super::error::{IpamError, Rejection};
use super::pool::PoolConflict;
use super::{Pool, PoolError};
use crate::Unsupported;
use crate::ip::Family;
use crate::names::PoolName;

/// The pools that the candidates name, as far as they exist.
pub type PoolTable = BTreeMap<PoolName, PoolEntry>;

/// A pool as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEntry {
    /// Its spec, or what is wrong with it.
    pub spec: Result<Arc<Pool>, Arc<PoolError>>,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// Who else has some of its addresses.
    pub conflict: Option<PoolConflict>,
}

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
    candidate: &PoolCandidates,
    pools: &'t PoolTable,
    place: PodPlace<'_>,
) -> Result<Vec<&'t Arc<Pool>>, IpamError> {
    let mut kept = Vec::new();
    let mut rejections = Vec::new();
    for name in &candidate.pools {
        let Some(entry) = pools.get(name) else {
            return Err(IpamError::PoolMissing { pool: name.clone(), nic: candidate.nic.clone() });
        };
        match check(entry, candidate.family, place) {
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
fn check<'t>(entry: &'t PoolEntry, family: Family, place: PodPlace<'_>) -> Result<&'t Arc<Pool>, Rejection> {
    let pool = entry.spec.as_ref().map_err(|error| Rejection::Invalid(Arc::clone(error)))?;
    let name = || pool.name.clone();
    let lists = |names: &[String], wanted: &str| names.iter().any(|n| n == wanted);
    if entry.terminating {
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
    } else if pool.affinities.node.is_some() {
        return Err(Unsupported::NodeAffinity(name()).into());
    }
    if !pool.namespace_names.is_empty() {
        if !lists(&pool.namespace_names, place.namespace) {
            let namespace = place.namespace.to_owned();
            return Err(Rejection::NamespaceName { pool: name(), namespace });
        }
    } else if pool.affinities.namespace.is_some() {
        return Err(Unsupported::NamespaceAffinity(name()).into());
    }
    if pool.affinities.pod.is_some() {
        return Err(Unsupported::PodAffinity(name()).into());
    }
    if !pool.multus_names.is_empty() {
        return Err(Unsupported::MultusName(name()).into());
    }
    match &entry.conflict {
        Some(conflict) => Err(Rejection::Conflict(conflict.clone())),
        None => Ok(pool),
    }
}

/// The more a pool is reserved for, the earlier it is tried; the first difference decides.
fn rank(pool: &Pool) -> [bool; 6] {
    [
        pool.affinities.pod.is_some(),
        !pool.node_names.is_empty(),
        pool.affinities.node.is_some(),
        !pool.namespace_names.is_empty(),
        pool.affinities.namespace.is_some(),
        !pool.multus_names.is_empty(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::DefaultRoute;
    use crate::ipam::pool::{Affinities, PoolFields};
    use crate::label_selector::{LabelSelector, SelectorFields};

    const PLACE: PodPlace<'_> = PodPlace { node: "n1", namespace: "shop" };

    fn entry(spec: Result<Pool, PoolError>) -> PoolEntry {
        PoolEntry { spec: spec.map(Arc::new).map_err(Arc::new), terminating: false, conflict: None }
    }

    fn pool(name: &str, change: impl FnOnce(&mut Pool)) -> (PoolName, PoolEntry) {
        let fields = PoolFields { name, subnet: "10.6.0.0/16", ..PoolFields::default() };
        let mut pool = Pool::parse(&fields).unwrap();
        change(&mut pool);
        (pool.name.clone(), entry(Ok(pool)))
    }

    fn selector() -> Option<LabelSelector> {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let fields = SelectorFields { match_labels: Some(&labels), ..SelectorFields::default() };
        LabelSelector::parse(&fields).unwrap()
    }

    fn names(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn filter(table: &PoolTable, pools: &[&str], family: Family) -> Result<Vec<PoolName>, String> {
        let candidate = PoolCandidates {
            named_by: crate::ipam::PoolSource::ClusterDefault,
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
        check_entry_rejected(pool("p", change), family, expect);
    }

    #[track_caller]
    fn check_entry_rejected(pool: (PoolName, PoolEntry), family: Family, expect: &str) {
        let error = filter(&[pool].into(), &["p"], family).unwrap_err();
        let start = format!("no IPPool available, all {family} IPPools [p] of eth0 filtered out: {expect}");
        assert!(error.starts_with(&start), "{error}");
    }

    #[test]
    fn of_several_default_pools_each_node_finds_its_own() {
        let of_node = |name: &str, node: &str| pool(name, |p| p.node_names = vec![node.into()]);
        let table: PoolTable = [of_node("node1.example", "n1"), of_node("node2.example", "n2")].into();
        let kept = filter(&table, &["node1.example", "node2.example"], Family::V4);
        assert_eq!(kept, Ok(names(&["node1.example"])));
    }

    #[test]
    fn each_rule_says_why() {
        use Family::{V4, V6};
        let terminating = |change: fn(&mut Pool)| {
            let (name, entry) = pool("p", change);
            (name, PoolEntry { terminating: true, ..entry })
        };
        check_entry_rejected(terminating(|_| {}), V4, "terminating IPPool p: ");
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
        check_rejected(|p| p.affinities.node = selector(), V4, &unsupported("nodeAffinity"));
        check_rejected(|p| p.affinities.namespace = selector(), V4, &unsupported("namespaceAffinity"));
        check_rejected(|p| p.affinities.pod = selector(), V4, &unsupported("podAffinity"));
        check_rejected(|p| p.multus_names = vec!["m".into()], V4, &unsupported("multusName"));
        check_entry_rejected(terminating(|p| p.disabled = true), V4, "terminating IPPool p: ");
        let (name, overlapping) = pool("p", |_| {});
        let conflict = PoolConflict::OlderPool {
            pool: name.clone(),
            older: "q".parse().unwrap(),
            ranges: vec!["10.6.0.9".parse().unwrap()],
        };
        let overlapping = PoolEntry { conflict: Some(conflict), ..overlapping };
        let expect = "IPPool p overlaps the older IPPool q in 10.6.0.9: change its spec.ips";
        check_entry_rejected((name, overlapping), V4, expect);
    }

    #[test]
    fn names_win_over_selectors() {
        let table = [pool("p", |p| {
            p.node_names = vec!["n1".into()];
            p.namespace_names = vec!["shop".into()];
            p.affinities = Affinities { pod: None, node: selector(), namespace: selector() };
        })]
        .into();
        assert_eq!(filter(&table, &["p"], Family::V4), Ok(names(&["p"])));
    }

    #[test]
    fn one_matching_pool_is_enough_but_a_missing_pool_is_an_error() {
        let table = [pool("a", |p| p.disabled = true), pool("b", |_| {})].into();
        assert_eq!(filter(&table, &["a", "b"], Family::V4), Ok(names(&["b"])));
        let error = filter(&table, &["b", "c"], Family::V4).unwrap_err();
        assert!(error.starts_with("failed to get original IPPool c: "), "{error}");
    }

    #[test]
    fn an_invalid_pool_is_named() {
        let invalid = Pool::parse(&PoolFields { name: "bad", subnet: "x", ..PoolFields::default() });
        let table = [("bad".parse().unwrap(), entry(invalid))].into();
        let text = filter(&table, &["bad"], Family::V4).unwrap_err();
        assert!(text.ends_with(
            "filtered out: IPPool bad is invalid: spec.subnet: \"x\" is not a network in CIDR form"
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
