//! Stand-ins for the default network's CNI plugin in the lab: `spiderpool_testbox::{calico, cilium, ovs}`, called as
//! functions.

mod felix;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_testbox::{calico, cilium, ovs};

use crate::cni::{self, Attachment};
use crate::dual::Dual;
use crate::matrix::DefaultNetwork;
use crate::namespaces::Namespaces;
use crate::netkit::{Mode, NewNetkit};
use crate::poll;
use crate::topology::{Node, NodeKind, Pair, addresses};
pub use felix::Felix;

const VERSION: &str = "1.0.0";
/// What the kernel says of a device that has none.
const NO_MAC: &str = "00:00:00:00:00:00";

/// Name of the configuration, as the real ones install it.
fn name(network: DefaultNetwork) -> &'static str {
    match network {
        DefaultNetwork::Calico => "k8s-pod-network",
        DefaultNetwork::Cilium => "cilium",
        DefaultNetwork::Ovs => "kube-ovn",
    }
}

fn ipam(node: &Node) -> Result<Vec<u8>> {
    let ranges: Vec<Value> =
        addresses::pod_cidrs(node.index).iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    Ok(serde_json::to_vec(&json!({
        "cniVersion": VERSION, "name": name(node.kind.network), "type": "host-local",
        "ipam": {"type": "host-local", "dataDir": "/run/host-local", "ranges": ranges},
    }))?)
}

/// The host end's name.
pub fn host_end(network: DefaultNetwork, attachment: &Attachment) -> String {
    let mut hasher = DefaultHasher::new();
    (&attachment.container, &attachment.interface).hash(&mut hasher);
    let prefix = match network {
        DefaultNetwork::Calico => calico::PREFIX,
        DefaultNetwork::Cilium => cilium::PREFIX,
        DefaultNetwork::Ovs => ovs::PREFIX,
    };
    format!("{prefix}{:011x}", hasher.finish() >> 20)
}

