//! The CNI configuration of a node: which plugin makes pods' first NIC there.

use serde::Deserialize;

/// Multus' own configuration begins with this and only calls the others.
const MULTUS: &str = "00-multus";
/// Plugins that give pods addresses of a cloud's network, for which the cluster has no CIDR.
const CLOUDS: [&str; 6] = ["aws-cni", "azure-vnet", "cilium-azure", "terway", "tke-eni", "vpc-cni"];
/// Takes addresses out of the node's pod CIDRs.
const HOST_LOCAL: &str = "host-local";

/// Which network a configuration is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Calico,
    Cilium,
    /// Pods have addresses of a cloud's network.
    Cloud,
    /// Something else, with the cluster's pod CIDRs as far as is known.
    Other,
}

/// What is read of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniConfig {
    pub(crate) network: Network,
    /// Whether addresses come from the node's pod CIDRs.
    pub(crate) is_host_local: bool,
    /// The file and what it names, for messages.
    pub(crate) description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    name: String,
    r#type: String,
    ipam: Ipam,
    plugins: Vec<Plugin>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plugin {
    r#type: String,
    ipam: Ipam,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ipam {
    r#type: String,
}

/// The file that a container runtime would take if Multus were not there.
pub(crate) fn choose(mut files: Vec<String>) -> Option<String> {
    files.retain(|file| {
        let has_ending = [".conf", ".conflist", ".json"].iter().any(|ending| file.ends_with(ending));
        has_ending && !file.contains(MULTUS)
    });
    files.into_iter().min()
}

/// Reads a configuration. One that cannot be read, because it is root's alone or no JSON, is known by its file's name.
pub(crate) fn parse(file: &str, content: Option<&str>) -> CniConfig {
    let list = content.and_then(|content| serde_json::from_str::<List>(content).ok());
    let Some(List { name, r#type, ipam, plugins }) = list else {
        let network = by_words(file);
        return CniConfig { network, is_host_local: false, description: format!("file {file}") };
    };
    let Plugin { r#type, ipam } = plugins.into_iter().next().unwrap_or(Plugin { r#type, ipam });
    let network = match (r#type.as_str(), name.as_str()) {
        ("calico", _) | (_, "calico" | "k8s-pod-network") => Network::Calico,
        ("cilium-cni", _) | (_, "cilium") => Network::Cilium,
        (plugin, _) if CLOUDS.contains(&plugin) => Network::Cloud,
        _ => Network::Other,
    };
    let description = format!("network {name} of plugin {type} in file {file}");
    CniConfig { network, is_host_local: ipam.r#type == HOST_LOCAL, description }
}

fn by_words(file: &str) -> Network {
    if file.contains("calico") {
        Network::Calico
    } else if file.contains("cilium") {
        Network::Cilium
    } else if CLOUDS.iter().any(|cloud| file.contains(cloud)) {
        Network::Cloud
    } else {
        Network::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multus_and_what_is_no_configuration_are_passed_over() {
        let files = [
            "99-loopback.conf",
            "10-calico.conflist",
            "00-multus.conf",
            "05-cilium.conflist.cilium_bak",
            "calico-kubeconfig",
        ];
        assert_eq!(choose(files.map(str::to_owned).to_vec()).as_deref(), Some("10-calico.conflist"));
        assert_eq!(choose(vec!["00-multus.conf".to_owned(), "whereabouts.d".to_owned()]), None);
    }

    #[test]
    fn networks_are_known_by_their_plugins_and_names() {
        let calico = r#"{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [
            {"type": "calico", "ipam": {"type": "calico-ipam"}}, {"type": "bandwidth"}]}"#;
        let canal = calico.replace("calico-ipam", "host-local");
        let on_calico = calico.replace(r#"{"type": "bandwidth"}"#, r#"{"type": "cilium-cni"}"#);
        let cilium = r#"{"name": "cilium", "cniVersion": "0.3.1", "plugins": [{"type": "cilium-cni"}]}"#;
        for (content, network, is_host_local) in [
            (calico, Network::Calico, false),
            (canal.as_str(), Network::Calico, true),
            (on_calico.as_str(), Network::Calico, false),
            (cilium, Network::Cilium, false),
            (r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#, Network::Other, false),
            (r#"{"name": "aws-cni", "plugins": [{"type": "aws-cni"}]}"#, Network::Cloud, false),
            (r#"{"name": "c", "type": "bridge", "ipam": {"type": "host-local"}}"#, Network::Other, true),
        ] {
            let config = parse("10-a.conflist", Some(content));
            assert_eq!((config.network, config.is_host_local), (network, is_host_local), "{content}");
        }
    }

    /// Cilium writes its file for root alone, and the controller is not root.
    #[test]
    fn a_file_that_cannot_be_read_is_known_by_its_name() {
        assert_eq!(parse("05-cilium.conflist", None).network, Network::Cilium);
        assert_eq!(parse("10-calico.conflist", Some("{")).network, Network::Calico);
        assert_eq!(parse("10-aws-cni.conflist", None).network, Network::Cloud);
        assert_eq!(parse("10-flannel.conflist", None).network, Network::Other);
    }
}
