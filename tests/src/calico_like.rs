//! A stand-in for Calico's CNI plugin: eth0 with a /32 and a /128 behind a strict host end, addresses by host-local.
//!
//! What the dataplane has to cope with: the pod's next hop is 169.254.1.1, answered by proxy ARP of the host end
//! `cali*`; the host end drops what does not come from the endpoint's own address (rp_filter 1) and bears no route
//! but the endpoint's own.

mod felix;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cni::{self, Attachment};
use crate::dual::Dual;
use crate::place::Place;
use crate::topology::{Node, addresses};
pub use felix::Felix;

/// Name and version of the default network's configuration, as Calico installs it.
const NETWORK: &str = "k8s-pod-network";
const VERSION: &str = "1.0.0";
/// Room for the overlay's header.
const MTU: u32 = 1450;
/// The MAC address of every host end, and the link-local address that follows from it: the pod's IPv6 next hop.
const HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
const HOST_LINK_LOCAL: &str = "fe80::ecee:eeff:feee:eeee";
const HOST_V4: &str = "169.254.1.1";

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
pub fn add(node: &Node, pod: &Place, attachment: &Attachment) -> Result<(Dual, Value)> {
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

fn connect(node: &Node, pod: &Place, attachment: &Attachment, host_end: &str, address: Dual) -> Result<()> {
    let nic = &attachment.interface;
    let netns = attachment.netns.display();
    node.ip(&format!(
        "link add {host_end} address {HOST_MAC} type veth peer name {nic} mtu {MTU} netns {netns}
        link set {host_end} mtu {MTU} up"
    ))?;
    node.sysctl(&[
        &format!("ipv4/conf/{host_end}/proxy_arp=1"),
        &format!("ipv4/conf/{host_end}/rp_filter=1"),
        &format!("ipv4/neigh/{host_end}/proxy_delay=0"),
        &format!("ipv6/conf/{host_end}/proxy_ndp=1"),
        &format!("ipv6/neigh/{host_end}/proxy_delay=0"),
    ])?;
    let Dual { v4, v6 } = address;
    pod.ip(&format!(
        "link set {nic} up
        addr add {v4}/32 dev {nic}
        addr add {v6}/128 dev {nic} nodad
        route add {HOST_V4} dev {nic} scope link
        route add default via {HOST_V4} dev {nic}
        route add {HOST_LINK_LOCAL} dev {nic}
        route add ::/0 via {HOST_LINK_LOCAL} dev {nic}"
    ))?;
    node.ip(&format!(
        "route add {v4}/32 dev {host_end} scope link
        route add {v6}/128 dev {host_end}"
    ))
}

/// DEL: removes eth0 and gives its addresses back.
pub fn del(node: &Node, attachment: &Attachment) -> Result<()> {
    let host_end = host_end(attachment);
    node.ip(&format!("link del {host_end}"))?;
    node.felix.forget(&host_end);
    cni::execute(node, "DEL", attachment, &ipam(node)?)?;
    Ok(())
}
