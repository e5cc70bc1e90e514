//! Which pools of a candidate serve the pod, and in which order they are tried.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::candidates::PoolCandidates;
use super::error::{IpamError, Rejection};
use super::pool::PoolConflict;
use super::{NetworkName, PodNetworks, Pool, PoolError};
use crate::ip::Family;
use crate::label_selector::LabelSelector;
use crate::names::{IfName, PoolName};

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

impl PoolEntry {
    /// The family of its addresses, as far as its spec says one.
    pub fn family(&self) -> Option<Family> {
        self.spec.as_ref().map_or_else(|error| error.family, |pool| Some(pool.family()))
    }
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What pools may ask of a pod that uses them.
#[derive(Debug, Clone, Copy)]
pub struct PodPlace<'a> {
    /// `spec.nodeName`.
    pub node: &'a str,
    /// The labels of that node; `None` if there is no such Node. They count for pools that [ask for
    /// them](Pool::node_selector).
    pub node_labels: Option<&'a Labels>,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// The labels of that namespace. They count for pools that [ask for them](Pool::namespace_selector).
    pub namespace_labels: &'a Labels,
    /// The pod's own.
    pub labels: &'a Labels,
    /// To which networks its NICs are attached.
    pub networks: PodNetworks<'a>,
}

/// The pools that remain, most specific first; among equals the user's order stays.
pub fn filter_pools<'t>(
    candidate: &PoolCandidates,
    pools: &'t PoolTable,
    place: PodPlace<'_>,
) -> Result<Vec<&'t Arc<Pool>>, IpamError> {
    if candidate.pools.is_empty() {
        return Err(IpamError::NoPoolMatches {
            named_by: candidate.named_by,
            family: candidate.family,
            nic: candidate.nic.clone(),
            wildcards: candidate.wildcards.clone(),
        });
    }
    let mut kept = Vec::new();
    let mut rejections = Vec::new();
    for name in &candidate.pools {
        let Some(entry) = pools.get(name) else {
            return Err(IpamError::PoolMissing { pool: name.clone(), nic: candidate.nic.clone() });
        };
        match check(entry, candidate, place) {
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

/// Whether the pod may go on with an address of the pool that an earlier one of its name had. Whether the pool gives out new
/// ones is not asked.
pub fn may_keep(candidate: &PoolCandidates, entry: &PoolEntry, place: PodPlace<'_>) -> bool {
    let may_use = |pool: &Arc<Pool>| {
        pool.family() == candidate.family && check_user(pool, &candidate.nic, place).is_ok()
    };
    candidate.pools.iter().any(|name| entry.spec.as_ref().is_ok_and(|pool| pool.name == *name))
        && !entry.terminating
        && entry.spec.as_ref().is_ok_and(may_use)
}

/// The first rule that keeps the pool from serving the pod.
fn check<'t>(
    entry: &'t PoolEntry,
    candidate: &PoolCandidates,
    place: PodPlace<'_>,
) -> Result<&'t Arc<Pool>, Rejection> {
    let pool = entry.spec.as_ref().map_err(|error| Rejection::Invalid(Arc::clone(error)))?;
    let name = || pool.name.clone();
    if entry.terminating {
        return Err(Rejection::Terminating(name()));
    }
    if pool.disabled {
        return Err(Rejection::Disabled(name()));
    }
    if pool.family() != candidate.family {
        return Err(Rejection::Family { pool: name(), expected: candidate.family, found: pool.family() });
    }
    check_user(pool, &candidate.nic, place)?;
    match &entry.conflict {
        Some(conflict) => Err(Rejection::Conflict(conflict.clone())),
        None => Ok(pool),
    }
}

/// The first rule about who may use the pool that the pod or its NIC does not meet.
fn check_user(pool: &Pool, nic: &IfName, place: PodPlace<'_>) -> Result<(), Rejection> {
    let name = || pool.name.clone();
    let lists = |names: &[String], wanted: &str| names.is_empty() || names.iter().any(|n| n == wanted);
    let unmet = |selector: Option<&LabelSelector>, labels| selector.and_then(|s| s.unmet(labels)).cloned();
    if !lists(&pool.node_names, place.node) {
        return Err(Rejection::NodeName { pool: name(), node: place.node.to_owned() });
    }
    if let Some(selector) = pool.node_selector() {
        let node = || place.node.to_owned();
        let Some(labels) = place.node_labels else {
            return Err(Rejection::NodeMissing { pool: name(), node: node() });
        };
        if let Some(unmet) = unmet(Some(selector), labels) {
            return Err(Rejection::NodeAffinity { pool: name(), node: node(), unmet });
        }
    }
    if !lists(&pool.namespace_names, place.namespace) {
        return Err(Rejection::NamespaceName { pool: name(), namespace: place.namespace.to_owned() });
    }
    if let Some(unmet) = unmet(pool.namespace_selector(), place.namespace_labels) {
        let namespace = place.namespace.to_owned();
        return Err(Rejection::NamespaceAffinity { pool: name(), namespace, unmet });
    }
    if let Some(unmet) = unmet(pool.affinities.pod.as_ref(), place.labels) {
        return Err(Rejection::PodAffinity { pool: name(), unmet });
    }
    check_network(pool, nic, place.networks)
}

