use kube::Resource as _;
use kube::core::PartialObjectMetaExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn object(name: &str, uid: &str, generation: i64, spec: &Value) -> PoolObject {
    let metadata = json!({"name": name, "uid": uid, "generation": generation, "labels": {"a": "b"}});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn meta(object: &PoolObject) -> PartialObjectMeta<SpiderIPPool> {
    object.meta().clone().into_response_partial()
}

/// The watch has seen the object, and its spec has been read.
fn apply(index: &mut PoolIndex, object: &PoolObject) {
    index.apply(meta(object));
    index.apply_spec(&meta(object).metadata, parse(object), AllocationOwner::of(object));
}

fn spec(ips: &str) -> Value {
    json!({"subnet": "10.6.0.0/16", "ips": [ips]})
}

fn name(name: &str) -> PoolName {
    name.parse().unwrap()
}

fn usable(index: &PoolIndex) -> Option<u128> {
    index.entry(&name("p")).map(|entry| entry.spec.unwrap().usable.len())
}

#[test]
fn a_list_of_unchanged_generations_leaves_nothing_to_read() {
    let pools: Vec<_> =
        (0..3).map(|number| object(&format!("p{number}"), "u", 7, &spec("10.6.0.1"))).collect();
    let list = || pools.iter().map(meta).collect::<Vec<_>>();
    let mut index = PoolIndex::default();
    index.reset(list());
    assert_eq!(index.unread().len(), 3);
    for pool in &pools {
        index.apply_spec(&meta(pool).metadata, parse(pool), AllocationOwner::of(pool));
    }
    index.reset(list());
    assert!(index.unread().is_empty() && index.entry(&name("p1")).is_some());
    let mut changed = list();
    changed[1].metadata.generation = Some(8);
    changed[2].metadata.uid = Some("another".to_owned());
    index.reset(changed[1..].to_vec());
    assert_eq!(index.unread(), [name("p1"), name("p2")].into());
    assert!(index.get("p0").is_none() && index.get("p1").unwrap().labels["a"] == "b");
}

#[test]
fn a_spec_counts_until_the_next_generation_is_read() {
    let mut index = PoolIndex::default();
    let default = json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.1-10.6.0.9"], "default": true});
    apply(&mut index, &object("p", "u", 1, &default));
    assert_eq!((usable(&index), index.defaults().len()), (Some(9), 1));
    let second = object("p", "u", 2, &spec("10.6.0.1"));
    index.apply(meta(&second));
    // An allocation needs the new one; meanwhile the old one says what is known.
    assert_eq!((usable(&index), index.defaults().len()), (None, 1));
    index.apply_spec(&meta(&second).metadata, parse(&second), AllocationOwner::of(&second));
    assert_eq!((usable(&index), index.defaults().len()), (Some(1), 0));
    index.delete(&meta(&second));
    assert!(index.is_empty());
}

#[test]
fn an_older_state_changes_nothing() {
    let mut index = PoolIndex::default();
    let (first, second) =
        (object("p", "u", 1, &spec("10.6.0.1-10.6.0.9")), object("p", "u", 2, &spec("10.6.0.1")));
    index.apply(meta(&first));
    // The read was ahead of the watch.
    index.apply_spec(&meta(&second).metadata, parse(&second), AllocationOwner::of(&second));
    index.apply(meta(&first));
    index.apply_spec(&meta(&first).metadata, parse(&first), AllocationOwner::of(&first));
    index.apply(meta(&second));
    assert_eq!(usable(&index), Some(1));
}

/// etcd was restored from an older snapshot: the next generation has the number of one that was never so.
#[test]
fn a_list_that_goes_back_in_time_counts() {
    let mut index = PoolIndex::default();
    let wide = object("p", "u", 5, &spec("10.6.0.1-10.6.0.100"));
    apply(&mut index, &wide);
    let narrow = object("p", "u", 4, &spec("10.6.0.1-10.6.0.50"));
    index.reset(vec![meta(&narrow)]);
    assert_eq!((index.unread(), usable(&index)), ([name("p")].into(), None));
    index.apply_spec(&meta(&narrow).metadata, parse(&narrow), AllocationOwner::of(&narrow));
    assert_eq!(usable(&index), Some(50));
    let other = object("p", "u", 5, &spec("10.6.0.1-10.6.0.7"));
    index.apply(meta(&other));
    assert_eq!(usable(&index), None, "another generation 5");
    index.apply_spec(&meta(&other).metadata, parse(&other), AllocationOwner::of(&other));
    assert_eq!(usable(&index), Some(7));
}

/// They may share addresses with each other, in any number.
#[test]
fn disabled_pools_keep_no_overlaps() {
    let mut index = PoolIndex::default();
    for number in 0..20 {
        let mut spec = spec("10.6.0.1-10.6.0.9");
        spec["disable"] = json!(true);
        apply(&mut index, &object(&format!("off{number}"), "u", 1, &spec));
    }
    apply(&mut index, &object("p", "u", 1, &spec("10.6.0.5")));
    assert!(index.names().all(|name| index.overlaps.of_pool(name.as_str()).next().is_none()));
    apply(&mut index, &object("off3", "u", 2, &spec("10.6.0.1-10.6.0.9")));
    let conflict = index.entry(&name("p")).unwrap().conflict.unwrap();
    assert!(matches!(conflict, PoolConflict::OlderPool { older, .. } if older == name("off3")));
}

#[test]
fn a_pool_that_was_made_anew_is_another() {
    let mut index = PoolIndex::default();
    let before = object("p", "u-1", 5, &spec("10.6.0.1-10.6.0.9"));
    apply(&mut index, &before);
    let anew = object("p", "u-2", 1, &spec("10.6.0.1"));
    index.apply(meta(&anew));
    index.apply_spec(&meta(&before).metadata, parse(&before), AllocationOwner::of(&before));
    assert_eq!(usable(&index), None);
    index.apply_spec(&meta(&anew).metadata, parse(&anew), AllocationOwner::of(&anew));
    assert_eq!(usable(&index), Some(1));
    // A pool that the watch has not seen, or sees no more, comes by no spec.
    index.delete(&meta(&anew));
    index.apply_spec(&meta(&anew).metadata, parse(&anew), AllocationOwner::of(&anew));
    assert!(index.is_empty());
}

#[test]
fn an_invalid_or_undecodable_pool_is_in_the_index_with_its_faults() {
    let mut index = PoolIndex::default();
    let invalid = json!({"subnet": "10.6.0.0/16", "ips": ["10.7.0.1"], "default": true});
    apply(&mut index, &object("p", "u", 1, &invalid));
    apply(&mut index, &object("q", "u", 1, &json!({"subnet": 5})));
    let error = |of: &str| index.entry(&name(of)).unwrap().spec.unwrap_err().to_string();
    assert!(error("p").contains("spec.ips[0]: 10.7.0.1 is not inside of"), "{}", error("p"));
    assert!(error("q").starts_with("IPPool q is invalid: spec: does not fit the CRD"), "{}", error("q"));
    assert_eq!(index.defaults(), [(name("p"), Family::V4)], "nothing else serves its family");
    assert!(index.unread().is_empty());
}

/// Pods came up without the family of a default pool that somebody had broken.
#[test]
fn an_invalid_default_pool_is_a_default_pool_where_it_is_missed() {
    let mut index = PoolIndex::default();
    let mut put = |of: &str, spec: Value| {
        apply(&mut index, &object(of, "u", 1, &spec));
        index.defaults()
    };
    let (v4, v6) = (|of| (name(of), Family::V4), |of| (name(of), Family::V6));
    let unknown = put("x", json!({"subnet": "x", "default": true}));
    assert_eq!(unknown, [v4("x"), v6("x")]);
    let broken = |subnet: &str| json!({"subnet": subnet, "ips": ["192.0.2.1"], "default": true});
    let good = |subnet: &str| json!({"subnet": subnet, "default": true});
    assert_eq!(put("a", good("10.6.0.0/16")), [v4("a")]);
    assert_eq!(put("b", broken("10.7.0.0/16")), [v4("a")], "others serve its family");
    assert_eq!(put("c", broken("fd00::/64")), [v4("a"), v6("c")]);
    assert_eq!(put("d", good("fd01::/64")), [v4("a"), v6("d")]);
}

/// An object that was created at this second.
fn created(name: &str, second: u8, generation: i64, spec: &Value) -> PoolObject {
    let created = format!("2026-01-01T00:00:{second:02}Z");
    let metadata = json!({"name": name, "uid": "u", "generation": generation, "creationTimestamp": created});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn conflict(index: &PoolIndex, of: &str) -> Option<String> {
    index.entry(&name(of)).unwrap().conflict.map(|conflict| conflict.to_string())
}

/// A typo in a new pool stopped both for every new pod.
#[test]
fn of_two_pools_that_overlap_the_older_goes_on() {
    let mut index = PoolIndex::default();
    apply(&mut index, &created("a", 2, 1, &spec("10.6.0.9")));
    apply(&mut index, &created("b", 1, 1, &spec("10.6.0.1-10.6.0.9")));
    assert_eq!(conflict(&index, "b"), None);
    let text = "IPPool a overlaps the older IPPool b in 10.6.0.9";
    assert_eq!(conflict(&index, "a").as_deref(), Some(text));
    // Created in the same second: the names decide.
    apply(&mut index, &created("c", 1, 1, &spec("10.6.0.1")));
    assert_eq!(conflict(&index, "b"), None);
    assert_eq!(conflict(&index, "c").as_deref(), Some("IPPool c overlaps the older IPPool b in 10.6.0.1"));
    assert_eq!(index.overlapping("b").map(PoolName::as_str).collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn a_pool_that_does_not_serve_is_in_nobodys_way() {
    let mut index = PoolIndex::default();
    let older = |generation, spec: &Value| created("a", 1, generation, spec);
    apply(&mut index, &older(1, &spec("10.6.0.1-10.6.0.9")));
    apply(&mut index, &created("b", 2, 1, &spec("10.6.0.9")));
    assert!(conflict(&index, "b").is_some());
    let mut terminating = meta(&older(1, &spec("10.6.0.1-10.6.0.9")));
    terminating.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    index.apply(terminating);
    assert_eq!(conflict(&index, "b"), None);
    index.apply(meta(&older(1, &spec("10.6.0.1-10.6.0.9"))));
    assert!(conflict(&index, "b").is_some());
    let disabled = json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.9"], "disable": true});
    apply(&mut index, &older(2, &disabled));
    assert_eq!(conflict(&index, "b"), None);
}

#[test]
fn a_pool_in_a_service_cidr_serves_nobody() {
    let mut index = PoolIndex::default();
    apply(&mut index, &object("a", "u", 1, &spec("10.6.0.9")));
    let cidrs = vec!["10.6.0.0/24".parse().unwrap()];
    assert!(index.set_service_cidrs(cidrs.clone()) && !index.set_service_cidrs(cidrs));
    let text = "IPPool a overlaps the Service CIDR 10.6.0.0/24 in 10.6.0.9";
    assert_eq!(conflict(&index, "a").as_deref(), Some(text));
    let unknown = object("new", "u", 1, &spec("10.6.0.8"));
    let found = index
        .find_conflict(&meta(&unknown).metadata, &parse(&unknown).unwrap(), AllocationOwner::Nobody)
        .unwrap();
    assert_eq!(found.to_string(), "IPPool new overlaps the Service CIDR 10.6.0.0/24 in 10.6.0.8");
}

#[derive(Debug, Clone)]
enum Change {
    Apply { pool: usize, first: u8, count: u8, disable: bool },
    Invalidate { pool: usize },
    Remove { pool: usize },
}

fn change() -> impl Strategy<Value = Change> {
    let pool = 0..4usize;
    prop_oneof![
        4 => (pool.clone(), any::<u8>(), 0..40u8, any::<bool>())
            .prop_map(|(pool, first, count, disable)| Change::Apply { pool, first, count, disable }),
        1 => pool.clone().prop_map(|pool| Change::Invalidate { pool }),
        1 => pool.prop_map(|pool| Change::Remove { pool }),
    ]
}

proptest! {
    /// What is kept up change by change is what a comparison of all with all finds.
    #[test]
    fn overlaps_are_those_of_a_comparison_of_all(changes in proptest::collection::vec(change(), 1..20)) {
        let mut index = PoolIndex::default();
        for (generation, change) in changes.into_iter().enumerate() {
            let write = |index: &mut PoolIndex, pool: usize, spec: Value| {
                // The order of age is not that of the names.
                let name = format!("p{pool}");
                apply(index, &created(&name, (pool as u8 * 7) % 5, generation as i64 + 1, &spec));
            };
            match change {
                Change::Apply { pool, first, count, disable } => {
                    let ips = format!("10.6.0.{first}-10.6.0.{}", first.saturating_add(count));
                    write(&mut index, pool, json!({"subnet": "10.6.0.0/24", "ips": [ips], "disable": disable}));
                }
                Change::Invalidate { pool } => write(&mut index, pool, json!({"subnet": "x"})),
                Change::Remove { pool } => drop(index.remove(&format!("p{pool}"))),
            }
            for name in index.names() {
                let entry = index.entry(name).unwrap();
                let number: u8 = name.as_str()[1..].parse().unwrap();
                let meta = created(name.as_str(), (number * 7) % 5, 1, &spec("10.6.0.1"));
                let meta = meta.meta();
                let expected = entry.spec.as_ref().ok().and_then(|pool| index.find_conflict(meta, pool, AllocationOwner::Nobody));
                prop_assert_eq!(&entry.conflict, &expected);
            }
        }
    }
}

fn with_records(object: &Value, version: &str, records: &str) -> PoolObject {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!(version);
    object["status"] = json!({"allocatedIPs": records});
    serde_json::from_value(object).unwrap()
}

/// Upstream's agents are still there while ours replace them, node by node.
#[test]
fn a_pool_with_upstreams_allocations_serves_nobody_until_it_is_marked() {
    let is_refused = |index: &PoolIndex| {
        let conflict = index.entry(&name("p")).unwrap().conflict;
        matches!(conflict, Some(PoolConflict::NotImported { .. }))
    };
    let pool = json!({
        "metadata": {"name": "p", "uid": "u", "generation": 1, "annotations": {}}, "spec": spec("10.6.0.1"),
    });
    let records = r#"{"10.6.0.1":{"pod":"ns1/web","podUid":"u1"}}"#;
    let mut index = PoolIndex::default();
    apply(&mut index, &with_records(&pool, "1", "{}"));
    assert!(!is_refused(&index), "nobody has addresses of it");
    let used = with_records(&pool, "2", records);
    index.apply(meta(&used));
    assert_eq!(index.unread(), [name("p")].into(), "its status has to be read");
    apply(&mut index, &used);
    assert!(is_refused(&index));
    index.apply(meta(&with_records(&pool, "3", records)));
    assert!(index.unread().is_empty() && is_refused(&index), "half a megabyte is not read for each change");
    let mut marked = pool.clone();
    marked["metadata"]["annotations"] = json!({"ipam.spidernet.io/allocations": "SpiderIPAddress"});
    index.apply(meta(&with_records(&marked, "4", records)));
    assert!(index.unread().is_empty() && !is_refused(&index));
    index.apply(meta(&with_records(&pool, "5", records)));
    assert_eq!(index.unread(), [name("p")].into(), "the mark is gone");
}
