//! Which network a NIC of a pod is attached to, by what Multus is told.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::annotation_key::{MULTUS_DEFAULT_NETWORK, MULTUS_NETWORKS};
use super::multus::{self, MultusError, Selection};
use crate::names::IfName;

/// The name of the first NIC, for which no annotation has another one.
const FIRST_NIC: &str = "eth0";

/// A NetworkAttachmentDefinition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkName {
    namespace: String,
    name: String,
}

impl NetworkName {
    /// `NAMESPACE/NAME`, or a name in `default_namespace`.
    pub fn new(text: &str, default_namespace: &str) -> Self {
        let (namespace, name) = text.split_once('/').unwrap_or((default_namespace, text));
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn of_selection(selection: Selection, default_namespace: &str) -> Self {
        let namespace = selection.namespace.unwrap_or_else(|| default_namespace.to_owned());
        Self { namespace, name: selection.name }
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What says to which networks the NICs of a pod are attached.
#[derive(Debug, Clone, Copy)]
pub struct PodNetworks<'a> {
    /// The pod's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Spiderpool's own, where networks without a namespace are but those of the pod's further NICs.
    pub own_namespace: &'a str,
    /// The network of the first NIC where the pod names none; empty if there is none.
    pub cluster_network: &'a str,
}

/// Why the network of a NIC is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkUnknown {
    /// Multus is not told of the first NIC.
    #[error(
        "cluster-network multus isn't set, so the network of NIC {0} is not known: name it in the Pod annotation \
         '{MULTUS_DEFAULT_NETWORK}', or set the chart's value multus.multusCNI.defaultCniCRName"
    )]
    NoClusterNetwork(IfName),
    /// Nor is it of another one.
    #[error(
        "unknown: no matched multus object for NIC '{0}': it is not among the networks of the Pod annotation \
         '{MULTUS_NETWORKS}'"
    )]
    NotListed(IfName),
    /// The annotation does not parse.
    #[error("wrong input, invalid format of Pod annotation '{key}': {cause}")]
    Annotation {
        /// The annotation.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
}

impl PodNetworks<'_> {
    /// The network that a NIC is attached to.
    pub fn of_nic(&self, nic: &IfName) -> Result<NetworkName, NetworkUnknown> {
        if nic.as_str() != FIRST_NIC {
            let mut further = self.selections(MULTUS_NETWORKS)?.into_iter();
            let selection = further.find(|selection| selection.nic == *nic);
            let selection = selection.ok_or_else(|| NetworkUnknown::NotListed(nic.clone()))?;
            return Ok(NetworkName::of_selection(selection, self.namespace));
        }
        match self.selections(MULTUS_DEFAULT_NETWORK)?.into_iter().next() {
            Some(selection) => Ok(NetworkName::of_selection(selection, self.own_namespace)),
            None if self.cluster_network.is_empty() => Err(NetworkUnknown::NoClusterNetwork(nic.clone())),
            None => Ok(NetworkName::new(self.cluster_network, self.own_namespace)),
        }
    }

    fn selections(&self, key: &'static str) -> Result<Vec<Selection>, NetworkUnknown> {
        let invalid = |error: MultusError| NetworkUnknown::Annotation { key, cause: error.to_string() };
        multus::selections(self.annotations.get(key).map_or("", String::as_str)).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(annotations: &[(&str, &str)], cluster_network: &str, nic: &str, expect: Result<&str, &str>) {
        let annotations = annotations.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
        let (namespace, own_namespace) = ("shop", "spiderpool");
        let networks = PodNetworks { annotations: &annotations, namespace, own_namespace, cluster_network };
        let found = networks.of_nic(&nic.parse().unwrap());
        let found = found.map(|network| network.to_string()).map_err(|error| error.to_string());
        match expect {
            Ok(network) => assert_eq!(found, Ok(network.to_owned())),
            Err(part) => assert!(found.as_ref().is_err_and(|error| error.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn further_nics_are_named_or_numbered_and_their_networks_are_in_the_pods_namespace() {
        let short = (MULTUS_NETWORKS, "a, x/b@data0 ,c");
        let long = (MULTUS_NETWORKS, r#"[{"name":"a"},{"name":"b","namespace":"x","interface":"data0"}]"#);
        for networks in [short, long] {
            check(&[networks], "", "net1", Ok("shop/a"));
            check(&[networks], "", "data0", Ok("x/b"));
            check(&[networks], "", "net2", Err("no matched multus object for NIC 'net2'"));
        }
        check(&[short], "", "net3", Ok("shop/c"));
        check(&[(MULTUS_NETWORKS, "[{")], "", "net1", Err("annotation 'k8s.v1.cni.cncf.io/networks': EOF"));
    }

    /// Upstream asks for it of every pool, and pods get no address where nothing says it.
    #[test]
    fn the_first_nic_is_on_the_pods_own_default_network_or_the_clusters() {
        let default = (MULTUS_DEFAULT_NETWORK, "x/macvlan");
        check(&[default], "spiderpool/calico", "eth0", Ok("x/macvlan"));
        check(&[(MULTUS_DEFAULT_NETWORK, "macvlan")], "", "eth0", Ok("spiderpool/macvlan"));
        check(&[], "spiderpool/calico", "eth0", Ok("spiderpool/calico"));
        check(
            &[],
            "",
            "eth0",
            Err("cluster-network multus isn't set, so the network of NIC eth0 is not known"),
        );
        check(&[default], "", "net1", Err("no matched multus object"));
        let own = (MULTUS_NETWORKS, r#"[{"name":"a","interface":"eth0"}]"#);
        check(&[own, default], "", "eth0", Ok("x/macvlan"));
    }
}
