//! On maps of the kernel, which need root.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

type Map = HashMap<MapData, u32, u64>;

/// `BPF_F_NO_PREALLOC` of linux/bpf.h, as the maps of flows have it.
const NO_PREALLOC: u32 = 1;

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
    }
    is_root
}

fn map(entries: impl IntoIterator<Item = (u32, u64)>) -> Map {
    let mut map = Map::create(8192, NO_PREALLOC).unwrap();
    for (key, value) in entries {
        map.insert(key, value, 0).unwrap();
    }
    map
}

/// As aya reads them, one by one.
fn contents(map: &Map) -> BTreeMap<u32, u64> {
    map.iter().map(Result::unwrap).collect()
}

/// Each entry that a walk has met, in its order.
fn walked(mut walk: Walk<u32, u64>, map: &impl Listed<u32, u64>) -> Vec<(u32, u64)> {
    let mut met = Vec::new();
    while walk.step(map).unwrap() {
        met.extend(walk.entries().map(|(key, value)| (*key, *value)));
    }
    met
}

/// One entry at a time, as where the kernel has no batch operations.
fn one_by_one(map: &Map, entries: usize) -> Walk<u32, u64> {
    let position = Position::Listed(map.all_keys().unwrap().into_iter());
    Walk { position, ..Walk::of(entries) }
}

#[test]
fn a_walk_meets_each_entry_once_however_many_it_reads_at_once() {
    if !is_root() {
        return;
    }
    let whole = map((0..3000).map(|key| (key, u64::from(key) * 7)));
    let expected: Vec<_> = contents(&whole).into_iter().collect();
    assert_eq!(expected.len(), 3000);
    // Buckets of 3000 entries in 8192 have up to half a dozen: with 1 and 2 the kernel says ENOSPC.
    for entries in [1, 2, 3, 64, ENTRIES, 5000] {
        for walk in [Walk::of(entries), one_by_one(&whole, entries)] {
            let mut met = walked(walk, &whole);
            met.sort_unstable();
            assert_eq!(met, expected, "{entries} at once");
        }
    }
    let empty = map([]);
    assert_eq!((walked(Walk::new(), &empty), walked(one_by_one(&empty, 8), &empty)), (vec![], vec![]));
}

#[test]
fn a_bucket_that_is_larger_than_the_batch_makes_it_larger() {
    if !is_root() {
        return;
    }
    // As many entries as buckets: some have several.
    let full = map((0..8192).map(|key| (key, 1)));
    let mut walk = Walk::of(1);
    let mut met = BTreeSet::new();
    while walk.step(&full).unwrap() {
        assert!(walk.entries().all(|(key, _)| met.insert(*key)));
    }
    assert_eq!(met.len(), 8192);
    assert!(walk.entries > 1, "no bucket had more than one entry");
}

#[test]
fn an_arrays_elements_are_in_their_places() {
    if !is_root() {
        return;
    }
    let mut array = Array::<MapData, u64>::create(2500, 0).unwrap();
    for index in [0, 1, 1023, 1024, 2499] {
        array.set(index, u64::from(index) + 5, 0).unwrap();
    }
    let elements = elements(&array).unwrap();
    assert_eq!(elements.len(), 2500);
    let set: Vec<_> = elements.iter().enumerate().filter(|(_, value)| **value != 0).collect();
    assert_eq!(set, [(0, &5), (1, &6), (1023, &1028), (1024, &1029), (2499, &2504)]);
}

