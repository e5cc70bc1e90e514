//! The application that a pool is made for: its identity in a subnet's status, in the pool's labels, and the pool's name.

use std::fmt;
use std::str::FromStr;

use crate::ip::Family;
use crate::ipam::pick::fnv1a;
use crate::names::{IfName, PoolName};

/// A name of a Kubernetes object has at most so many characters.
const MAX_NAME: usize = 253;
/// So many characters of the workload's UID end the pool's name.
const UID_PART: usize = 5;

/// A workload: `group_version_Kind_namespace_name` in texts, without the group for the core group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Application {
    /// `apps`; empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Application {
    /// By `apiVersion`, `apps/v1` or `v1`.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let [group, version, kind, namespace, name] =
            [group, version, kind, namespace, name].map(str::to_owned);
        Self { group, version, kind, namespace, name }
    }

    /// Whether it is of a kind that is watched: who has no such object knows that there is none.
    pub fn is_watched(&self) -> bool {
        let api = (self.group.as_str(), self.version.as_str(), self.kind.as_str());
        matches!(
            api,
            ("apps", "v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
                | ("batch", "v1", "Job" | "CronJob")
        )
    }

    /// The value of the label `owner-application-gv`.
    pub fn group_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}_{}", self.group, self.version) }
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        write!(f, "{}_{kind}_{namespace}_{name}", self.group_version())
    }
}

/// A text that is no application's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoApplication;

impl FromStr for Application {
    type Err = NoApplication;

    fn from_str(text: &str) -> Result<Self, NoApplication> {
        let parts: Vec<&str> = text.split('_').collect();
        let (group, rest) = match parts.as_slice() {
            [group, rest @ ..] if rest.len() == 4 => (*group, rest),
            rest if rest.len() == 4 => ("", rest),
            _ => return Err(NoApplication),
        };
        let [version, kind, namespace, name] = rest else { return Err(NoApplication) };
        if [version, kind, namespace, name].iter().any(|part| part.is_empty()) {
            return Err(NoApplication);
        }
        let [group, version, kind, namespace, name] =
            [group, version, kind, namespace, name].map(str::to_owned);
        Ok(Self { group, version, kind, namespace, name })
    }
}

/// What a pool of an application is for: there is one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPurpose {
    /// The application.
    pub application: Application,
    /// Its UID.
    pub uid: String,
    /// The NIC of its pods.
    pub nic: IfName,
    /// The family.
    pub family: Family,
}

impl PoolPurpose {
    /// The name of the pool: `auto4-NAME-NIC-UID`, where of the UID the beginning of its last part is taken, and of the name what
    /// fits.
    pub fn pool_name(&self) -> String {
        self.named("")
    }

    /// The name where the other one is taken: by another application's pool, or because the application draws from another
    /// subnet than before, and pods still use the pool of that one.
    pub fn pool_name_of(&self, subnet: &PoolName) -> String {
        let Self { application, uid, nic, family } = self;
        let all = format!("{subnet} {application} {uid} {nic} {family}");
        self.named(&format!("-{:08x}", fnv1a(all.bytes()) & 0xffff_ffff))
    }

    fn named(&self, end: &str) -> String {
        let Self { application, uid, nic, family } = self;
        let last = uid.rsplit('-').next().unwrap_or_default();
        let last = last.get(..UID_PART).unwrap_or(last);
        // Names of devices may have other characters than names of objects.
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let nic = nic.to_string().replace(|c| !is_of_name(c), "-");
        let (head, tail) = (format!("auto{}-", family.version()), format!("-{nic}-{last}{end}"));
        let room = MAX_NAME.saturating_sub(head.len() + tail.len());
        let name = application.name.get(..room.min(application.name.len())).unwrap_or_default();
        // A part must end with a letter or digit.
        let name = name.trim_end_matches(['.', '-']);
        format!("{head}{name}{tail}").to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Application {
        Application::new("apps/v1", "Deployment", "ns1", "web")
    }

    #[test]
    fn an_identity_survives_its_text() {
        let core = Application::new("v1", "ReplicationController", "ns1", "web");
        let foreign = Application::new("apps.kruise.io/v1alpha1", "CloneSet", "ns1", "web.x-y");
        for (application, text) in [
            (web(), "apps_v1_Deployment_ns1_web"),
            (core, "v1_ReplicationController_ns1_web"),
            (foreign, "apps.kruise.io_v1alpha1_CloneSet_ns1_web.x-y"),
        ] {
            assert_eq!(application.to_string(), text);
            assert_eq!(text.parse(), Ok(application));
        }
        for text in ["", "a_b_c", "a_b_c_d_e_f", "apps_v1__ns1_web", "v1_Kind_ns_"] {
            assert_eq!(text.parse::<Application>(), Err(NoApplication), "{text}");
        }
    }

    fn name(application: Application, nic: &str, family: Family) -> String {
        let uid = "0b6f5a1e-8a4c-4a1d-9d62-1a2b3c4d5e6f".to_owned();
        PoolPurpose { application, uid, nic: nic.parse().unwrap(), family }.pool_name()
    }

    /// Upstream's case I00017.
    #[test]
    fn a_pool_is_named_after_its_application_as_far_as_that_fits() {
        assert_eq!(name(web(), "eth0", Family::V4), "auto4-web-eth0-1a2b3");
        assert_eq!(name(web(), "Net1", Family::V6), "auto6-web-net1-1a2b3");
        assert_eq!(name(web(), "net_1", Family::V4), "auto4-web-net-1-1a2b3");
        for long in ["a".repeat(253), format!("{}.b", "a".repeat(230)), "ab-".repeat(84)] {
            let name = name(Application { name: long, ..web() }, "eth0", Family::V4);
            assert!(name.len() <= 253 && name.ends_with("-eth0-1a2b3"), "{name}");
            assert!(name.parse::<PoolName>().is_ok(), "{name}");
        }
    }
}
