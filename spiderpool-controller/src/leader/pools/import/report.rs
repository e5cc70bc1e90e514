//! What a person is told of an import.

use std::fmt;
use std::net::IpAddr;

use kube::runtime::events::EventType;
use spiderpool_api::crd::SpiderIPAddressSpec;
use spiderpool_api::pod::Pod;
use spiderpool_api::upstream::RecordsError;
use spiderpool_core::names::PodName;
use spiderpool_runtime::kubernetes::ApiFailure;

use crate::leader::pools::upstream_agents::ServiceAccount;

/// What keeps a pool from being imported.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::leader::pools) enum Obstacle {
    /// Agents can still allocate by its status.
    Agents(ServiceAccount),
    /// It is not known what is in use.
    Records(RecordsError),
    /// The API server refuses a request of the import, in its words.
    Refused(String),
}

impl Obstacle {
    /// A request of the import has failed; `None` if that passes by itself.
    pub(in crate::leader::pools) fn of(failure: &ApiFailure) -> Option<Self> {
        let passes = failure.is_retryable() || failure.is_conflict() || failure.is_not_found();
        (!passes).then(|| Self::Refused(failure.to_string()))
    }

    /// Whether nothing new is to be said after this one: each attempt may be refused another address, for the same reason.
    pub(in crate::leader::pools) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(one), Self::Refused(other)) => without_addresses(one).eq(without_addresses(other)),
            _ => self == other,
        }
    }
}

/// The words without digits: none of these is an address or the name of its object.
fn without_addresses(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()))
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agents(account) => write!(
                f,
                "the ServiceAccount {account} may write the status of IPPools, by which agents of upstream's Spiderpool \
                 allocate: upgrade that installation to this chart, or remove it; the addresses in use are imported then"
            ),
            Self::Records(error) => write!(
                f,
                "{error}: correct it, or use a new pool; when no Pod uses an address of this pool any more, set its \
                 annotation ipam.spidernet.io/allocations to SpiderIPAddress"
            ),
            Self::Refused(failure) => write!(
                f,
                "{failure}: give spiderpool-controller the rights that the chart gives it, and have admission policies and webhooks \
                 admit what it writes; the import is tried again until it succeeds"
            ),
        }
    }
}

/// What was imported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::leader::pools) struct ImportReport {
    /// Addresses that have an object now.
    pub(in crate::leader::pools) addresses: usize,
    /// Records that stand for none.
    pub(in crate::leader::pools) faulty: Vec<String>,
    /// Addresses that another living pod has, as a SpiderIPAddress says.
    pub(in crate::leader::pools) conflicts: Vec<ImportConflict>,
}

/// So many are named in an Event.
const NAMED: usize = 10;

impl ImportReport {
    /// A warning if something was left out.
    pub(in crate::leader::pools) fn event_type(&self) -> EventType {
        if self.faulty.is_empty() && self.conflicts.is_empty() {
            EventType::Normal
        } else {
            EventType::Warning
        }
    }
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} addresses that agents of upstream's Spiderpool had given out are SpiderIPAddresses now, and Pods get \
             addresses from the pool again",
            self.addresses
        )?;
        let conflicts = self.conflicts.iter().map(ToString::to_string);
        let problems = conflicts.chain(self.faulty.iter().cloned());
        problems.take(NAMED).try_for_each(|problem| write!(f, "; {problem}"))?;
        let more = (self.conflicts.len() + self.faulty.len()).saturating_sub(NAMED);
        if more > 0 {
            write!(f, "; and {more} more, see the controller's log")?;
        }
        Ok(())
    }
}

/// An address that two pods have.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::leader::pools) struct ImportConflict {
    address: IpAddr,
    /// The pod of the record.
    pod: PodName,
    /// The UID of its object.
    pod_uid: String,
    /// The pod of the object, and its UID.
    other: PodName,
    other_uid: String,
}

impl ImportConflict {
    /// The address belongs to `pod` by its record, and by its object to the pod that `held` names. A name that is none is shown as
    /// that of the first pod: both Events are about it then.
    pub(super) fn new(address: IpAddr, pod: &Pod, held: &SpiderIPAddressSpec) -> Self {
        let other = PodName::new(held.pod_namespace.as_str(), held.pod_name.as_str());
        Self {
            address,
            pod: pod.identity.name.clone(),
            pod_uid: pod.object_uid.clone(),
            other: other.unwrap_or_else(|_| pod.identity.name.clone()),
            other_uid: held.pod_uid.clone(),
        }
    }

    /// The pods, each with the UID of its object.
    pub(in crate::leader::pools) fn pods(&self) -> [(&PodName, &str); 2] {
        [(&self.pod, &self.pod_uid), (&self.other, &self.other_uid)]
    }
}

impl fmt::Display for ImportConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, pod, other, .. } = self;
        write!(
            f,
            "{address} is used by Pod {pod} and by Pod {other}: delete Pod {pod}, so that it gets another address"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::core::Status;

    use super::*;

    #[test]
    fn only_what_does_not_pass_by_itself_is_an_obstacle() {
        let refused = |code, text: &str| {
            Obstacle::of(&ApiFailure::Refused(Status::failure(text, "").with_code(code).boxed()))
        };
        let forbidden = refused(403, "10.6.0.9 is forbidden").unwrap();
        let text = forbidden.to_string();
        assert!(
            text.contains("10.6.0.9 is forbidden") && text.contains(": give spiderpool-controller"),
            "{text}"
        );
        assert!(forbidden.is_like(&refused(403, "10.6.0.8 is forbidden").unwrap()));
        assert!(!forbidden.is_like(&refused(422, "10.6.0.8 is invalid").unwrap()), "another reason");
        assert!(
            !forbidden.is_like(&Obstacle::Agents(ServiceAccount { namespace: "n".into(), name: "a".into() }))
        );
        for code in [404, 409, 429, 500] {
            assert_eq!(refused(code, "no"), None, "{code}");
        }
        assert_eq!(Obstacle::of(&ApiFailure::Timeout(Duration::from_secs(10))), None);
    }
}
