//! Services of type LoadBalancer, which are a ClusterIP and a NodePort too.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use spiderpool_core::ip::Family;

use crate::control_plane::ControlPlane;
use crate::dual::Dual;
use crate::matrix::{ProxyMode, PublishedService};
use crate::namespaces::Namespaces;
use crate::poll;
use crate::probe::PORT;

const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// `spec.externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// To any endpoint, masqueraded.
    Cluster,
    /// To those of the node that is asked, unchanged.
    Local,
}

/// What such a Service is made from.
#[derive(Debug, Clone)]
pub struct LoadBalancer {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its only endpoint.
    pub endpoint: Dual,
    /// The endpoint's node.
    pub node: String,
    /// Whose endpoints count.
    pub policy: Policy,
    /// On each node, for TCP and UDP.
    pub node_port: u16,
    /// Where each node says whether it has an endpoint, with [`Policy::Local`]. From the same range: what the API server
    /// chose could be another Service's NodePort.
    pub health_port: u16,
    /// The addresses that the load balancer has given it: in the underlay, and by a route.
    pub addresses: [Dual; 2],
}

/// Creates the Services with their endpoints; how they are seen.
pub fn create_all(plane: &ControlPlane, services: &[LoadBalancer]) -> Result<Vec<PublishedService>> {
    plane.with_client(async |client| {
        let mut created = Vec::new();
        for service in services {
            created.push(service.create(client.clone()).await.with_context(|| service.name.clone())?);
        }
        Ok(created)
    })
}

/// Deletes them.
pub fn delete_all(plane: &ControlPlane, services: &[LoadBalancer]) -> Result<()> {
    plane.with_client(async |client| {
        let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
        for service in services {
            let of_service =
                ListParams::default().labels(&format!("kubernetes.io/service-name={}", service.name));
            slices.delete_collection(&DeleteParams::default(), &of_service).await?;
            let services: Api<core::Service> = Api::default_namespaced(client.clone());
            services.delete(&service.name, &DeleteParams::default()).await?;
        }
        Ok(())
    })
}

impl LoadBalancer {
    async fn create(&self, client: Client) -> Result<PublishedService> {
        let ports = [("tcp", "TCP"), ("udp", "UDP")].map(|(name, protocol)| {
            json!({"name": name, "protocol": protocol, "port": PORT, "nodePort": self.node_port})
        });
        let policy = match self.policy {
            Policy::Cluster => "Cluster",
            Policy::Local => "Local",
        };
        let mut service = json!({
            "metadata": {"name": self.name},
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": ports,
                "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            },
        });
        if self.policy == Policy::Local {
            service["spec"]["healthCheckNodePort"] = json!(self.health_port);
        }
        let service: core::Service = serde_json::from_value(service)?;
        let services: Api<core::Service> = Api::default_namespaced(client.clone());
        let created = services.create(&PostParams::default(), &service).await?;
        let own = self.addresses.iter().flat_map(|address| Family::ALL.map(|family| address.get(family)));
        let own: Vec<_> = own.map(|address| json!({"ip": address})).collect();
        let status = json!({"status": {"loadBalancer": {"ingress": own}}});
        services.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(status)).await?;
        for family in Family::ALL {
            let slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": {
                    "name": format!("{}-v{}", self.name, family.version()),
                    "labels": {"kubernetes.io/service-name": self.name},
                },
                "addressType": format!("IPv{}", family.version()),
                "endpoints": [{"addresses": [self.endpoint.get(family)], "nodeName": self.node}],
                "ports": [
                    {"name": "tcp", "protocol": "TCP", "port": PORT}, {"name": "udp", "protocol": "UDP", "port": PORT},
                ],
            }))?;
            let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
            slices.create(&PostParams::default(), &slice).await?;
        }
        let addresses = created.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
        let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let cluster_ip = Dual::from_addresses(&addresses).with_context(|| format!("got {addresses:?}"))?;
        let [announced, routed] = self.addresses;
        Ok(PublishedService { cluster_ip, node_port: self.node_port, announced, routed })
    }
}

/// Waits until kube-proxy of `node` has the endpoints and the load balancer's addresses of all of them.
pub fn wait_for_names(node: &Namespaces, mode: ProxyMode, services: &[LoadBalancer]) -> Result<()> {
    poll::until(&format!("rules of kube-proxy on {}", node.name), PROXY_LIMIT, || {
        let rules = match mode {
            ProxyMode::Nftables => node.output("nft", &["list", "ruleset"])?,
            ProxyMode::Iptables => {
                node.output("iptables-save", &["-t", "nat"])?
                    + &node.output("ip6tables-save", &["-t", "nat"])?
            }
        };
        for service in services {
            // Names of services and endpoints are in the names of chains or in comments.
            let of_service: Vec<&str> = rules.lines().filter(|line| line.contains(&service.name)).collect();
            for family in Family::ALL {
                let endpoint = service.endpoint.get(family).to_string();
                let dotted = endpoint.replace(':', ".");
                let is_there = |line: &&&str| line.contains(&endpoint) || line.contains(&dotted);
                ensure!(
                    of_service.iter().any(|line| is_there(&line)),
                    "{}: {endpoint} is missing",
                    service.name
                );
                for address in service.addresses {
                    let address = address.get(family).to_string();
                    ensure!(rules.contains(&address), "{}: {address} is missing", service.name);
                }
            }
        }
        Ok(())
    })
}
