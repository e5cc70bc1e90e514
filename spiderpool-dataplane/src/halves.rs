//! Finds halves of translations without their other half, in constant memory and without a look-up for each.
//!
//! Each entry of the map `nat` implies a pair of tuples; where both halves are there both imply the same one. So per class of pairs
//! the sum over the original tuples is the sum over the translated ones, and a class in which they differ has a half, or an entry
//! that was made or removed meanwhile.

use std::hash::{BuildHasher as _, RandomState};

use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::maps::{FlowKey, NatEntry, Tuple};

/// A few flows that come and go during a sweep must not make many others suspicious.
const CLASSES: usize = 4096;

/// The sums of all classes.
#[derive(Debug)]
pub(crate) struct Halves {
    /// Pods choose their ports, and peers theirs: with a key of its own nobody knows which pairs cancel each other out.
    hasher: RandomState,
    differences: Vec<u64>,
}

impl Halves {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), differences: vec![0; CLASSES] }
    }

    /// Takes in an entry, whichever half it is.
    pub(crate) fn add(&mut self, key: &FlowKey, entry: &NatEntry) {
        let (class, hash) = self.pair(key, entry);
        let difference = &mut self.differences[class];
        *difference = if key.is(Tuple::Original) {
            difference.wrapping_add(hash)
        } else {
            difference.wrapping_sub(hash)
        };
    }

    /// Whether the other half of this entry may be missing. Never wrong about one that misses it, except once in 2^64.
    pub(crate) fn may_be_alone(&self, key: &FlowKey, entry: &NatEntry) -> bool {
        self.differences[self.pair(key, entry).0] != 0
    }

    /// Whether any half may be alone.
    pub(crate) fn differ(&self) -> bool {
        self.differences.iter().any(|difference| *difference != 0)
    }

    fn pair(&self, key: &FlowKey, entry: &NatEntry) -> (usize, u64) {
        let (own, other): ((Addr, u16), (Addr, u16)) =
            ((key.local, key.local_port), (entry.addr, entry.port));
        let (original, translated) = if key.is(Tuple::Original) { (own, other) } else { (other, own) };
        let flow = (key.pod, key.protocol, key.remote, key.remote_port);
        let hash = self.hasher.hash_one((flow, original, translated));
        (hash as usize % CLASSES, hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spiderpool_ebpf_common::protocol;

    use super::*;

    const UNDERLAY: Addr = Addr::v4([172, 18, 55, 180]);
    const CLUSTER: Addr = Addr::v4([10, 244, 1, 5]);

    fn halves(port: u16, translated: u16) -> [(FlowKey, NatEntry); 2] {
        let key = FlowKey {
            pod: 1,
            protocol: protocol::UDP,
            tuple: Tuple::Original as u8,
            local_port: port,
            remote_port: 53,
            local: UNDERLAY,
            remote: Addr::v4([10, 96, 0, 10]),
        };
        let entry = |addr, port| NatEntry { last_seen: 0, addr, port, state: 0, _pad: [0; 5] };
        let original = (key, entry(CLUSTER, translated));
        [original, (key.counterpart(CLUSTER, translated), entry(UNDERLAY, port))]
    }

    proptest! {
        #[test]
        fn whatever_the_order_those_without_the_other_half_are_found(
            flows in proptest::collection::btree_map(any::<u16>(), (any::<u16>(), 0..8u8), 0..200),
            turn in any::<prop::sample::Index>(),
        ) {
            let mut entries = Vec::new();
            let mut alone = Vec::new();
            for (port, (translated, missing)) in flows {
                let [original, other] = halves(port, translated);
                match missing {
                    0 => alone.push(original),
                    1 => alone.push(other),
                    _ => entries.extend([original, other]),
                }
            }
            entries.extend(&alone);
            if !entries.is_empty() {
                let middle = turn.index(entries.len());
                entries.rotate_left(middle);
            }
            let mut sums = Halves::new();
            for (key, entry) in &entries {
                sums.add(key, entry);
            }
            prop_assert_eq!(sums.differ(), !alone.is_empty());
            prop_assert!(alone.iter().all(|(key, entry)| sums.may_be_alone(key, entry)));
        }
    }

    #[test]
    fn a_half_that_another_flow_names_is_alone() {
        let [original, _] = halves(1, 9);
        let [_, other] = halves(2, 9);
        let mut sums = Halves::new();
        sums.add(&original.0, &original.1);
        sums.add(&other.0, &other.1);
        assert!(sums.may_be_alone(&other.0, &other.1));
    }
}
