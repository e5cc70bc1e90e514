//! Which keys wait, and until when. Without clocks and tasks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use tokio::time::Instant;

/// A key, and since when it is due.
#[derive(Debug, Clone)]
pub(super) struct Entry<K> {
    pub(super) key: K,
    pub(super) since: Instant,
}

/// What a free worker may do.
#[derive(Debug)]
pub(super) enum Take<K> {
    /// Reconcile this one.
    Due(Entry<K>),
    /// Wait until then.
    At(Instant),
    /// Wait until a key is added, or is held no more.
    Empty,
}

/// When a key may run, and in what order those of one time were added.
type Position = (Instant, u64);

/// The waiting keys, each once.
#[derive(Debug)]
pub(super) struct Schedule<K> {
    order: BTreeMap<Position, Entry<K>>,
    positions: HashMap<K, Position>,
    added: u64,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), positions: HashMap::new(), added: 0 }
    }
}

impl<K: Clone + Eq + Hash> Schedule<K> {
    /// The key may run at this time, or at the time that it waits for already if that is earlier. It is due since the
    /// earlier of both.
    pub(super) fn insert(&mut self, mut entry: Entry<K>, mut run_at: Instant) {
        let before = self.positions.get(&entry.key).and_then(|position| self.order.remove_entry(position));
        self.added += 1;
        let mut number = self.added;
        if let Some(((at, place), known)) = before {
            entry.since = entry.since.min(known.since);
            if at <= run_at {
                (run_at, number) = (at, place);
            }
        }
        self.positions.insert(entry.key.clone(), (run_at, number));
        self.order.insert((run_at, number), entry);
    }

    /// How many keys wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Takes the key that is due longest, of those that are not held.
    pub(super) fn take(&mut self, now: Instant, held: &HashSet<K>) -> Take<K> {
        let next = self.order.iter().find(|(_, entry)| !held.contains(&entry.key));
        let Some((&position, _)) = next else { return Take::Empty };
        if position.0 > now {
            return Take::At(position.0);
        }
        match self.order.remove(&position) {
            Some(entry) => {
                self.positions.remove(&entry.key);
                Take::Due(entry)
            }
            None => Take::Empty,
        }
    }
}
