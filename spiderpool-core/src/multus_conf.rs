//! Multus' configuration on a node: which file the container runtime takes, what it says, and when it cannot be written.

mod default_network;

use serde_json::{Map, Value, json};
use thiserror::Error;

use default_network::DefaultNetwork;

/// The file that the container runtime takes first, as Multus' own installers call it.
pub const FILE: &str = "00-multus.conf";
/// What Cilium renames the configurations of others to if `cni.exclusive` is set, as it is unless its chart says otherwise.
pub const RENAMED_BY_CILIUM: &str = "00-multus.conf.cilium_bak";
/// Extensions of files that container runtimes read.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];
/// By this key Multus' configuration is known for ours. Multus ignores it.
const MARK: (&str, &str) = ("managedBy", "spiderpool");

/// A file of the node's directory for CNI configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfFile {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub content: String,
}

/// What the configuration says beside the default network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The namespace of `cluster_network`.
    pub namespace: String,
    /// The NetworkAttachmentDefinition of every pod's first NIC; that of the default CNI if absent.
    pub cluster_network: Option<String>,
    /// The directory for CNI configuration, as the node names it.
    pub conf_dir: String,
    /// Multus' kubeconfig, as the node names it.
    pub kubeconfig: String,
    /// How much Multus logs.
    pub log_level: String,
    /// Where it logs, as the node names it.
    pub log_file: String,
}

/// What [`FILE`] must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultusConf {
    /// Its content.
    pub content: String,
    /// The file with the default network, unless a NetworkAttachmentDefinition is it.
    pub default_file: Option<String>,
    /// A file that the container runtime takes instead, because its name comes first.
    pub preceded_by: Option<String>,
}

/// Why [`FILE`] cannot be written. What is there stays.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// There is no configuration of a default CNI.
    #[error(
        "no configuration of a default CNI in {conf_dir}: install one (Calico, Cilium, ...), or set global.cniConfHostPath to \
         the directory that the container runtime reads{}",
        renamed_hint(renamed)
    )]
    NoDefaultNetwork {
        /// Where it was looked for.
        conf_dir: String,
        /// Configurations that Cilium has renamed.
        renamed: Vec<String>,
    },
    /// The container runtime's first choice is no CNI configuration, or not yet.
    #[error(
        "{file}, the first choice of the container runtime, is no CNI configuration: {why}. Repair or remove it: pods that \
         start meanwhile may get no further NICs"
    )]
    Unreadable {
        /// Its name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else has installed Multus.
    #[error(
        "another Multus is on this node: {file} is not Spiderpool's. Remove that Multus and the file, or set \
         multus.multusCNI.install=false to go on with it"
    )]
    OtherMultus {
        /// Its configuration.
        file: String,
    },
}

fn renamed_hint(renamed: &[String]) -> String {
    match renamed {
        [] => String::new(),
        names => format!(". Cilium has renamed {}: set cni.exclusive=false in its chart", names.join(", ")),
    }
}

/// Decides from the files of the directory what [`FILE`] must be. `predecessor` is the kubeconfig that upstream's chart has
/// left behind, if it is of this release: by it that chart's [`FILE`] is known, which is replaced.
pub fn plan_multus_conf(
    files: &[ConfFile],
    settings: &Settings,
    predecessor: Option<&str>,
) -> Result<MultusConf, Obstacle> {
    let mut read: Vec<&ConfFile> = files.iter().filter(|file| is_read(&file.name)).collect();
    read.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(other) = read.iter().find(|file| is_other_multus(file, predecessor)) {
        return Err(Obstacle::OtherMultus { file: other.name.clone() });
    }
    let preceded_by = read.first().filter(|first| *first.name < *FILE).map(|first| first.name.clone());
    if let Some(network) = &settings.cluster_network {
        return Ok(MultusConf { content: named(network, settings), default_file: None, preceded_by });
    }
    let default = read.iter().find(|file| !file.name.to_lowercase().contains("multus"));
    let default = default.ok_or_else(|| Obstacle::NoDefaultNetwork {
        conf_dir: settings.conf_dir.clone(),
        renamed: files
            .iter()
            .filter(|file| file.name.ends_with(".cilium_bak"))
            .map(|file| file.name.clone())
            .collect(),
    })?;
    let network = DefaultNetwork::parse(&default.content)
        .map_err(|why| Obstacle::Unreadable { file: default.name.clone(), why })?;
    Ok(MultusConf {
        content: delegating(network, settings),
        default_file: Some(default.name.clone()),
        preceded_by,
    })
}

