//! What is left to be done after the API server has gone back in time.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spiderpool_core::ipam::Owner;
use spiderpool_core::names::NodeName;

/// The agents of a cluster, which all learn of it at the same time, list their addresses within so much time: for each of these lists
/// the API server looks at all addresses.
const LIST_WINDOW: Duration = Duration::from_secs(30);

/// What is left to be done of it.
#[derive(Debug)]
pub(super) struct Reassertion {
    pub(super) pods: Vec<Arc<Owner>>,
    /// From when on the API server is asked for addresses that are not known here; `None` once it has been.
    pub(super) lists_from: Option<Instant>,
}

impl Reassertion {
    /// Everything is left, of the pods of a node.
    pub(super) fn new(pods: Vec<Arc<Owner>>, node: &NodeName, now: Instant) -> Self {
        Self { pods, lists_from: Some(now + list_pause(node)) }
    }

    /// Nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.pods.is_empty() && self.lists_from.is_none()
    }

    /// Something can be done now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.pods.is_empty() || self.lists_from.is_some_and(|from| from <= now)
    }
}

/// The same for each node, and spread evenly over all.
fn list_pause(node: &NodeName) -> Duration {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    LIST_WINDOW.mul_f64(hasher.finish() as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nodes_list_at_different_times() {
        let pauses: BTreeSet<_> =
            (0..300).map(|index| list_pause(&format!("node{index}").parse().unwrap()).as_secs()).collect();
        assert!(pauses.len() > 25 && pauses.last() < Some(&LIST_WINDOW.as_secs()), "{pauses:?}");
    }
}
