//! A stand-in for Calico's CNI plugin in the lab: [`spiderpool_testbox::calico`], called as a function.

mod felix;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiderpool_testbox::calico::{self, HOST_LINK_LOCAL, HOST_MAC, HOST_V4};

use crate::cni::{self, Attachment};
use crate::dual::Dual;
use crate::namespaces::Namespaces;
use crate::topology::{Node, addresses};
pub use felix::Felix;

/// Name and version of the default network's configuration, as Calico installs it.
const NETWORK: &str = "k8s-pod-network";
const VERSION: &str = "1.0.0";
fn ipam(node: &Node) -> Result<Vec<u8>> {
    let ranges: Vec<Value> =
        addresses::pod_cidrs(node.index).iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    Ok(serde_json::to_vec(&json!({
        "cniVersion": VERSION, "name": NETWORK, "type": "host-local",
        "ipam": {"type": "host-local", "dataDir": "/run/host-local", "ranges": ranges},
    }))?)
}

/// The host end's name.
pub fn host_end(attachment: &Attachment) -> String {
    let mut hasher = DefaultHasher::new();
    (&attachment.container, &attachment.interface).hash(&mut hasher);
    format!("cali{:011x}", hasher.finish() >> 20)
}

/// ADD: makes eth0 and returns its addresses and the CNI result.
pub fn add(node: &Node, pod: &Namespaces, attachment: &Attachment) -> Result<(Dual, Value)> {
    let leased = cni::execute(node, "ADD", attachment, &ipam(node)?)?;
    let addresses: Vec<IpAddr> = leased["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    let address = Dual::from_addresses(&addresses).with_context(|| format!("host-local gave {leased}"))?;
    let host_end = host_end(attachment);
    node.felix.expect(&host_end, address);
    connect(node, pod, attachment, &host_end, address)?;
    let links: Value =
        serde_json::from_str(&pod.output("ip", &["-j", "link", "show", "dev", &attachment.interface])?)?;
    let result = json!({
        "cniVersion": VERSION,
        "interfaces": [
            {"name": host_end, "mac": HOST_MAC},
            {"name": attachment.interface, "mac": links[0]["address"], "sandbox": attachment.netns},
        ],
        "ips": [
            {"address": format!("{}/32", address.v4), "interface": 1},
            {"address": format!("{}/128", address.v6), "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": HOST_V4}, {"dst": "::/0", "gw": HOST_LINK_LOCAL}],
        "dns": {},
    });
    Ok((address, result))
}

fn connect(
    node: &Node,
    pod: &Namespaces,
    attachment: &Attachment,
    host_end: &str,
    address: Dual,
) -> Result<()> {
    let (nic, mtu) = (&attachment.interface, calico::MTU);
    let netns = attachment.netns.display();
    node.ip(&format!(
        "link add {host_end} address {HOST_MAC} type veth peer name {nic} mtu {mtu} netns {netns}
        link set {host_end} mtu {mtu} up"
    ))?;
    node.sysctl(&calico::host_sysctls(host_end).each_ref().map(String::as_str))?;
    // Its link-local address is there at once: whoever compares the pod before and after sees no difference.
    pod.sysctl(&[&format!("ipv6/conf/{nic}/accept_dad=0")])?;
    let addresses = [address.v4.into(), address.v6.into()];
    pod.ip(&calico::pod_script(nic, &addresses))?;
    node.ip(&calico::host_routes(host_end, &addresses))
}

/// DEL: removes eth0 and gives its addresses back.
pub fn del(node: &Node, attachment: &Attachment) -> Result<()> {
    let host_end = host_end(attachment);
    node.ip(&format!("link del {host_end}"))?;
    node.felix.forget(&host_end);
    cni::execute(node, "DEL", attachment, &ipam(node)?)?;
    Ok(())
}
