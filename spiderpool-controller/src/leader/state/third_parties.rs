//! Applications of third parties that want pools of SpiderSubnets: nobody tells of them but their pods.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use spiderpool_api::workload::SubnetApplication;
use spiderpool_core::names::{PodUid, PoolName};

/// Those of which there are pods.
#[derive(Debug, Default)]
pub(crate) struct ThirdParties {
    /// By UID.
    known: HashMap<String, Known>,
    of_pod: HashMap<PodUid, String>,
}

#[derive(Debug)]
struct Known {
    application: Arc<SubnetApplication>,
    pods: HashSet<PodUid>,
}

impl ThirdParties {
    /// Each of them, as the pod says it that was seen last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<SubnetApplication>> {
        self.known.values().map(|known| &known.application)
    }

    /// The pod is there; returns the subnets of which something else is wanted than before.
    pub(super) fn insert(
        &mut self,
        pod: &PodUid,
        application: Option<&Arc<SubnetApplication>>,
    ) -> Vec<PoolName> {
        let Some(application) = application else { return self.remove(pod) };
        if self.of_pod.insert(pod.clone(), application.uid.clone()).is_some() {
            // Its owner does not change, and its annotations only by hand.
            return Vec::new();
        }
        let mut changed = Vec::new();
        let known = self.known.entry(application.uid.clone()).or_insert_with(|| {
            changed.extend(application.subnets());
            Known { application: Arc::clone(application), pods: HashSet::new() }
        });
        known.pods.insert(pod.clone());
        if known.application != *application {
            changed.extend(known.application.subnets().into_iter().chain(application.subnets()));
            known.application = Arc::clone(application);
        }
        changed
    }

    /// The pod is gone.
    pub(super) fn remove(&mut self, pod: &PodUid) -> Vec<PoolName> {
        let Some(uid) = self.of_pod.remove(pod) else { return Vec::new() };
        let Some(known) = self.known.get_mut(&uid) else { return Vec::new() };
        known.pods.remove(pod);
        if !known.pods.is_empty() {
            return Vec::new();
        }
        let gone = self.known.remove(&uid);
        gone.map_or_else(Vec::new, |gone| gone.application.subnets())
    }

    /// No pod is there; returns all subnets that were wanted.
    pub(super) fn clear(&mut self) -> Vec<PoolName> {
        self.of_pod.clear();
        self.known.drain().flat_map(|(_, known)| known.application.subnets()).collect()
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_core::ipam::owner::OwnerRef;

    use super::*;

    fn application(subnet: &str) -> Arc<SubnetApplication> {
        let owner = OwnerRef {
            api_version: "apps.kruise.io/v1alpha1".to_owned(),
            kind: "CloneSet".to_owned(),
            name: "web".to_owned(),
            uid: "u".to_owned(),
        };
        let subnet = format!(r#"{{"ipv4":["{subnet}"]}}"#);
        let annotations = [("ipam.spidernet.io/subnet".to_owned(), subnet)].into();
        Arc::new(SubnetApplication::of_third_party(&owner, "ns1", &annotations).unwrap())
    }

    #[test]
    fn an_application_is_known_from_its_first_pod_to_its_last() {
        let [a, b] = ["a", "b"].map(|uid| uid.parse::<PodUid>().unwrap());
        let names = |found: Vec<PoolName>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut all = ThirdParties::default();
        assert_eq!(names(all.insert(&a, Some(&application("s1")))), ["s1"]);
        assert_eq!(names(all.insert(&a, Some(&application("s1")))), [""; 0]);
        assert_eq!(names(all.insert(&b, Some(&application("s2")))), ["s1", "s2"], "its template has changed");
        assert_eq!((names(all.remove(&a)), all.iter().count()), (vec![], 1));
        assert_eq!((names(all.insert(&b, None)), all.iter().count()), (vec!["s2".to_owned()], 0));
        all.insert(&a, Some(&application("s1")));
        assert_eq!((names(all.clear()), all.iter().count()), (vec!["s1".to_owned()], 0));
    }
}
