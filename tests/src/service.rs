//! Services without selector: the bench says what their endpoints are, kube-proxy does the rest.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use serde_json::json;
use spiderpool_core::ip::Family;

use crate::control_plane::ControlPlane;
use crate::dual::Dual;
use crate::poll;
use crate::probe::PORT;
use crate::topology::Node;

const PROXY_LIMIT: Duration = Duration::from_secs(10);

/// Creates a Service with `endpoints` in both families; its ClusterIPs.
pub fn create(plane: &ControlPlane, name: &str, endpoints: &[Dual]) -> Result<Dual> {
    let ports = [("tcp", "TCP"), ("udp", "UDP")];
    let ports: Vec<_> =
        ports.map(|(name, protocol)| json!({"name": name, "protocol": protocol, "port": PORT})).into();
    let service: core::Service = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "ports": ports},
    }))?;
    let slice = |family: Family| -> Result<EndpointSlice> {
        let addresses: Vec<_> =
            endpoints.iter().map(|endpoint| json!({"addresses": [endpoint.get(family)]})).collect();
        Ok(serde_json::from_value(json!({
            "metadata": {
                "name": format!("{name}-v{}", family.version()),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": format!("IPv{}", family.version()), "endpoints": addresses, "ports": ports,
        }))?)
    };
    let slices = [slice(Family::V4)?, slice(Family::V6)?];
    let created = plane.with_client(async |client| {
        for slice in &slices {
            Api::default_namespaced(client.clone()).create(&PostParams::default(), slice).await?;
        }
        Ok(Api::default_namespaced(client).create(&PostParams::default(), &service).await?)
    })?;
    let addresses: Vec<IpAddr> = created
        .spec
        .and_then(|spec| spec.cluster_ips)
        .into_iter()
        .flatten()
        .filter_map(|address| address.parse().ok())
        .collect();
    Dual::from_addresses(&addresses).with_context(|| format!("service {name} got {addresses:?}"))
}

/// Waits until kube-proxy of `node` has written the rules for the Service.
pub fn wait_for_proxy(node: &Node, cluster_ip: Dual, endpoints: &[Dual]) -> Result<()> {
    for family in Family::ALL {
        let table = if family == Family::V4 { "ip" } else { "ip6" };
        poll::until(&format!("rules of kube-proxy on {}", node.name), PROXY_LIMIT, || {
            let rules = node.output("nft", &["list", "table", table, "kube-proxy"])?;
            for address in endpoints.iter().chain([&cluster_ip]).map(|address| address.get(family)) {
                ensure!(rules.contains(&address.to_string()), "no rule names {address}");
            }
            Ok(())
        })?;
    }
    Ok(())
}
