//! One shared copy of each text that occurs often: names of nodes, namespaces and workloads.

use std::collections::HashSet;
use std::sync::Arc;

use spiderpool_core::names::{PodIdentity, PodName};

/// How many texts are added before unused ones are dropped.
const SWEEP: usize = 4096;

/// The texts.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    known: HashSet<Arc<str>>,
    added: usize,
}

impl Interner {
    /// The shared copy of a text.
    pub(crate) fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        self.added += 1;
        if self.added > SWEEP.max(self.known.len()) {
            self.added = 0;
            self.known.retain(|name| Arc::strong_count(name) > 1);
        }
        let name: Arc<str> = text.into();
        self.known.insert(Arc::clone(&name));
        name
    }

    /// The name over the shared copy of its text.
    pub(crate) fn share<N: AsRef<str> + TryFrom<Arc<str>>>(&mut self, name: N) -> N {
        N::try_from(self.intern(name.as_ref())).unwrap_or(name)
    }

    /// The identity over shared copies of its texts.
    pub(crate) fn share_identity(&mut self, pod: &PodIdentity) -> PodIdentity {
        let name = PodName::new(self.intern(pod.name.namespace()), self.intern(pod.name.name()));
        PodIdentity { name: name.unwrap_or_else(|_| pod.name.clone()), uid: self.share(pod.uid.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_memory_and_unused_ones_are_dropped() {
        let mut interner = Interner::default();
        let a = interner.intern("a");
        assert!(Arc::ptr_eq(&a, &interner.intern("a")));
        for number in 0..3 * SWEEP {
            interner.intern(&number.to_string());
        }
        assert!(interner.known.len() <= 2 * SWEEP + 2 && Arc::ptr_eq(&a, &interner.intern("a")));
    }
}
