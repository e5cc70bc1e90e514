//! Names that are parsed once, at the edge, and carry their meaning as a type from then on.
//!
//! Each is one shared text: a clone costs a reference count.

mod pod;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error_list::quoted;

pub use pod::{PodIdentity, PodName};

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {text:?} is invalid: {reason}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    reason: &'static str,
}

impl NameError {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        Self { kind, text: quoted(text), reason }
    }
}

/// DNS-1123 subdomain, as Kubernetes asks of most object names: at most 253 characters of `[a-z0-9.-]`,
/// each label starting and ending with a letter or digit.
fn check_subdomain(text: &str) -> Result<(), &'static str> {
    const RULE: &str = "it must be a DNS-1123 subdomain: lower case letters, digits, '-' and '.', \
                        each part starting and ending with a letter or digit, 253 characters at most";
    let label_ok = |label: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let bytes = label.as_bytes();
        bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last())
    };
    if text.len() <= 253 && text.split('.').all(label_ok) { Ok(()) } else { Err(RULE) }
}

/// Whether a text is a DNS-1123 subdomain.
pub fn is_subdomain(text: &str) -> bool {
    check_subdomain(text).is_ok()
}

/// UIDs are opaque to us; they end up in labels, so they must fit one.
fn check_uid(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 63 {
        return Err("it must have 1 to 63 characters");
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        Ok(())
    } else {
        Err("it may hold letters, digits, '-', '_' and '.' only")
    }
}

/// CNI specification 1.1.0, section 2, `CNI_CONTAINERID`.
fn check_container_id(text: &str) -> Result<(), &'static str> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.bytes().all(inner) {
        Ok(())
    } else {
        Err("it must start with a letter or digit and may hold letters, digits, '_', '.' and '-' only")
    }
}

/// `IFNAMSIZ` is 16 with the terminating zero; see `dev_valid_name()` in net/core/dev.c.
fn check_if_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 15 {
        return Err("a network interface name has 1 to 15 characters");
    }
    // The kernel takes '%d' for a number that it chooses (`__dev_alloc_name()` there), and ends a name at a zero.
    let is_bad = |c: char| "/:%".contains(c) || c.is_whitespace() || c.is_control();
    if text == "." || text == ".." || text.contains(is_bad) {
        return Err(
            "a network interface name holds no '/', ':', '%' or white space and is neither '.' nor '..'",
        );
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(Arc::from(text))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::try_from(Arc::from(text))
            }
        }

        impl TryFrom<Arc<str>> for $type {
            type Error = NameError;

            /// Keeps the text that it is given, which may be shared already.
            fn try_from(text: Arc<str>) -> Result<Self, NameError> {
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(NameError::new($kind, &text, reason)),
                }
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        /// The same text, shared.
        impl From<$type> for Arc<str> {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Maps with names as keys are asked by texts.
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a SpiderIPPool.
    PoolName, "IPPool name", check_subdomain
);
name!(
    /// The name of a Kubernetes node.
    NodeName, "node name", check_subdomain
);
name!(
    /// The UID of a pod.
    PodUid, "pod UID", check_uid
);
name!(
    /// The ID of a pod's sandbox, as the container runtime gives it to CNI plugins.
    ContainerId, "container ID", check_container_id
);
name!(
    /// The name of a network interface.
    IfName, "interface name", check_if_name
);

impl IfName {
    /// The NIC that container runtimes ask for, unless they are told otherwise.
    pub fn eth0() -> Self {
        Self("eth0".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr>(text: &str, valid: bool) {
        assert_eq!(text.parse::<T>().is_ok(), valid, "{text:?}");
    }

    #[test]
    fn pool_names_are_dns_subdomains() {
        check::<PoolName>("default-v4-ippool", true);
        check::<PoolName>("cn-hangzhou.172.16.2.5", true);
        check::<PoolName>("", false);
        check::<PoolName>("Upper", false);
        check::<PoolName>("a..b", false);
        check::<PoolName>("-a", false);
        check::<PoolName>("a-", false);
        check::<PoolName>(&"a".repeat(253), true);
        check::<PoolName>(&"a".repeat(254), false);
    }

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        check::<IfName>("net1", true);
        check::<IfName>(IfName::eth0().as_str(), true);
        check::<IfName>("ens192.100", true);
        check::<IfName>("abcdefghijklmnop", false);
        check::<IfName>("a/b", false);
        check::<IfName>("a:1", false);
        check::<IfName>("..", false);
        check::<IfName>("", false);
    }

    #[test]
    fn container_ids_are_what_the_cni_specification_takes() {
        check::<ContainerId>("c0ffee", true);
        check::<ContainerId>("a_b.c-D", true);
        check::<ContainerId>("", false);
        check::<ContainerId>("-a", false);
        check::<ContainerId>("../a", false);
    }

    #[test]
    fn errors_name_the_kind_and_the_text() {
        let error = "a b".parse::<IfName>().unwrap_err().to_string();
        assert!(error.starts_with("interface name \"a b\" is invalid"), "{error}");
    }
}
