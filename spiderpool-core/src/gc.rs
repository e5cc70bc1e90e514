//! CNI GC: what a container runtime does not know any more. The runtime lists the attachments of one network that are
//! valid; whatever else is recorded for that network is left over from attachments that have ended.

use std::collections::BTreeSet;

use crate::ipam::Holding;
use crate::names::{ContainerId, IfName};

/// A NIC of a sandbox. Within one network it is an attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SandboxNic {
    /// The sandbox.
    pub container_id: ContainerId,
    /// Its NIC.
    pub nic: IfName,
}

/// The attachments of a network that its container runtime knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidAttachments {
    /// The network: `name` of the CNI configuration.
    pub network: String,
    /// All of them.
    pub nics: BTreeSet<SandboxNic>,
}

impl ValidAttachments {
    /// Whether an attachment of this network has ended. One of another network, or of an unknown one, has not: the
    /// list does not speak of it.
    pub fn is_stale(&self, network: &str, attachment: &SandboxNic) -> bool {
        network == self.network && !self.nics.contains(attachment)
    }
}

/// The addresses whose attachment has ended. Whether they are freed is for
/// [`plan_release`](crate::ipam::release::plan_release) to say: their pods may be alive.
pub fn plan_address_gc<H: AsRef<Holding>>(
    held: impl IntoIterator<Item = H>,
    valid: &ValidAttachments,
) -> Vec<H> {
    held.into_iter().filter(|held| is_stale_address(held.as_ref(), valid)).collect()
}

/// Whether the address's attachment has ended.
pub fn is_stale_address(holding: &Holding, valid: &ValidAttachments) -> bool {
    let (Some(network), Some(container_id)) = (&holding.network, &holding.container_id) else { return false };
    let attachment = SandboxNic { container_id: container_id.clone(), nic: holding.nic.clone() };
    valid.is_stale(network, &attachment)
}

/// The registered attachments that have ended, each given with its network.
pub fn plan_attachment_gc<N: AsRef<str>>(
    registered: impl IntoIterator<Item = (N, SandboxNic)>,
    valid: &ValidAttachments,
) -> Vec<SandboxNic> {
    let stale = registered.into_iter().filter(|(network, nic)| valid.is_stale(network.as_ref(), nic));
    stale.map(|(_, nic)| nic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::holding::tests::holding;

    fn nic(container: &str, nic: &str) -> SandboxNic {
        SandboxNic { container_id: container.parse().unwrap(), nic: nic.parse().unwrap() }
    }

    fn valid() -> ValidAttachments {
        ValidAttachments { network: "blue".into(), nics: [nic("c1", "net1")].into() }
    }

    #[test]
    fn gc_speaks_of_its_own_network_alone() {
        let registered = [
            ("blue", nic("c1", "net1")),
            ("blue", nic("c1", "net2")),
            ("blue", nic("c2", "net1")),
            ("red", nic("c3", "net1")),
            ("", nic("c4", "net1")),
        ];
        assert_eq!(plan_attachment_gc(registered, &valid()), [nic("c1", "net2"), nic("c2", "net1")]);
    }

    #[test]
    fn an_address_without_network_or_sandbox_is_never_garbage() {
        let held = |container: Option<&str>, network: Option<&str>| Holding {
            container_id: container.map(|id| id.parse().unwrap()),
            network: network.map(Into::into),
            ..holding("net1", "10.6.0.9/16", "p", "u")
        };
        let all = [
            held(Some("c1"), Some("blue")),
            held(Some("c2"), Some("blue")),
            held(None, Some("blue")),
            held(Some("c2"), None),
            held(Some("c2"), Some("red")),
        ];
        assert_eq!(plan_address_gc(&all, &valid()), [&all[1]]);
    }
}
