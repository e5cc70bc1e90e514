//! kubeadm's ClusterConfiguration, as far as it names networks.

use ipnet::IpNet;
use serde::Deserialize;
use thiserror::Error;

/// The networks of a cluster that kubeadm has set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kubeadm {
    /// Pod CIDRs.
    pub(super) pods: Vec<IpNet>,
    /// Service CIDRs.
    pub(super) services: Vec<IpNet>,
}

/// Why the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum KubeadmError {
    /// It is not the YAML of a ClusterConfiguration.
    #[error("ClusterConfiguration is not readable: {0}")]
    Yaml(String),
    /// A network is not in CIDR form.
    #[error("networking.{field} holds {found:?}, which is not a CIDR")]
    Cidr {
        /// podSubnet or serviceSubnet.
        field: &'static str,
        /// As written.
        found: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClusterConfiguration {
    networking: Option<Networking>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Networking {
    pod_subnet: Option<String>,
    service_subnet: Option<String>,
}

/// Reads the text of `data.ClusterConfiguration`.
pub(super) fn parse(text: &str) -> Result<Kubeadm, KubeadmError> {
    let configuration: Option<ClusterConfiguration> =
        serde_norway::from_str(text).map_err(|error| KubeadmError::Yaml(error.to_string()))?;
    let networking = configuration.and_then(|configuration| configuration.networking).unwrap_or_default();
    Ok(Kubeadm {
        pods: cidrs("podSubnet", networking.pod_subnet.as_deref())?,
        services: cidrs("serviceSubnet", networking.service_subnet.as_deref())?,
    })
}

/// One per family, with commas between them.
fn cidrs(field: &'static str, text: Option<&str>) -> Result<Vec<IpNet>, KubeadmError> {
    let parts = text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| KubeadmError::Cidr { field, found: part.to_owned() })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Upstream reads the text by a pattern and drops a value in quotes.
    #[test]
    fn yaml_is_read_as_yaml() {
        let text = "apiServer: {}\nkind: ClusterConfiguration\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: \"10.244.0.0/16, fd44::/48\"\n  serviceSubnet: '10.96.0.0/16'\n";
        let kubeadm = parse(text).unwrap();
        assert_eq!(kubeadm.pods, nets(&["10.244.0.0/16", "fd44::/48"]));
        assert_eq!(kubeadm.services, nets(&["10.96.0.0/16"]));
        assert_eq!(parse("networking: {podSubnet: 10.244.0.0/16}").unwrap().pods, nets(&["10.244.0.0/16"]));
    }

    #[test]
    fn absent_networks_are_empty_and_invalid_ones_are_errors() {
        assert_eq!(parse(""), Ok(Kubeadm::default()));
        assert_eq!(parse("networking:\n"), Ok(Kubeadm::default()));
        assert!(matches!(parse("networking: [1]"), Err(KubeadmError::Yaml(_))));
        let error = parse("networking: {podSubnet: 10.244.0.0}").unwrap_err().to_string();
        assert!(error.contains("networking.podSubnet") && error.contains("10.244.0.0"), "{error}");
    }
}
