//! What can be removed and what must be kept.

use std::collections::BTreeSet;

use spiderpool_core::names::{IfName, PodName};

use super::kernel::FoundOnNode;

/// What [`super::run`] does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CleanPlan {
    /// Node links without a pod.
    pub(super) idle_links: Vec<IfName>,
    /// Why everything else must be kept; empty if nothing must.
    pub(super) keep: Vec<String>,
}

/// Decides from what the kernel shows and from the pods that hold addresses by the API server.
/// A source that cannot be read counts as in use: a missing plugin keeps pods from terminating.
pub(super) fn plan(
    in_kernel: Result<FoundOnNode, String>,
    in_api: Result<BTreeSet<PodName>, String>,
) -> CleanPlan {
    let mut keep = Vec::new();
    let kernel = in_kernel.unwrap_or_else(|error| {
        keep.push(format!("NICs of pods cannot be listed: {error}"));
        FoundOnNode::default()
    });
    let api = in_api.unwrap_or_else(|error| {
        keep.push(format!("pods with addresses cannot be listed: {error}"));
        BTreeSet::new()
    });
    // A pod that the inventory does not know may own any of the links that it does not know.
    let all_known = keep.is_empty() && kernel.orphaned_nics == 0 && api.is_subset(&kernel.pods);
    keep.extend(
        kernel.pods.union(&api).map(|pod| format!("pod {pod} runs with NICs or addresses of Spiderpool")),
    );
    if kernel.orphaned_nics > 0 {
        keep.push(format!("{} NICs belong to pods that are not in the inventory", kernel.orphaned_nics));
    }
    CleanPlan { idle_links: if all_known { kernel.idle_links } else { Vec::new() }, keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: &[&str]) -> BTreeSet<PodName> {
        names.iter().map(|name| PodName::new("d", *name).unwrap()).collect()
    }

    fn kernel(names: &[&str]) -> FoundOnNode {
        FoundOnNode { pods: pods(names), idle_links: vec!["sp0".parse().unwrap()], orphaned_nics: 0 }
    }

    #[test]
    fn without_pods_everything_is_removed() {
        let plan = plan(Ok(kernel(&[])), Ok(pods(&[])));
        assert_eq!((plan.idle_links.len(), plan.keep.len()), (1, 0));
    }

    #[test]
    fn a_running_pod_keeps_everything_but_idle_links() {
        let plan = plan(Ok(kernel(&["a"])), Ok(pods(&["a"])));
        assert_eq!((plan.idle_links.len(), plan.keep.len()), (1, 1));
        assert!(plan.keep[0].contains("d/a"));
    }

    #[test]
    fn a_pod_that_only_the_api_server_knows_may_own_any_link() {
        let plan = plan(Ok(kernel(&[])), Ok(pods(&["b"])));
        assert_eq!((plan.idle_links.len(), plan.keep.len()), (0, 1));
    }

    #[test]
    fn a_source_that_cannot_be_read_counts_as_in_use() {
        assert!(!plan(Err("unreadable".into()), Ok(pods(&[]))).keep.is_empty());
        let plan = plan(Ok(kernel(&[])), Err("no answer".into()));
        assert!(plan.keep[0].contains("no answer") && plan.idle_links.is_empty());
    }
}
