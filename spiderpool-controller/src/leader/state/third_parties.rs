//! Applications of third parties that want pools of SpiderSubnets: nobody tells of them but their pods.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use spiderpool_api::workload::SubnetApplication;
use spiderpool_core::names::{PodUid, PoolName};
use spiderpool_core::subnet::Application;

/// What a pod says of the application that controls it, and since when the pod is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SaidByPod {
    pub(crate) application: Arc<SubnetApplication>,
    pub(crate) created: Option<Timestamp>,
}

/// Which application it is: anybody may write a UID into a pod, but not into one of another namespace.
type Key = (Application, String);

/// Those of which there are pods.
#[derive(Debug, Default)]
pub(crate) struct ThirdParties {
    known: HashMap<Key, HashMap<PodUid, SaidByPod>>,
    of_pod: HashMap<PodUid, Key>,
}

impl ThirdParties {
    /// Each of them, as its youngest pod says it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<SubnetApplication>> {
        self.known.values().filter_map(current)
    }

    /// The pod is there; returns the subnets of which something else may be wanted than before.
    pub(super) fn insert(&mut self, pod: &PodUid, said: Option<&SaidByPod>) -> Vec<PoolName> {
        let Some(said) = said else { return self.remove(pod) };
        let key = (said.application.application.clone(), said.application.uid.clone());
        // Its owner may be changed, by hand.
        let mut changed = if self.of_pod.get(pod).is_some_and(|before| *before != key) {
            self.remove(pod)
        } else {
            Vec::new()
        };
        let pods = self.known.entry(key.clone()).or_default();
        let before = current(pods).cloned();
        pods.insert(pod.clone(), said.clone());
        let after = current(pods).cloned();
        if before != after {
            changed.extend([before, after].into_iter().flatten().flat_map(|one| one.subnets()));
        }
        self.of_pod.insert(pod.clone(), key);
        changed
    }

    /// The pod is gone.
    pub(super) fn remove(&mut self, pod: &PodUid) -> Vec<PoolName> {
        let Some(key) = self.of_pod.remove(pod) else { return Vec::new() };
        let Some(pods) = self.known.get_mut(&key) else { return Vec::new() };
        let before = current(pods).cloned();
        pods.remove(pod);
        let after = current(pods).cloned();
        if pods.is_empty() {
            self.known.remove(&key);
        }
        let changed = if before == after { Vec::new() } else { vec![before, after] };
        changed.into_iter().flatten().flat_map(|one| one.subnets()).collect()
    }

    /// No pod is there; returns all subnets that were wanted.
    pub(super) fn clear(&mut self) -> Vec<PoolName> {
        self.of_pod.clear();
        let gone = std::mem::take(&mut self.known);
        gone.values().filter_map(current).flat_map(|one| one.subnets()).collect()
    }
}

/// In a rolling update the pods of the new template are the younger ones.
fn current(pods: &HashMap<PodUid, SaidByPod>) -> Option<&Arc<SubnetApplication>> {
    let youngest = pods.iter().max_by_key(|(uid, said)| (said.created, uid.as_str()));
    youngest.map(|(_, said)| &said.application)
}

#[cfg(test)]
mod tests {
    use spiderpool_core::ipam::owner::OwnerRef;

    use super::*;

    fn said(subnet: &str, created: i64, owner: &str) -> SaidByPod {
        let owner = OwnerRef {
            api_version: "apps.kruise.io/v1alpha1".to_owned(),
            kind: "CloneSet".to_owned(),
            name: "web".to_owned(),
            uid: owner.to_owned(),
        };
        let subnet = format!(r#"{{"ipv4":["{subnet}"]}}"#);
        let annotations = [("ipam.spidernet.io/subnet".to_owned(), subnet)].into();
        let application = SubnetApplication::of_third_party(&owner, "ns1", &annotations).unwrap();
        let created = Timestamp::from_second(created).ok();
        SaidByPod { application: Arc::new(application), created }
    }

    fn names(mut found: Vec<PoolName>) -> Vec<String> {
        found.sort();
        found.dedup();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_application_is_known_from_its_first_pod_to_its_last() {
        let [a, b] = ["a", "b"].map(|uid| uid.parse::<PodUid>().unwrap());
        let mut all = ThirdParties::default();
        assert_eq!(names(all.insert(&a, Some(&said("s1", 1, "u")))), ["s1"]);
        assert_eq!(names(all.insert(&a, Some(&said("s1", 1, "u")))), [""; 0]);
        assert_eq!(
            names(all.insert(&b, Some(&said("s2", 2, "u")))),
            ["s1", "s2"],
            "its template has changed"
        );
        assert_eq!(all.iter().count(), 1);
        assert_eq!(names(all.remove(&a)), [""; 0]);
        assert_eq!((names(all.insert(&b, None)), all.iter().count()), (vec!["s2".to_owned()], 0));
        all.insert(&a, Some(&said("s1", 1, "u")));
        assert_eq!((names(all.clear()), all.iter().count()), (vec!["s1".to_owned()], 0));
    }

    #[test]
    fn the_youngest_pod_says_what_is_wanted_in_whatever_order_they_come() {
        let [a, b] = ["a", "b"].map(|uid| uid.parse::<PodUid>().unwrap());
        let mut all = ThirdParties::default();
        all.insert(&b, Some(&said("new", 2, "u")));
        assert_eq!(names(all.insert(&a, Some(&said("old", 1, "u")))), [""; 0]);
        assert_eq!(names(all.remove(&b)), ["new", "old"], "the update is undone");
        assert_eq!(names(all.insert(&a, Some(&said("old", 1, "v")))), ["old"], "another one owns it");
        assert_eq!(all.iter().map(|one| one.uid.as_str()).collect::<Vec<_>>(), ["v"]);
    }
}
