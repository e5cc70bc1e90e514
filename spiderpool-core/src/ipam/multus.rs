//! The annotations by which Multus is told of a pod's networks: `k8s.v1.cni.cncf.io/networks`, and in the same grammar
//! `v1.multus-cni.io/default-network`.

use serde::Deserialize;
use thiserror::Error;

use crate::go_json::from_go_json;
use crate::names::{IfName, NameError};

/// Why the annotation does not name NICs.
#[derive(Debug, Error)]
pub enum MultusError {
    /// It looks like JSON and is none.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A network's name is not one.
    #[error("network {0:?} is invalid: write [NAMESPACE/]NAME[@INTERFACE], comma separated")]
    Network(String),
    /// A NIC's name is not one.
    #[error(transparent)]
    Interface(#[from] NameError),
}

/// A NIC that Multus makes, and its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The NIC: as named, or `net1`, `net2` by position.
    pub nic: IfName,
    /// The namespace of the network, if the annotation says it.
    pub namespace: Option<String>,
    /// The name of the network.
    pub name: String,
}

/// A network selection element, as far as it says that.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Element {
    name: String,
    namespace: String,
    interface: String,
}

/// The NICs that Multus makes beside the first.
pub fn interfaces(text: &str) -> Result<Vec<IfName>, MultusError> {
    Ok(selections(text)?.into_iter().map(|selection| selection.nic).collect())
}

/// The networks that the annotation selects, in order.
pub fn selections(text: &str) -> Result<Vec<Selection>, MultusError> {
    let text = text.trim();
    let elements = if text.contains(['[', '{', '"']) {
        from_go_json::<Option<Vec<Element>>>(text)?.unwrap_or_default()
    } else {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(short_form)
            .collect::<Result<_, _>>()?
    };
    elements
        .into_iter()
        .enumerate()
        .map(|(index, Element { name, namespace, interface })| {
            if !is_object_name(&name) {
                return Err(MultusError::Network(name));
            }
            let nic = match interface.as_str() {
                "" => format!("net{}", index + 1).parse()?,
                name => name.parse()?,
            };
            Ok(Selection { nic, namespace: Some(namespace).filter(|namespace| !namespace.is_empty()), name })
        })
        .collect()
}

/// `[NAMESPACE/]NAME[@INTERFACE]`.
fn short_form(part: &str) -> Result<Element, MultusError> {
    let (path, interface) = part.split_once('@').unwrap_or((part, ""));
    let (namespace, name) =
        path.split_once('/').map_or((None, path), |(namespace, name)| (Some(namespace), name));
    let is_named = namespace.is_none_or(is_label) && is_object_name(name);
    if !is_named || (part.contains('@') && interface.is_empty()) {
        return Err(MultusError::Network(part.to_owned()));
    }
    let namespace = namespace.unwrap_or_default();
    Ok(Element { name: name.to_owned(), namespace: namespace.to_owned(), interface: interface.to_owned() })
}

/// A NetworkAttachmentDefinition's name is a DNS subdomain: labels with dots between them. Multus itself refuses dots
/// in the short form, so they do no harm there.
fn is_object_name(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, the grammar that Multus documents.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<&[&str], &str>) {
        let got = interfaces(text)
            .map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|e| e.to_string());
        match expect {
            Ok(names) => assert_eq!(got, Ok(names.iter().map(ToString::to_string).collect()), "{text}"),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{text}: {got:?}"),
        }
    }

    #[test]
    fn both_forms() {
        check("macvlan-ens192", Ok(&["net1"]));
        check("a, kube-system/b@data0 ,c", Ok(&["net1", "data0", "net3"]));
        check("", Ok(&[]));
        check(r#"[{"name":"a"},{"Name":"b","namespace":"x","interface":"data0"}]"#, Ok(&["net1", "data0"]));
        check(r#"[{"name":"a.b-c.d","namespace":"x"}]"#, Ok(&["net1"]));
        check("x/underlay.v2@data0", Ok(&["data0"]));
        check("a..b", Err("invalid"));
        check("a.", Err("invalid"));
        check("x.y/a", Err("invalid"));
        check("Upper", Err("invalid"));
        check("a/b/c", Err("invalid"));
        check("a@", Err("invalid"));
        check("a@abcdefghijklmnop", Err("15 characters"));
        check("[{", Err("EOF"));
        check("[{}]", Err("invalid"));
    }
}
