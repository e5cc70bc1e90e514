//! Labels of an application's pool, and what the pool asks of the pods that use it.

use std::collections::BTreeMap;

use super::application::{Application, PoolPurpose};
use crate::ip::Family;
use crate::ipam::address_name::{LABEL_LIMIT, label_value};
use crate::label_selector::is_label_value;

/// On pools: the SpiderSubnet that they belong to.
pub const OWNER_SUBNET: &str = "ipam.spidernet.io/owner-spider-subnet";
/// On SpiderSubnets: the subnet, with `.`, `:` and `/` replaced.
pub const SUBNET_CIDR: &str = "ipam.spidernet.io/subnet-cidr";
/// On pools made for an application: `apps_v1`.
pub const OWNER_APPLICATION_GV: &str = "ipam.spidernet.io/owner-application-gv";
/// Its kind.
pub const OWNER_APPLICATION_KIND: &str = "ipam.spidernet.io/owner-application-kind";
/// Its namespace.
pub const OWNER_APPLICATION_NAMESPACE: &str = "ipam.spidernet.io/owner-application-namespace";
/// Its name. The label alone says that a pool is such a one.
pub const OWNER_APPLICATION_NAME: &str = "ipam.spidernet.io/owner-application-name";
/// Its UID.
pub const OWNER_APPLICATION_UID: &str = "ipam.spidernet.io/owner-application-uid";
/// The NIC of its pods.
pub const INTERFACE: &str = "ipam.spidernet.io/interface";
/// `IPv4` or `IPv6`.
pub const IP_VERSION: &str = "ipam.spidernet.io/ip-version";
/// Whether the pool goes with the application: `true` or `false`.
pub const IPPOOL_RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";

/// What an application's pool asks of pods, by the workload at their top: pods have no such labels of their own.
const APP_GROUP: &str = "ipam.spidernet.io/app-api-group";
const APP_VERSION: &str = "ipam.spidernet.io/app-api-version";
const APP_KIND: &str = "ipam.spidernet.io/app-kind";
const APP_NAMESPACE: &str = "ipam.spidernet.io/app-namespace";
const APP_NAME: &str = "ipam.spidernet.io/app-name";

/// All of them.
pub const APP_KEYS: [&str; 5] = [APP_GROUP, APP_VERSION, APP_KIND, APP_NAMESPACE, APP_NAME];

impl Application {
    /// What its pools ask of pods, and what pods below it have. Values are labels': those that do not fit are cut and end with a
    /// hash.
    pub fn pod_labels(&self) -> BTreeMap<String, String> {
        let Self { group, version, kind, namespace, name } = self;
        let values = [group, version, kind, namespace, name].map(|value| label_value(value));
        APP_KEYS.map(str::to_owned).into_iter().zip(values).collect()
    }

    /// Whether all of it, with a UID, can be in labels: who owns a pod, anybody may write who can make pods.
    pub fn is_valid(&self, uid: &str) -> bool {
        let labels = self.pod_labels().into_values().chain([self.group_version(), uid.to_owned()]);
        labels.map(|value| label_value(&value)).all(|value| is_label_value(&value))
            && [&self.version, &self.kind, &self.namespace, &self.name].iter().all(|part| !part.is_empty())
            && !uid.is_empty()
            && uid.len() <= LABEL_LIMIT
    }

    /// What tells its pools from those of others, whatever its UID.
    fn pool_labels(&self) -> [(&'static str, String); 4] {
        [
            (OWNER_APPLICATION_GV, label_value(&self.group_version())),
            (OWNER_APPLICATION_KIND, label_value(&self.kind)),
            (OWNER_APPLICATION_NAMESPACE, label_value(&self.namespace)),
            (OWNER_APPLICATION_NAME, label_value(&self.name)),
        ]
    }
}

/// What a pool was made for by its labels, whichever application of a name and kind: the values of these keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PurposeLabels([String; 6]);

impl PurposeLabels {
    const KEYS: [&str; 6] = [
        OWNER_APPLICATION_GV,
        OWNER_APPLICATION_KIND,
        OWNER_APPLICATION_NAMESPACE,
        OWNER_APPLICATION_NAME,
        INTERFACE,
        IP_VERSION,
    ];

    /// `None` if one is missing: the pool was made for no application.
    pub fn of(labels: &BTreeMap<String, String>) -> Option<Self> {
        let values: Option<Vec<String>> = Self::KEYS.iter().map(|key| labels.get(*key).cloned()).collect();
        values?.try_into().ok().map(Self)
    }
}

impl PoolPurpose {
    /// What the labels of its pool say, and of those of earlier applications of its name and kind.
    pub fn purpose_labels(&self) -> PurposeLabels {
        let [gv, kind, namespace, name] = self.application.pool_labels().map(|(_, value)| value);
        let (nic, version) = (self.nic.to_string(), version_label(self.family).to_owned());
        PurposeLabels([gv, kind, namespace, name, nic, version])
    }

    /// Whether a pool with these labels was made for this: for the application of this name and kind, or an earlier one.
    pub fn is_of(&self, labels: &BTreeMap<String, String>) -> bool {
        PurposeLabels::of(labels).is_some_and(|found| found == self.purpose_labels())
    }

