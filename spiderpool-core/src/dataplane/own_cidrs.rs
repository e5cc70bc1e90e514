//! CIDRs that a network's configuration names itself.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is steered, by kind, where the network's configuration says so. A kind that it does not name is the
/// agent's, from SpiderCoordinator, and follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnCidrs {
    /// Service CIDRs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<BTreeSet<IpNet>>,
    /// Overlay pod CIDRs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<BTreeSet<IpNet>>,
    /// `hijackCIDR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hijack: Option<BTreeSet<IpNet>>,
}

impl OwnCidrs {
    /// Whether the agent's are needed for at least one kind.
    pub fn needs_cluster(&self) -> bool {
        self.service.is_none() || self.pod.is_none() || self.hijack.is_none()
    }

    /// Those of several attachments of one pod.
    pub fn join(&mut self, other: &Self) {
        let kinds = [
            (&mut self.service, &other.service),
            (&mut self.pod, &other.pod),
            (&mut self.hijack, &other.hijack),
        ];
        for (own, other) in kinds {
            if let Some(other) = other {
                own.get_or_insert_default().extend(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_overridden_come_from_the_agent() {
        let set = |text: &str| Some(BTreeSet::from([text.parse::<IpNet>().unwrap()]));
        let mut own = OwnCidrs { hijack: set("169.254.20.10/32"), ..OwnCidrs::default() };
        own.join(&OwnCidrs { hijack: set("169.254.20.11/32"), service: set("10.96.0.0/12"), pod: None });
        assert_eq!(own.hijack.as_ref().map(BTreeSet::len), Some(2));
        assert!(own.needs_cluster() && own.pod.is_none() && own.service.is_some());
        let json = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<OwnCidrs>(&json).unwrap(), own);
    }
}