/// Whether a file is Multus' configuration as this module writes it.
pub fn is_ours(content: &str) -> bool {
    serde_json::from_str::<Value>(content).is_ok_and(|conf| conf[MARK.0] == MARK.1)
}

/// Whether the container runtime reads a configuration of Multus, whosever it is.
pub fn has_multus(files: &[ConfFile]) -> bool {
    let parse = |file: &ConfFile| serde_json::from_str::<Value>(&file.content);
    files.iter().filter(|file| is_read(&file.name)).any(|file| parse(file).is_ok_and(|conf| is_multus(&conf)))
}

fn is_multus(conf: &Value) -> bool {
    let is_multus = |kind: &Value| *kind == "multus" || *kind == "multus-shim";
    is_multus(&conf["type"]) || is_multus(&conf["plugins"][0]["type"])
}

/// Whether a file of this name counts for the plan. Others, such as kubeconfigs, need not be read.
pub fn is_relevant(name: &str) -> bool {
    is_read(name) || name.ends_with(".cilium_bak")
}

/// Whether the container runtime would read it.
fn is_read(name: &str) -> bool {
    !name.starts_with('.')
        && name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

/// The namespace says nothing: somebody's own Multus is often in kube-system, and so is this release.
fn is_other_multus(file: &ConfFile, predecessor: Option<&str>) -> bool {
    let Ok(conf) = serde_json::from_str::<Value>(&file.content) else { return false };
    if !is_multus(&conf) || conf[MARK.0] == MARK.1 {
        return false;
    }
    let is_predecessors = file.name == FILE
        && conf["type"] == "multus"
        && predecessor.is_some_and(|kubeconfig| conf["kubeconfig"] == kubeconfig);
    !is_predecessors
}

/// The default network is a NetworkAttachmentDefinition.
fn named(network: &str, settings: &Settings) -> String {
    let more = json!({
        "capabilities": {"bandwidth": true, "portMappings": true},
        "clusterNetwork": network,
        "defaultNetworks": [],
    });
    conf("0.3.1", more, settings)
}

/// The default network is written into the file: of one that it looks up by name, Multus forgets before DEL what it does not
/// know itself, such as ranges of host-local, and it asks the API server for it at every ADD.
fn delegating(network: DefaultNetwork, settings: &Settings) -> String {
    let mut capabilities = network.capabilities;
    capabilities.extend(["bandwidth", "portMappings"].map(str::to_owned));
    let capabilities: Map<String, Value> = capabilities.into_iter().map(|name| (name, json!(true))).collect();
    conf(network.version, json!({"capabilities": capabilities, "delegates": [network.conf]}), settings)
}

fn conf(version: &str, more: Value, settings: &Settings) -> String {
    let mut conf = json!({
        "cniVersion": version,
        "name": "multus-cni-network",
        "type": "multus",
        MARK.0: MARK.1,
        "confDir": settings.conf_dir,
        "kubeconfig": settings.kubeconfig,
        "logFile": settings.log_file,
        "logLevel": settings.log_level,
        "logOptions": {"maxAge": 5, "maxSize": 100, "maxBackups": 5, "compress": true},
        "multusNamespace": settings.namespace,
        "namespaceIsolation": false,
        "systemNamespaces": [],
    });
    if let (Some(conf), Value::Object(more)) = (conf.as_object_mut(), more) {
        conf.extend(more);
    }
    format!("{conf:#}\n")
}

#[cfg(test)]
mod tests;
