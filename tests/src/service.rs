//! Services without selector: the bench says what their endpoints are, kube-proxy does the rest.

mod load_balancer;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_core::ip::Family;

use crate::dual::Dual;
use crate::kubectl::Kubectl;
use crate::namespaces::Namespaces;
use crate::poll;
use crate::probe::PORT;
pub use load_balancer::{LoadBalancer, Policy, create_all, delete_all, wait_for_names};

const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// Creates a Service in the namespace `default` with `endpoints` in both families; its ClusterIPs.
pub fn create(cluster: &impl Kubectl, name: &str, endpoints: &[Dual]) -> Result<Dual> {
    cluster.apply(&manifest(name, endpoints).to_string())?;
    let created = cluster.kubectl(&["get", "service", name, "-o", "json"])?;
    let created: Value = serde_json::from_str(&created)?;
    let addresses = created["spec"]["clusterIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let addresses: Vec<IpAddr> =
        addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect();
    Dual::from_addresses(&addresses).with_context(|| format!("service {name} got {addresses:?}"))
}

/// The names of the Services that [`create_pair`] makes.
pub const PAIR: [&str; 2] = ["web-overlay", "web-underlay"];

/// A Service of each endpoint, an overlay and an underlay address, known to kube-proxy of `node`; their ClusterIPs.
pub fn create_pair(cluster: &impl Kubectl, node: &Namespaces, endpoints: [Dual; 2]) -> Result<[Dual; 2]> {
    let mut addresses = endpoints;
    for ((name, endpoint), address) in PAIR.iter().zip(endpoints).zip(&mut addresses) {
        *address = create(cluster, name, &[endpoint])?;
        wait_for_proxy(node, *address, &[endpoint])?;
    }
    Ok(addresses)
}

fn manifest(name: &str, endpoints: &[Dual]) -> Value {
    let ports = [("tcp", "TCP"), ("udp", "UDP")];
    let ports = ports.map(|(name, protocol)| json!({"name": name, "protocol": protocol, "port": PORT}));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "ports": ports},
    });
    let slices = Family::ALL.into_iter().map(|family| {
        let addresses: Vec<_> =
            endpoints.iter().map(|endpoint| json!({"addresses": [endpoint.get(family)]})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-v{}", family.version()),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": format!("IPv{}", family.version()), "endpoints": addresses, "ports": ports,
        })
    });
    let items: Vec<Value> = slices.chain([service]).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Waits until kube-proxy of `node` has written the rules for the Service, in whatever mode it runs.
pub fn wait_for_proxy(node: &Namespaces, cluster_ip: Dual, endpoints: &[Dual]) -> Result<()> {
    poll::until(&format!("rules of kube-proxy on {}", node.name), PROXY_LIMIT, || {
        let mut rules = node.output("nft", &["list", "ruleset"])?;
        for save in ["iptables-save", "ip6tables-save"] {
            rules.push_str(&node.output(save, &[])?);
        }
        for address in endpoints.iter().chain([&cluster_ip]) {
            for family in Family::ALL {
                let address = address.get(family);
                ensure!(rules.contains(&address.to_string()), "no rule names {address}");
            }
        }
        Ok(())
    })
}