#[test]
fn a_trie_is_walked_too() {
    if !is_root() {
        return;
    }
    let mut trie = LpmTrie::<MapData, [u8; 4], u32>::create(4096, NO_PREALLOC).unwrap();
    for index in 0..2000_u32 {
        trie.insert(&Key::new(32, index.to_be_bytes()), index, 0).unwrap();
    }
    let (mut walk, mut met) = (Walk::<Key<[u8; 4]>, u32>::new(), Vec::new());
    while walk.step(&trie).unwrap() {
        met.extend(walk.entries().map(|(key, value)| (u32::from_be_bytes(key.data()), *value)));
    }
    met.sort_unstable();
    assert_eq!(met, (0..2000).map(|index| (index, index)).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn removal_is_that_of_single_keys(
        present in proptest::collection::btree_map(0..4000_u32, any::<u64>(), 0..3000),
        asked in proptest::collection::vec(0..4000_u32, 0..3000),
    ) {
        if is_root() {
            let mut expected = present.clone();
            let removed = asked.iter().filter(|key| expected.remove(key).is_some()).count();
            let mut batch = map(present.clone());
            prop_assert_eq!(remove_all(&mut batch, &asked).unwrap(), removed);
            prop_assert_eq!(contents(&batch), expected.clone());
            let mut each = map(present);
            prop_assert_eq!(remove_each(&mut each, &asked).unwrap(), removed);
            prop_assert_eq!(contents(&each), expected);
        }
    }
}

/// Entries that come and go must neither hide others nor show them twice.
#[test]
fn entries_that_stay_are_met_once_while_others_come_and_go() {
    if !is_root() {
        return;
    }
    let steady = 0..2000;
    let changing = 2000..6000;
    let mut shared = map(steady.clone().map(|key| (key, 1)));
    let fd = shared.map().fd().as_fd().try_clone_to_owned().unwrap();
    let mut theirs: Map = aya::maps::Map::HashMap(MapData::from_fd(fd).unwrap()).try_into().unwrap();
    let (stop, rounds) = (AtomicBool::new(false), Cell::new(0));
    let removed = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut inserted, mut removed) = (0, 0);
            while !stop.load(Ordering::Relaxed) || inserted == 0 {
                for key in changing.clone() {
                    inserted += usize::from(theirs.insert(key, 2, NO_EXIST).is_ok());
                }
                for key in changing.clone().step_by(3) {
                    removed += usize::from(remove(&mut theirs, &key).unwrap());
                }
            }
            (inserted, removed)
        });
        let mut ours = 0;
        while rounds.get() < 50 {
            rounds.set(rounds.get() + 1);
            let mut counts = BTreeMap::<u32, usize>::new();
            for (key, _) in walked(Walk::of(256), &shared) {
                *counts.entry(key).or_default() += 1;
            }
            assert!(steady.clone().all(|key| counts.get(&key) == Some(&1)));
            let keys: Vec<u32> = changing.clone().filter(|key| counts.contains_key(key)).collect();
            ours += remove_all(&mut shared, &keys).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let (inserted, removed) = writer.join().unwrap();
        (inserted, removed + ours)
    });
    // What was counted as removed was so once.
    assert_eq!(removed.0 - removed.1, contents(&shared).len() - steady.len());
}

#[test]
fn what_changes_before_it_is_removed_stays() {
    if !is_root() {
        return;
    }
    let mut entries = map([(1, 10), (2, 20), (3, 30)]);
    assert!(remove_if(&mut entries, &1, |value| *value == 10).unwrap());
    assert!(
        !remove_if(&mut entries, &2, |value| *value == 19).unwrap(),
        "it has changed since it was listed"
    );
    // Right when it is read, and not when it is taken out.
    let reads = Cell::new(0);
    let is_right = |_: &u64| {
        reads.set(reads.get() + 1);
        reads.get() == 1
    };
    let is_atomic = is_taken_at_once();
    assert_eq!(remove_if(&mut entries, &3, is_right).unwrap(), !is_atomic);
    assert_eq!(reads.get(), if is_atomic { 2 } else { 1 });
    assert!(!remove_if(&mut entries, &4, |_| true).unwrap(), "there is none");
    let left: &[(u32, u64)] = if is_atomic { &[(2, 20), (3, 30)] } else { &[(2, 20)] };
    assert_eq!(contents(&entries), left.iter().copied().collect());
}

/// Not before Linux 5.14.
fn is_taken_at_once() -> bool {
    let entries = map([(1, 1)]);
    !sys::take::<u32, u64>(entries.map().fd().as_fd(), &1).is_err_and(|error| sys::is_unsupported(&error))
}

/// A program that makes the entry anew in that moment wins.
#[test]
fn what_is_put_back_replaces_nothing() {
    if !is_root() {
        return;
    }
    let mut entries = map([(1, 10)]);
    assert!(put_back(&mut entries, &1, &9).unwrap());
    assert!(!put_back(&mut entries, &2, &20).unwrap());
    assert_eq!(contents(&entries), [(1, 10), (2, 20)].into());
}
