//! Calico's IPPools, of `crd.projectcalico.org/v1` and of `projectcalico.org/v3`.
//!
//! A pool that is disabled gives no new addresses and may still have pods, and so may one that is being deleted: both
//! count until they are gone.

use kube::core::Object;
use serde::Deserialize;

use super::age::sort_by_age;
use crate::leader::coordinator::cidrs::Cidrs;
use crate::leader::coordinator::outcome::Read;

/// The use without which no pod gets an address of a pool (`spec.allowedUses`; absent or empty: pods do).
const WORKLOAD: &str = "Workload";

/// What is read of an IPPool.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IpPoolSpec {
    cidr: String,
    allowed_uses: Vec<String>,
}

/// An IPPool of either group.
pub(crate) type IpPool = Object<Option<IpPoolSpec>, serde::de::IgnoredAny>;

/// The IPPools of both groups: Calico's API server shows those of the CRD in the other form, and where it is not
/// installed or does not answer, one group that has any is enough.
pub(crate) fn of_both_groups(crd: Read<Vec<IpPool>>, api: Read<Vec<IpPool>>) -> Read<Vec<IpPool>> {
    match (crd, api) {
        (Read::Found(mut pools), Read::Found(more)) => {
            pools.extend(more);
            Read::Found(pools)
        }
        // All pools may be in the other group.
        (Read::Found(pools), Read::Failed(error)) | (Read::Failed(error), Read::Found(pools))
            if pools.is_empty() =>
        {
            Read::Failed(error)
        }
        (Read::Found(pools), _) | (_, Read::Found(pools)) => Read::Found(pools),
        (Read::Failed(error), _) | (_, Read::Failed(error)) => Read::Failed(error),
        (Read::Absent, Read::Absent) => Read::Absent,
    }
}

/// The CIDRs that pods may have addresses of, oldest pool first.
pub(crate) fn cidrs(mut pools: Vec<IpPool>) -> Cidrs {
    sort_by_age(&mut pools, |pool| &pool.metadata);
    let mut cidrs = Cidrs::default();
    for pool in pools {
        let spec = pool.spec.unwrap_or_default();
        if !spec.allowed_uses.is_empty() && !spec.allowed_uses.iter().any(|using| using == WORKLOAD) {
            continue;
        }
        let object = format!("Calico IPPool {}", pool.metadata.name.unwrap_or_default());
        cidrs.add(&object, "spec.cidr", &spec.cidr);
    }
    cidrs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(list: &str) -> Vec<IpPool> {
        serde_norway::Deserializer::from_str(list).map(|one| IpPool::deserialize(one).unwrap()).collect()
    }

    /// As Calico writes its pools.
    #[test]
    fn pools_of_both_groups_count_once_the_oldest_first() {
        for (file, expected) in [
            (include_str!("fixtures/calico-v3.26.yaml"), &["10.244.0.0/16", "fd00:244::/48"][..]),
            (include_str!("fixtures/calico-v3.30.yaml"), &["10.244.0.0/16", "10.245.0.0/16"]),
        ] {
            let pools = pools(file);
            let both = of_both_groups(Read::Found(pools.clone()), Read::Found(pools));
            assert_eq!(both.map(cidrs).found().unwrap().texts(), expected);
        }
    }

    const STATES: &str = "
metadata: {name: new, creationTimestamp: '2026-01-03T00:00:00Z'}
spec: {cidr: 10.3.0.0/16}
---
metadata: {name: leaving, creationTimestamp: '2026-01-02T00:00:00Z', deletionTimestamp: '2026-01-05T00:00:00Z'}
spec: {cidr: 10.2.0.0/16}
---
metadata: {name: disabled, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {cidr: 10.1.0.0/16, disabled: true}
---
metadata: {name: tunnels, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {cidr: 10.9.0.0/16, allowedUses: [Tunnel]}
---
metadata: {name: empty, creationTimestamp: '2026-01-04T00:00:00Z'}
";

    /// Upstream drops pools that are disabled or being deleted, and their pods are not reached any more.
    #[test]
    fn disabled_and_terminating_pools_count_until_they_are_gone() {
        let cidrs = cidrs(pools(STATES));
        assert_eq!(cidrs.texts(), ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
        assert_eq!(cidrs.invalid.len(), 1);
        let invalid = cidrs.invalid[0].to_string();
        assert!(invalid.starts_with("Calico IPPool empty: spec.cidr: Invalid value: \"\""), "{invalid}");
    }

    /// The API server of Calico may be away, or not installed.
    #[test]
    fn one_group_that_has_pools_is_enough() {
        let failed = || Read::<Vec<IpPool>>::Failed("503".to_owned());
        assert!(of_both_groups(Read::Found(pools(STATES)), failed()).found().is_some());
        assert!(of_both_groups(failed(), Read::Found(pools(STATES))).found().is_some());
        assert!(of_both_groups(Read::Absent, Read::Found(vec![])).found().is_some());
        assert!(
            matches!(of_both_groups(Read::Found(vec![]), failed()), Read::Failed(_)),
            "they may be there"
        );
        assert!(matches!(of_both_groups(Read::Absent, failed()), Read::Failed(_)));
        assert!(matches!(of_both_groups(Read::Absent, Read::Absent), Read::Absent));
    }
}
