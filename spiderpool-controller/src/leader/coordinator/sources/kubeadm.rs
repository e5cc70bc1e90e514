//! kubeadm's ClusterConfiguration, as far as it names networks.

use serde::Deserialize;

use crate::leader::coordinator::cidrs::Cidrs;
use crate::leader::coordinator::outcome::Read;

/// The namespace and name of kubeadm's ConfigMap.
pub(crate) const CONFIG_MAP: (&str, &str) = ("kube-system", "kubeadm-config");
/// Its key.
pub(crate) const KEY: &str = "ClusterConfiguration";
const OBJECT: &str = "ConfigMap kube-system/kubeadm-config";

/// The networks of a cluster that kubeadm has set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kubeadm {
    /// Pod CIDRs.
    pub(crate) pods: Cidrs,
    /// Service CIDRs.
    pub(crate) services: Cidrs,
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
pub(crate) fn parse(text: &str) -> Read<Kubeadm> {
    let configuration = match serde_norway::from_str::<Option<ClusterConfiguration>>(text) {
        Ok(configuration) => configuration,
        Err(error) => return Read::Failed(format!("{OBJECT}: {KEY} is not readable: {error}")),
    };
    let networking = configuration.and_then(|configuration| configuration.networking).unwrap_or_default();
    let mut kubeadm = Kubeadm::default();
    // One per family, with commas between them.
    let [pods, services] = [networking.pod_subnet, networking.service_subnet].map(Option::unwrap_or_default);
    kubeadm.pods.add_list(OBJECT, "networking.podSubnet", &pods);
    kubeadm.services.add_list(OBJECT, "networking.serviceSubnet", &services);
    Read::Found(kubeadm)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream reads the text by a pattern and drops a value in quotes.
    #[test]
    fn yaml_is_read_as_yaml() {
        let text = "apiServer: {}\nkind: ClusterConfiguration\nnetworking:\n  dnsDomain: cluster.local\n  podSubnet: \"10.244.0.0/16, fd44::/48\"\n  serviceSubnet: '10.96.0.0/16'\n";
        let parsed = parse(text);
        let kubeadm = parsed.found().unwrap();
        assert_eq!(kubeadm.pods.texts(), ["10.244.0.0/16", "fd44::/48"]);
        assert_eq!(kubeadm.services.texts(), ["10.96.0.0/16"]);
        let parsed = parse("networking: {podSubnet: 10.244.0.0/16}");
        assert_eq!(parsed.found().unwrap().pods.texts(), ["10.244.0.0/16"]);
    }

    #[test]
    fn absent_networks_are_empty_and_invalid_ones_named() {
        assert_eq!(parse(""), Read::Found(Kubeadm::default()));
        assert_eq!(parse("networking:\n"), Read::Found(Kubeadm::default()));
        assert!(matches!(parse("networking: [1]"), Read::Failed(error) if error.contains("kubeadm-config")));
        let parsed = parse("networking: {podSubnet: '10.244.0.0,fd44::/48'}");
        let pods = &parsed.found().unwrap().pods;
        assert_eq!(pods.texts(), ["fd44::/48"]);
        let invalid = pods.invalid[0].to_string();
        assert!(invalid.contains("networking.podSubnet") && invalid.contains("10.244.0.0"), "{invalid}");
    }
}
