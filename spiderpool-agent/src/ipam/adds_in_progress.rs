//! ADDs that are being served, so that a DEL of the same NIC ends them: the runtime has given them up.

use std::sync::{Mutex, PoisonError};

use spiderpool_core::names::{ContainerId, IfName};
use tokio_util::sync::CancellationToken;

/// Ends ADDs that wait for something when nobody wants their addresses any more.
#[derive(Debug, Default)]
pub(super) struct AddsInProgress(Mutex<Vec<(ContainerId, IfName, CancellationToken)>>);

impl AddsInProgress {
    /// The token of an ADD. It has to be cancelled when the ADD has ended.
    pub(super) fn begin(&self, container_id: &ContainerId, nic: &IfName) -> CancellationToken {
        let token = CancellationToken::new();
        let mut adds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        adds.retain(|(_, _, token)| !token.is_cancelled());
        adds.push((container_id.clone(), nic.clone(), token.clone()));
        token
    }

    /// Ends those of a NIC, or of all NICs of the sandbox.
    pub(super) fn abandon(&self, container_id: &ContainerId, nic: Option<&IfName>) {
        let adds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |of: &IfName, id: &ContainerId| id == container_id && nic.is_none_or(|nic| nic == of);
        for (_, _, token) in adds.iter().filter(|(id, of, _)| is_meant(of, id)) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_del_ends_the_adds_of_its_nic_alone() {
        let adds = AddsInProgress::default();
        let begin = |id: &str, nic: &str| adds.begin(&id.parse().unwrap(), &nic.parse().unwrap());
        let (meant, twice) = (begin("c1", "net1"), begin("c1", "net1"));
        let (other, newer) = (begin("c1", "net2"), begin("c2", "net1"));
        adds.abandon(&"c1".parse().unwrap(), Some(&"net1".parse().unwrap()));
        assert!(meant.is_cancelled() && twice.is_cancelled());
        assert!(!other.is_cancelled() && !newer.is_cancelled());
        adds.abandon(&"c1".parse().unwrap(), None);
        assert!(other.is_cancelled() && !newer.is_cancelled());
        begin("c3", "net1");
        assert_eq!(adds.0.lock().unwrap().len(), 2, "what has ended is forgotten");
    }
}
