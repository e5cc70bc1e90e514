//! What a pool's conditions say: whether pods get addresses from it, and what is unusual about it.

use ipnet::IpNet;

use super::PoolEntry;
use super::pool::{PodCidrOverlap, PoolConflict};

/// The reason of a pool whose spec does not make sense.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// The reason of a pool with upstream's allocations.
pub const NOT_IMPORTED: &str = "NotImported";

/// A condition of a pool, without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCondition {
    /// What it is about.
    pub kind: PoolConditionKind,
    /// Whether that is so.
    pub holds: bool,
    /// Why, as one word.
    pub reason: &'static str,
    /// Why, for people, and what to do.
    pub message: String,
}

/// The types of a pool's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolConditionKind {
    /// Pods get addresses from the pool. Always there.
    Ready,
    /// Pods may get addresses that are no host's. There only if it is so.
    SpecialAddresses,
    /// Overlay pods have addresses of the pool: it is for the main CNI plugin's NIC only. There only if it is so.
    PodCidrAddresses,
}

impl PoolConditionKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::SpecialAddresses, Self::PodCidrAddresses];

    /// The condition's type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::SpecialAddresses => "SpecialAddresses",
            Self::PodCidrAddresses => "PodCIDRAddresses",
        }
    }
}

/// The conditions of a pool, in a cluster whose overlay pods have addresses of these CIDRs.
pub fn pool_conditions(entry: &PoolEntry, pod_cidrs: &[IpNet]) -> Vec<PoolCondition> {
    let ready =
        |holds, reason, message| PoolCondition { kind: PoolConditionKind::Ready, holds, reason, message };
    let pool = match &entry.spec {
        Ok(pool) => pool,
        Err(error) => return vec![ready(false, INVALID_SPEC, error.to_string())],
    };
    let conflict = |conflict: &PoolConflict| {
        let reason = match conflict {
            PoolConflict::NotImported { .. } => NOT_IMPORTED,
            PoolConflict::OlderPool { .. } => "OverlapsOlderPool",
            PoolConflict::ServiceCidr { .. } => "OverlapsServiceCIDR",
        };
        ready(false, reason, format!("{conflict}: {}", conflict.remedy()))
    };
    let not_imported = entry.conflict.as_ref().filter(|one| matches!(one, PoolConflict::NotImported { .. }));
    // Before all else: a later leader takes any other reason for a sign that the pool is served already.
    let mut conditions = vec![if let Some(not_imported) = not_imported {
        conflict(not_imported)
    } else if entry.terminating {
        ready(false, "Terminating", "the pool is deleted when none of its addresses is in use".to_owned())
    } else if pool.disabled {
        ready(
            false,
            "Disabled",
            "spec.disable is set: pods keep what they have and get nothing new".to_owned(),
        )
    } else if let Some(other) = &entry.conflict {
        conflict(other)
    } else {
        ready(true, "Valid", "pods get addresses from the pool".to_owned())
    }];
    let special: Vec<_> = pool.usable_special().map(|special| special.to_string()).collect();
    if !special.is_empty() {
        let message = format!("{}: a pod with it may be unreachable", special.join(", "));
        let (kind, reason) = (PoolConditionKind::SpecialAddresses, "NamedInIPs");
        conditions.push(PoolCondition { kind, holds: true, reason, message });
    }
    if let Some(overlap) = PodCidrOverlap::find(pool, pod_cidrs) {
        let (kind, reason) = (PoolConditionKind::PodCidrAddresses, "OverlapsPodCIDR");
        conditions.push(PoolCondition { kind, holds: true, reason, message: overlap.to_string() });
    }
    conditions
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ipam::{Pool, PoolFields};

    fn entry(ips: &[&str], disable: bool) -> PoolEntry {
        let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
        let fields =
            PoolFields { name: "p", subnet: "10.6.0.0/24", ips: &ips, disable, ..PoolFields::default() };
        let spec = Pool::parse(&fields).map(Arc::new).map_err(Arc::new);
        PoolEntry { spec, terminating: false, conflict: None }
    }

    #[track_caller]
    fn check_ready(entry: &PoolEntry, holds: bool, reason: &str, part: &str) {
        let conditions = pool_conditions(entry, &[]);
        let ready = &conditions[0];
        assert_eq!((ready.kind, ready.holds, ready.reason), (PoolConditionKind::Ready, holds, reason));
        assert!(ready.message.contains(part), "{ready:?}");
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn ready_says_what_keeps_pods_from_addresses() {
        let valid = entry(&["10.6.0.1"], false);
        check_ready(&valid, true, "Valid", "pods get addresses");
        check_ready(
            &entry(&["10.7.0.1"], false),
            false,
            "InvalidSpec",
            "spec.ips[0]: 10.7.0.1 is not inside",
        );
        check_ready(&entry(&["10.6.0.1"], true), false, "Disabled", "spec.disable");
        check_ready(&PoolEntry { terminating: true, ..valid.clone() }, false, "Terminating", "deleted");
        let (pool, older) = ("p".parse().unwrap(), "old".parse().unwrap());
        let conflict = PoolConflict::OlderPool { pool, older, ranges: vec!["10.6.0.1".parse().unwrap()] };
        let overlapping = PoolEntry { conflict: Some(conflict), ..valid.clone() };
        check_ready(&overlapping, false, "OverlapsOlderPool", "the older IPPool old in 10.6.0.1: change");
        let conflict = PoolConflict::NotImported { pool: "p".parse().unwrap() };
        let of_upstream = PoolEntry { conflict: Some(conflict), terminating: true, ..valid };
        check_ready(&of_upstream, false, NOT_IMPORTED, "status.allocatedIPs");
    }

    /// With the main CNI plugin, pods' addresses are those of the pod CIDR; an underlay NIC with one cuts its pod off.
    #[test]
    fn a_pool_in_a_pod_cidr_is_ready_and_says_for_which_nic() {
        let cidrs = ["fd00::/64", "10.6.0.0/28"].map(|cidr| cidr.parse().unwrap());
        let [ready, overlap] = &pool_conditions(&entry(&["10.6.0.9-10.6.0.20"], false), &cidrs)[..] else {
            panic!("two conditions")
        };
        assert!(ready.holds && overlap.holds);
        assert_eq!((overlap.kind.as_str(), overlap.reason), ("PodCIDRAddresses", "OverlapsPodCIDR"));
        assert!(overlap.message.contains("the pod CIDR 10.6.0.0/28 in 10.6.0.9-10.6.0.15: "), "{overlap:?}");
        assert_eq!(pool_conditions(&entry(&["10.6.0.16"], false), &cidrs).len(), 1);
    }

    #[test]
    fn an_address_that_is_no_hosts_is_warned_about() {
        let [ready, special] = &pool_conditions(&entry(&["10.6.0.1", "10.6.0.255"], false), &[])[..] else {
            panic!("two conditions")
        };
        assert!(ready.holds && special.holds);
        assert_eq!((special.kind.as_str(), special.reason), ("SpecialAddresses", "NamedInIPs"));
        assert!(special.message.starts_with("10.6.0.255 is the broadcast address"), "{special:?}");
    }
}