    /// The labels of its pool.
    pub fn labels(&self, subnet: &str, reclaim: bool) -> BTreeMap<String, String> {
        let own = [
            (OWNER_SUBNET, label_value(subnet)),
            (OWNER_APPLICATION_UID, self.uid.clone()),
            (INTERFACE, self.nic.to_string()),
            (IP_VERSION, version_label(self.family).to_owned()),
            (IPPOOL_RECLAIM, reclaim.to_string()),
        ];
        let all = own.into_iter().chain(self.application.pool_labels());
        all.map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

fn version_label(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Whether a pool with these labels was made for an application.
pub fn is_auto_pool(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(OWNER_APPLICATION_NAME)
}

/// The application that a pool with these labels was made for; `None` also where its name does not fit a label.
pub fn application_of(labels: &BTreeMap<String, String>) -> Option<Application> {
    let get = |key: &str| labels.get(key).map(String::as_str);
    let (group, version) = match get(OWNER_APPLICATION_GV)?.rsplit_once('_') {
        Some((group, version)) => (group, version),
        None => ("", get(OWNER_APPLICATION_GV)?),
    };
    let api = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let (kind, namespace) = (get(OWNER_APPLICATION_KIND)?, get(OWNER_APPLICATION_NAMESPACE)?);
    let name = get(OWNER_APPLICATION_NAME)?;
    // One that may have been cut.
    let is_whole = |value: &&str| value.len() < LABEL_LIMIT;
    let values = [get(OWNER_APPLICATION_GV)?, kind, namespace, name];
    values.iter().all(is_whole).then(|| Application::new(&api, kind, namespace, name))
}

/// Whether a pool with these labels goes when its application does.
pub fn is_reclaimed(labels: &BTreeMap<String, String>) -> bool {
    labels.get(IPPOOL_RECLAIM).is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(name: &str) -> PoolPurpose {
        let application = Application::new("apps/v1", "Deployment", "ns1", name);
        PoolPurpose { application, uid: "u1".to_owned(), nic: "net1".parse().unwrap(), family: Family::V6 }
    }

    #[test]
    fn labels_are_upstreams_and_tell_pools_apart() {
        let labels = purpose("web").labels("s1", true);
        let expect = [
            ("owner-spider-subnet", "s1"),
            ("owner-application-gv", "apps_v1"),
            ("owner-application-kind", "Deployment"),
            ("owner-application-namespace", "ns1"),
            ("owner-application-name", "web"),
            ("owner-application-uid", "u1"),
            ("interface", "net1"),
            ("ip-version", "IPv6"),
            ("ippool-reclaim", "true"),
        ];
        let expect = expect.map(|(key, value)| (format!("ipam.spidernet.io/{key}"), value.to_owned()));
        assert_eq!(labels, expect.into());
        assert!(is_auto_pool(&labels) && is_reclaimed(&labels));
        assert_eq!(application_of(&labels), Some(purpose("web").application));
        assert!(!is_reclaimed(&purpose("web").labels("s1", false)));
        let later = PoolPurpose { uid: "u2".to_owned(), ..purpose("web") };
        assert!(later.is_of(&labels), "of an earlier application of the name");
        let v4 = PoolPurpose { family: Family::V4, ..purpose("web") };
        let kind = Application::new("apps/v1", "StatefulSet", "ns1", "web");
        for other in [purpose("web2"), v4, PoolPurpose { application: kind, ..purpose("web") }] {
            assert!(!other.is_of(&labels), "{other:?}");
        }
        assert!(!purpose("web").is_of(&BTreeMap::new()));
    }

    #[test]
    fn an_owner_that_somebody_has_made_up_is_no_application() {
        let valid = purpose("web").application;
        assert!(valid.is_valid("0b6f5a1e-8a4c"));
        for uid in ["", "!!-12345", "u/v", &"u".repeat(64)] {
            assert!(!valid.is_valid(uid), "{uid}");
        }
        for (api_version, kind, name) in [
            ("0/v1", "A B", "web"),
            ("a b/v1", "Kind", "web"),
            ("v1", "", "web"),
            ("v1", "Kind", "we$b"),
            ("", "K", "w"),
        ] {
            assert!(
                !Application::new(api_version, kind, "ns1", name).is_valid("u"),
                "{api_version} {kind} {name}"
            );
        }
        assert!(
            Application::new("v1", "ReplicationController", "ns1", "web").is_valid("u"),
            "of the core group"
        );
    }

    #[test]
    fn names_that_do_not_fit_a_label_are_told_apart() {
        let [a, b] = ["a", "b"].map(|end| purpose(&format!("{}{end}", "x".repeat(100))));
        let labels = a.labels("s1", true);
        assert!(labels.values().all(|value| value.len() <= 63));
        assert!(a.is_of(&labels) && !b.is_of(&labels));
        assert_ne!(a.application.pod_labels(), b.application.pod_labels());
        assert!(a.application.pod_labels().values().all(|value| value.len() <= 63));
    }
}