/// Whether the NIC is attached to one of the networks that the pool is for. Where a pool lists none, nobody asks.
fn check_network(pool: &Pool, nic: &IfName, networks: PodNetworks<'_>) -> Result<(), Rejection> {
    if pool.multus_names.is_empty() {
        return Ok(());
    }
    let network = networks.of_nic(nic);
    let network = network.map_err(|cause| Rejection::NetworkUnknown {
        pool: pool.name.clone(),
        multus_names: pool.multus_names.clone(),
        cause,
    })?;
    let is_listed = |text: &String| NetworkName::new(text, networks.own_namespace) == network;
    if pool.multus_names.iter().any(is_listed) {
        return Ok(());
    }
    let multus_names = pool.multus_names.clone();
    Err(Rejection::MultusName { pool: pool.name.clone(), multus_names, nic: nic.clone(), network })
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
    use crate::ipam::annotation_key::MULTUS_NETWORKS;
    use crate::ipam::pool::{Affinities, PoolFields};
    use crate::label_selector::SelectorFields;

    const NIC: &str = "net1";

    fn entry(spec: Result<Pool, PoolError>) -> PoolEntry {
        PoolEntry { spec: spec.map(Arc::new).map_err(Arc::new), terminating: false, conflict: None }
    }

    fn pool(name: &str, change: impl FnOnce(&mut Pool)) -> (PoolName, PoolEntry) {
        let fields = PoolFields { name, subnet: "10.6.0.0/16", ..PoolFields::default() };
        let mut pool = Pool::parse(&fields).unwrap();
        change(&mut pool);
        (pool.name.clone(), entry(Ok(pool)))
    }

    fn labels(key: &str) -> Labels {
        [(key.to_owned(), "yes".to_owned())].into()
    }

    fn selector(key: &str) -> Option<LabelSelector> {
        let labels = labels(key);
        let fields = SelectorFields { match_labels: Some(&labels), ..SelectorFields::default() };
        LabelSelector::parse(&fields).unwrap()
    }

    fn names(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn candidate(pools: &[&str], family: Family) -> PoolCandidates {
        PoolCandidates {
            named_by: crate::ipam::PoolSource::ClusterDefault,
            nic: NIC.parse().unwrap(),
            family,
            pools: names(pools),
            wildcards: Vec::new(),
            default_route: DefaultRoute::Keep,
        }
    }

    /// A pod on node n1 in namespace shop, with a label each; net1 is on network shop/macvlan.
    struct TestPod {
        labels: [Labels; 3],
        annotations: Labels,
    }

    impl TestPod {
        fn new() -> Self {
            let annotations = [(MULTUS_NETWORKS.to_owned(), "macvlan".to_owned())].into();
            Self { labels: ["node", "namespace", "pod"].map(labels), annotations }
        }

        fn place(&self) -> PodPlace<'_> {
            let ([node_labels, namespace_labels, labels], annotations) = (&self.labels, &self.annotations);
            let (namespace, own_namespace) = ("shop", "spiderpool");
            PodPlace {
                node: "n1",
                node_labels: Some(node_labels),
                namespace,
                namespace_labels,
                labels,
                networks: PodNetworks { annotations, namespace, own_namespace, cluster_network: "" },
            }
        }
    }

    fn filter(table: &PoolTable, pools: &[&str], family: Family) -> Result<Vec<PoolName>, String> {
        filter_pools(&candidate(pools, family), table, TestPod::new().place())
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
        let start = format!("no IPPool available, all {family} IPPools [p] of {NIC} filtered out: {expect}");
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
        check_rejected(
            |p| p.affinities.node = selector("pod"),
            V4,
            "unmatched Node affinity of IPPool p: its spec.nodeAffinity wants pod=yes, which Node n1 does not meet",
        );
        check_rejected(
            |p| p.affinities.namespace = selector("pod"),
            V4,
            "unmatched Namespace affinity of IPPool p: its spec.namespaceAffinity wants pod=yes, which Namespace shop does not meet",
        );
        check_rejected(
            |p| p.affinities.pod = selector("node"),
            V4,
            "unmatched Pod affinity of IPPool p: its spec.podAffinity wants node=yes, which the Pod does not meet",
        );
        check_rejected(
            |p| p.multus_names = vec!["other".into(), "macvlan".into()],
            V4,
            "the spec.multusName [other macvlan] in the IPPool p used by the Pod interface net1 is not matched with the \
             multusCR shop/macvlan specified by the Pod",
        );
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

    #[track_caller]
    fn check_serves(change: impl FnOnce(&mut Pool)) {
        assert_eq!(filter(&[pool("p", change)].into(), &["p"], Family::V4), Ok(names(&["p"])));
    }

    #[test]
    fn selectors_choose_by_the_labels_of_their_objects() {
        check_serves(|p| {
            p.affinities =
                Affinities { pod: selector("pod"), node: selector("node"), namespace: selector("namespace") };
        });
        check_serves(|p| p.multus_names = vec!["macvlan".into(), "shop/macvlan".into()]);
    }

    /// A node that a StatefulSet's pod has moved to may be another pool's.
    #[test]
    fn an_address_is_taken_over_where_its_pool_is_for_the_pod_though_it_gives_out_no_new_ones() {
        let may = |change: fn(&mut Pool), terminating: bool| {
            let (name, entry) = pool("p", change);
            let entry = PoolEntry { terminating, ..entry };
            let test_pod = TestPod::new();
            let keeps =
                |pools: &[&str], family| may_keep(&candidate(pools, family), &entry, test_pod.place());
            assert!(!keeps(&["q"], Family::V4), "{name} is not listed");
            assert!(!keeps(&["p"], Family::V6), "{name} is IPv4");
            keeps(&["p"], Family::V4)
        };
        assert!(may(|_| {}, false) && may(|p| p.disabled = true, false));
        assert!(!may(|_| {}, true));
        assert!(!may(|p| p.node_names = vec!["n2".into()], false));
        assert!(!may(|p| p.affinities.namespace = selector("other"), false));
    }

    #[test]
    fn names_win_over_selectors() {
        check_serves(|p| {
            p.node_names = vec!["n1".into()];
            p.namespace_names = vec!["shop".into()];
            p.affinities = Affinities { pod: None, node: selector("other"), namespace: selector("other") };
        });
    }

    /// Upstream rejects every pool where it does not know the network.
    #[test]
    fn the_network_counts_for_pools_that_list_networks_alone() {
        let table: PoolTable =
            [pool("a", |_| {}), pool("b", |p| p.multus_names = vec!["macvlan".into()])].into();
        let place = |annotations| PodPlace {
            node: "n1",
            node_labels: None,
            namespace: "shop",
            namespace_labels: const { &Labels::new() },
            labels: const { &Labels::new() },
            networks: PodNetworks {
                annotations,
                namespace: "shop",
                own_namespace: "spiderpool",
                cluster_network: "",
            },
        };
        let candidate = |pools: &[&str]| PoolCandidates {
            named_by: crate::ipam::PoolSource::ClusterDefault,
            nic: "eth0".parse().unwrap(),
            family: Family::V4,
            pools: names(pools),
            wildcards: Vec::new(),
            default_route: DefaultRoute::Keep,
        };
        let none = Labels::new();
        let kept = filter_pools(&candidate(&["a", "b"]), &table, place(&none)).unwrap();
        assert_eq!(kept.len(), 1);
        let error = filter_pools(&candidate(&["b"]), &table, place(&none)).unwrap_err().to_string();
        let expect = "cluster-network multus isn't set, so the network of NIC eth0 is not known";
        assert!(
            error.contains(expect) && error.contains("IPPool b is for the networks [macvlan]"),
            "{error}"
        );
        let table: PoolTable = [pool("c", |p| p.affinities.node = selector("other"))].into();
        let error = filter_pools(&candidate(&["c"]), &table, place(&none)).unwrap_err().to_string();
        assert!(error.contains("unmatched Node affinity of IPPool c: there is no Node n1"), "{error}");
        let unmatched = PoolCandidates { wildcards: vec!["x*".to_owned()], ..candidate(&[]) };
        let error = filter_pools(&unmatched, &table, place(&none)).unwrap_err().to_string();
        assert_eq!(
            error,
            "no IPPool available, no IPv4 IPPool has a name like [x*], which is listed for NIC eth0 by the cluster's default: \
             create one, or list another one"
        );
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
