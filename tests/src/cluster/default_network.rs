//! The default network of a node: CNI configuration, plugin, and what the network's daemon does on the node.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use spiderpool_testbox::{calico, cilium, plugin};

use super::programs::testbox;
use super::{DefaultCni, Machine};
use crate::topology::addresses;

/// The configuration's file.
const FILE: &str = "/etc/cni/net.d/10-default.conflist";
const VERSION: &str = "1.0.0";

/// Sets up what the network's daemon would: rules and its own NICs. Runs Felix where there is one.
pub(super) fn start(machine: &Machine, cni: DefaultCni, index: u8) -> Result<()> {
    let namespaces = machine.namespaces();
    match cni {
        DefaultCni::CalicoLike => {
            namespaces.nft(&calico::rules(addresses::OVERLAY))?;
            let felix = [testbox()?.display().to_string(), "felix".to_owned()];
            machine.start("felix", felix.to_vec())
        }
        DefaultCni::CiliumLike => {
            let router = addresses::node_router(index);
            namespaces.ip(&cilium::router_script([router.v4.into(), router.v6.into()]))?;
            namespaces.nft(&cilium::rules(addresses::OVERLAY))
        }
        DefaultCni::Ptp => Ok(()),
    }
}

/// Writes the configuration and the plugins' files. To be run on the node.
pub(super) fn install(
    configuration: &Value,
    index: u8,
    reference_plugins: &Path,
    testbox: &Path,
) -> Result<()> {
    let folder = Path::new("/opt/cni/bin");
    for plugin in fs::read_dir(reference_plugins)?.flatten() {
        fs::copy(plugin.path(), folder.join(plugin.file_name()))?;
    }
    for name in ["calico-like", "calico", "cilium-like"] {
        fs::copy(testbox, folder.join(name))?;
    }
    fs::write(plugin::POD_CIDRS, addresses::pod_cidrs(index).join("\n"))?;
    Ok(fs::write(FILE, serde_json::to_vec_pretty(configuration)?)?)
}

/// The configuration of a node's default network.
pub(super) fn configuration(cni: DefaultCni, index: u8) -> Value {
    let ranges: Vec<Value> =
        addresses::pod_cidrs(index).iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let mut ipam = json!({"type": "host-local", "dataDir": "/var/lib/cni/networks", "ranges": ranges});
    // Names as the real ones install them: others recognise the network by it.
    let (name, mut plugin) = match cni {
        DefaultCni::CalicoLike => ("k8s-pod-network", json!({"type": "calico-like"})),
        DefaultCni::CiliumLike => ("cilium", json!({"type": "cilium-like"})),
        DefaultCni::Ptp => {
            ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
            ("default", json!({"type": "ptp", "ipMasq": true, "mtu": calico::MTU}))
        }
    };
    plugin["ipam"] = ipam;
    let port_mapping = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": VERSION, "name": name, "plugins": [plugin, port_mapping]})
}