/// ADD: makes eth0 and returns its addresses and the CNI result.
pub fn add(node: &Node, pod: &Namespaces, attachment: &Attachment) -> Result<(Dual, Value)> {
    let leased = cni::execute(node, "ADD", attachment, &ipam(node)?)?;
    let leased_addresses: Vec<IpAddr> = leased["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    let address =
        Dual::from_addresses(&leased_addresses).with_context(|| format!("host-local gave {leased}"))?;
    let network = node.kind.network;
    let (host_end, nic) = (host_end(network, attachment), &attachment.interface);
    let [host_mac, pod_mac] = macs(node.kind, &host_end);
    let mtu = calico::MTU;
    match node.kind.pair {
        Pair::Veth => node.ip(&format!(
            "link add {host_end} address {host_mac} type veth peer name {nic} address {pod_mac} mtu {mtu} netns {}
            link set {host_end} mtu {mtu} up",
            attachment.netns.display(),
        ))?,
        Pair::Netkit(mode) => {
            let (name, peer_name, peer_netns) = (&*host_end, &**nic, &*attachment.netns);
            let pair = NewNetkit { mode, name, peer_name, peer_netns, mtu };
            ensure!(node.run(|| pair.add())?, "the kernel makes no netkit pairs");
            if mode == Mode::L2 {
                node.ip(&format!("link set {host_end} address {host_mac}"))?;
                pod.ip(&format!("link set {nic} address {pod_mac}"))?;
            }
            node.ip(&format!("link set {host_end} up"))?;
        }
    }
    // Its link-local address is there at once: whoever compares the pod before and after sees no difference.
    pod.sysctl(&[&format!("ipv6/conf/{nic}/accept_dad=0")])?;
    let hops = connect(node, pod, nic, &host_end, address)?;
    let length = |v4: bool| match (network, v4) {
        (DefaultNetwork::Ovs, true) => 24,
        (DefaultNetwork::Ovs, false) => 64,
        (_, true) => 32,
        (_, false) => 128,
    };
    let result = json!({
        "cniVersion": VERSION,
        "interfaces": [
            {"name": host_end, "mac": host_mac},
            {"name": attachment.interface, "mac": pod_mac, "sandbox": attachment.netns},
        ],
        "ips": [
            {"address": format!("{}/{}", address.v4, length(true)), "interface": 1},
            {"address": format!("{}/{}", address.v6, length(false)), "interface": 1},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": hops[0]}, {"dst": "::/0", "gw": hops[1]}],
        "dns": {},
    });
    Ok((address, result))
}

/// Of the host end and of the pod's.
fn macs(kind: NodeKind, host_end: &str) -> [String; 2] {
    if kind.pair == Pair::Netkit(Mode::L3) {
        return [NO_MAC, NO_MAC].map(str::to_owned);
    }
    let host = match kind.network {
        DefaultNetwork::Calico => calico::HOST_MAC.to_owned(),
        DefaultNetwork::Cilium | DefaultNetwork::Ovs => addresses::mac(host_end),
    };
    [host, addresses::mac(&format!("{host_end} peer"))]
}

/// Sets up both ends; the pod's next hops.
fn connect(node: &Node, pod: &Namespaces, nic: &str, host_end: &str, address: Dual) -> Result<[String; 2]> {
    let addresses = [address.v4.into(), address.v6.into()];
    let router = addresses::node_router(node.index);
    let routers = [router.v4.into(), router.v6.into()];
    let set = |settings: &[String]| node.sysctl(&settings.iter().map(String::as_str).collect::<Vec<_>>());
    match node.kind.network {
        DefaultNetwork::Calico => {
            node.expect_endpoint(host_end, address);
            set(&calico::host_sysctls(host_end))?;
            pod.ip(&calico::pod_script(nic, &addresses))?;
            node.ip(&calico::host_routes(host_end, &addresses))?;
            wait_for_link_local(node, host_end)?;
            return Ok([calico::HOST_V4.to_owned(), calico::HOST_LINK_LOCAL.to_owned()]);
        }
        DefaultNetwork::Cilium => {
            node.nft(&addresses.map(|address| cilium::add_endpoint(host_end, address)).concat())?;
            set(&cilium::host_sysctls(host_end))?;
            pod.ip(&cilium::pod_script(nic, &addresses, &routers).context("routers of each family")?)?;
            node.ip(&cilium::host_routes(host_end, &addresses, &routers))?;
        }
        DefaultNetwork::Ovs => {
            let mac = addresses::mac(&format!("{host_end} peer"));
            node.nft(&addresses.map(|address| ovs::add_endpoint(host_end, &mac, address)).concat())?;
            node.ip(&format!("link set {host_end} master {}", ovs::SWITCH))?;
            pod.ip(&ovs::pod_script(nic, &addresses, &routers).context("routers of each family")?)?;
        }
    }
    Ok(routers.map(|router| router.to_string()))
}

/// The kernel adds a link-local address, and routers' anycast address after it, some time after a link is up: whoever compares the
/// node before and after something is to see no difference.
fn wait_for_link_local(node: &Node, host_end: &str) -> Result<()> {
    poll::until(&format!("the link-local address of {host_end}"), Duration::from_secs(10), || {
        let routes = node.output("ip", &["-6", "route", "show", "table", "local", "dev", host_end])?;
        ensure!(routes.contains("anycast fe80::"), "{routes}");
        Ok(())
    })
}

/// DEL: removes eth0 and gives its addresses back.
pub fn del(node: &Node, attachment: &Attachment, address: Dual) -> Result<()> {
    let network = node.kind.network;
    let host_end = host_end(network, attachment);
    node.ip(&format!("link del {host_end}"))?;
    let addresses = [address.v4.into(), address.v6.into()];
    match network {
        DefaultNetwork::Calico => node.forget_endpoint(&host_end),
        DefaultNetwork::Cilium => {
            node.nft(&addresses.map(|address| cilium::remove_endpoint(&host_end, address)).concat())?;
        }
        DefaultNetwork::Ovs => {
            let mac = addresses::mac(&format!("{host_end} peer"));
            node.nft(&addresses.map(|address| ovs::remove_endpoint(&host_end, &mac, address)).concat())?;
        }
    }
    cni::execute(node, "DEL", attachment, &ipam(node)?)?;
    Ok(())
}
