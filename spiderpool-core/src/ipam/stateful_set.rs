//! Which pods a StatefulSet has: one that ends is followed by another one of the same name, for which its addresses are
//! kept.

use super::holding::Owner;

/// The kind of the workload, of the group `apps`.
pub const KIND: &str = "StatefulSet";

/// What a StatefulSet says of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatefulSetScale {
    /// `spec.ordinals.start`.
    pub start: u32,
    /// `spec.replicas`.
    pub replicas: u32,
    /// `metadata.deletionTimestamp` is set: it makes no more pods.
    pub terminating: bool,
}

impl StatefulSetScale {
    /// Whether the StatefulSet `set` has a pod of this name.
    pub fn has_pod(&self, set: &str, pod: &str) -> bool {
        let end = u64::from(self.start) + u64::from(self.replicas);
        let is_counted = |ordinal| (u64::from(self.start)..end).contains(&ordinal);
        !self.terminating && ordinal(set, pod).is_some_and(is_counted)
    }
}

impl Owner {
    /// The StatefulSet, by its name in the pod's namespace, that may make another pod of the pod's name. For a workload of
    /// another API group that is called so too, none is found: it would make pods of the same names.
    pub fn stateful_set(&self) -> Option<&str> {
        let workload = self.workload.as_ref().filter(|workload| &*workload.kind == KIND)?;
        ordinal(&workload.name, self.pod.name.name()).map(|_| &*workload.name)
    }
}

/// The number of a StatefulSet's pod: `SET-NUMBER`, as the StatefulSet controller writes it.
fn ordinal(set: &str, pod: &str) -> Option<u64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal: u64 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

#[cfg(test)]
mod tests {
    use super::super::holding::tests::owner;
    use super::*;
    use crate::names::{PodIdentity, PodName};

    #[track_caller]
    fn check(start: u32, replicas: u32, pod: &str, expect: bool) {
        let scale = StatefulSetScale { start, replicas, terminating: false };
        assert_eq!(scale.has_pod("web", pod), expect, "{start}+{replicas} {pod}");
        assert!(!StatefulSetScale { terminating: true, ..scale }.has_pod("web", pod));
    }

    #[test]
    fn pods_are_counted_from_the_first_ordinal() {
        check(0, 3, "web-0", true);
        check(0, 3, "web-2", true);
        check(0, 3, "web-3", false);
        check(0, 0, "web-0", false);
        check(5, 2, "web-4", false);
        check(5, 2, "web-6", true);
        check(5, 2, "web-7", false);
        check(u32::MAX, u32::MAX, "web-4294967295", true);
    }

    #[test]
    fn other_names_are_no_pods_of_it() {
        for pod in
            ["web", "web-", "web-a", "web-00", "web-+1", "web2-0", "x-web-0", "web-18446744073709551616"]
        {
            check(0, u32::MAX, pod, false);
        }
    }

    #[test]
    fn only_a_stateful_set_whose_pod_is_numbered_has_successors() {
        let of = |kind: &str, pod: &str| {
            let owner = owner("u", kind);
            let pod = PodIdentity { name: PodName::new("ns", pod).unwrap(), ..owner.pod };
            Owner { pod, ..owner }.stateful_set().map(ToOwned::to_owned)
        };
        assert_eq!(of("StatefulSet", "web-0").as_deref(), Some("web"));
        assert_eq!(of("StatefulSet", "other-0"), None);
        assert_eq!(of("Deployment", "web-0"), None);
    }
}
