//! Which pod: its namespace and its name, which belong together.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{NameError, PodUid, check_subdomain};

/// A pod's namespace and name. It says which pod is meant at one moment only: another pod may get the name later,
/// which [`super::PodUid`] tells apart.
///
/// On the wire it is two fields, `podNamespace` and `podName`; use it with `#[serde(flatten)]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct PodName {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl PodName {
    /// A namespace is a DNS-1123 label, a pod's name a DNS-1123 subdomain. Texts that are shared already stay so.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Result<Self, NameError> {
        let (namespace, name) = (namespace.into(), name.into());
        check_label(&namespace).map_err(|reason| NameError::new("pod namespace", &namespace, reason))?;
        check_subdomain(&name).map_err(|reason| NameError::new("pod name", &name, reason))?;
        Ok(Self { namespace, name })
    }

    /// Another name in the same namespace.
    pub fn sibling(&self, name: impl Into<Arc<str>>) -> Result<Self, NameError> {
        Self::new(Arc::clone(&self.namespace), name)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name in the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One pod for its whole life: another one of its name has another UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodIdentity {
    /// Its namespace and name.
    pub name: PodName,
    /// Its UID as the container runtime knows it: of a static pod the hash of its manifest.
    pub uid: PodUid,
}

/// Its namespace and name; logs give the UID in a field of its own.
impl fmt::Display for PodIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    pod_namespace: String,
    pod_name: String,
}

impl TryFrom<Fields> for PodName {
    type Error = NameError;

    fn try_from(fields: Fields) -> Result<Self, NameError> {
        Self::new(fields.pod_namespace, fields.pod_name)
    }
}

impl From<PodName> for Fields {
    fn from(pod: PodName) -> Self {
        Self { pod_namespace: pod.namespace.as_ref().to_owned(), pod_name: pod.name.as_ref().to_owned() }
    }
}

/// DNS-1123 label: a subdomain of one part, at most 63 characters.
fn check_label(text: &str) -> Result<(), &'static str> {
    if text.len() <= 63 && !text.contains('.') && check_subdomain(text).is_ok() {
        Ok(())
    } else {
        Err(
            "it must be a DNS-1123 label: lower case letters, digits and '-', starting and ending with a letter \
             or digit, 63 characters at most",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_two_fields_on_the_wire() {
        let pod = PodName::new("default", "web-0.a").unwrap();
        let json = serde_json::to_string(&pod).unwrap();
        assert_eq!(json, r#"{"podNamespace":"default","podName":"web-0.a"}"#);
        assert_eq!(serde_json::from_str::<PodName>(&json).unwrap(), pod);
        assert_eq!(pod.to_string(), "default/web-0.a");
    }

    #[test]
    fn neither_part_may_be_empty_or_a_path() {
        for (namespace, name) in [("", "a"), ("a", ""), ("a.b", "c"), ("a", "b/c"), ("..", "a"), ("A", "a")] {
            assert!(PodName::new(namespace, name).is_err(), "{namespace}/{name}");
        }
    }
}
