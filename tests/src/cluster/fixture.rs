//! A cluster as a [`Fixture`]: Spiderpool installed by Helm, pods made by kubelets, NICs by Multus.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::Cluster;
use crate::agent::Agent;
use crate::dual::Dual;
use crate::fixture::{Fixture, Gateway, RouteHints};
use crate::kubectl::Kubectl;
use crate::matrix::{DefaultRoute, Host, Hosts, Peer, Setting};
use crate::namespaces::Namespaces;
use crate::node_ports;
use crate::poll;
use crate::probe::{self, Probe, Protocol, Server};
use crate::release::NETWORK;
use crate::service;
use crate::topology::addresses;
use crate::workload::{Deployment, RunningPod, check_addresses};

/// How long an agent may take to see a change of SpiderCoordinator.
const WATCH_LIMIT: Duration = Duration::from_secs(30);
/// After that the addresses of deleted pods must be free.
const FREED_LIMIT: Duration = Duration::from_secs(30);
/// What runs on the cluster. Fields drop in order: servers first, so that their threads leave the namespaces.
#[derive(Debug)]
pub struct ClusterFixture<'a> {
    servers: Vec<Server>,
    deployments: Vec<Deployment>,
    places: Vec<Namespaces>,
    node: Host,
    other_node: Host,
    neighbor: Peer,
    overlay_pod: Peer,
    underlay_pod: Host,
    outside: Namespaces,
    /// The Services of the overlay pod and of the underlay pod's net1.
    cluster_ips: [Dual; 2],
    cluster: &'a Cluster,
}

impl<'a> ClusterFixture<'a> {
    /// Makes the Service and its pods on a cluster with two nodes, Spiderpool and the network of the pods' net1.
    pub fn start(cluster: &'a Cluster, progress: impl Fn(&str)) -> Result<Self> {
        let host = |index: u8| -> Result<Host> {
            let node = cluster.nodes().get(usize::from(index) - 1).context("two nodes are needed")?;
            Ok(Host {
                namespaces: node.namespaces(),
                main: addresses::node(index),
                underlay: addresses::node_underlay(index),
            })
        };
        let (node, other_node) = (host(1)?, host(2)?);
        let deployments = vec![
            Deployment::plain("neighbor").on(&node.namespaces.name),
            Deployment::plain("overlay").on(&other_node.namespaces.name),
            Deployment::underlay("underlay", NETWORK).on(&other_node.namespaces.name),
        ];
        for deployment in &deployments {
            cluster.apply(&deployment.manifest().to_string())?;
        }
        let mut pods = Vec::new();
        for deployment in &deployments {
            let pod = deployment.wait_running(cluster)?.pop().context("a Deployment without pod")?;
            pods.push((namespaces(cluster, &deployment.name, &pod)?, pod));
        }
        let [neighbor, overlay, underlay] = pods.as_slice() else { unreachable!("three Deployments") };
        let underlay_pod =
            Host { namespaces: underlay.0.clone(), main: underlay.1.eth0, underlay: underlay.1.net1()? };
        let endpoints = [overlay.1.eth0, underlay_pod.underlay];
        let cluster_ips = service::create_pair(cluster, &node.namespaces, endpoints)?;
        let own = [node.main, node.underlay].map(|address| [address.v4.into(), address.v6.into()]);
        let mut servers = vec![Server::start_at(&node.namespaces, own.as_flattened())?];
        let outside = cluster.outside();
        for namespaces in [&neighbor.0, &overlay.0, &underlay.0, &outside] {
            servers.push(Server::start(namespaces)?);
        }
        progress(
            "a Service with an overlay endpoint, one with an underlay endpoint, and the pods behind them",
        );
        Ok(Self {
            servers,
            deployments,
            places: Vec::new(),
            node,
            other_node,
            neighbor: Peer::new(&neighbor.0, neighbor.1.eth0),
            overlay_pod: Peer::new(&overlay.0, overlay.1.eth0),
            underlay_pod,
            outside,
            cluster_ips,
            cluster,
        })
    }

    /// Asks a pod's addresses by ports of its node, from the other node and from behind the gateway, and has the pod ask Services of
    /// its own addresses.
    pub fn check_published(&self, pod: &Host) -> Result<()> {
        let clients =
            [(&self.other_node.namespaces, self.other_node.main), (&self.outside, addresses::OUTSIDE)];
        for (nic, endpoint) in [("eth0", pod.main), ("net1", pod.underlay)] {
            let name = format!("{}-{nic}", pod.namespaces.name);
            let protocols = [Protocol::Tcp, Protocol::Udp];
            node_ports::check_at(self.cluster, &self.node, &clients, &name, endpoint, &protocols)?;
            let name = format!("{name}-own");
            let service = service::create(self.cluster, &name, &[endpoint])?;
            service::wait_for_proxy(&self.node.namespaces, service, &[endpoint])?;
            for family in Family::ALL {
                for bound in [None, Some(pod.underlay.get(family))] {
                    for protocol in protocols {
                        let probe = Probe { protocol, to: service.get(family), bound };
                        probe::send(&pod.namespaces, probe).with_context(|| format!("{name}: {probe:?}"))?;
                    }
                }
            }
            self.cluster.kubectl(&["delete", "service", &name])?;
        }
        Ok(())
    }
}

/// The network of a pod, under the name of its Deployment, ready for pings by sockets.
fn namespaces(cluster: &Cluster, name: &str, pod: &RunningPod) -> Result<Namespaces> {
    let mut namespaces = cluster.pod_namespaces("default", &pod.name)?;
    name.clone_into(&mut namespaces.name);
    namespaces.sysctl(&["ipv4/ping_group_range=0 0"])?;
    Ok(namespaces)
}

impl Fixture for ClusterFixture<'_> {
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments)
    }

    fn node(&self) -> &Namespaces {
        &self.node.namespaces
    }

    fn set_route_hints(&mut self, hints: RouteHints) -> Result<()> {
        let patch = json!({"spec": {"ebpf": {"routeHints": hints.name()}}}).to_string();
        self.cluster.kubectl(&["patch", "spidercoordinator", "default", "--type=merge", "-p", &patch])?;
        let pod = crate::workload::pods(self.cluster, &self.neighbor.namespaces.name)?;
        let pod = pod.first().and_then(|pod| pod.metadata.name.clone()).context("the neighbor is gone")?;
        poll::until(&format!("route hints {}", hints.name()), WATCH_LIMIT, || {
            let config = Agent::coordinator_config(&self.node.namespaces, &pod)?;
            ensure!(config["ebpf"]["routeHints"] == hints.name(), "the agent hands out {config}");
            Ok(())
        })
    }

    fn add_pod(&mut self, name: &str, default_route: DefaultRoute) -> Result<Host> {
        let deployment = Deployment {
            default_route: Some(default_route),
            ..Deployment::underlay(name, NETWORK).on(&self.node.namespaces.name)
        };
        let pod = deployment.start(self.cluster)?.pop().context("a Deployment without pod")?;
        let namespaces = namespaces(self.cluster, name, &pod)?;
        self.servers.push(Server::start(&namespaces)?);
        self.deployments.push(deployment);
        self.places.push(namespaces.clone());
        Ok(Host { namespaces, main: pod.eth0, underlay: pod.net1()? })
    }

    fn hosts(&self, pod: &Host, default_route: DefaultRoute) -> Hosts {
        Hosts {
            pod: pod.clone(),
            setting: Setting::usual(Dataplane::Ebpf, default_route),
            node_router: addresses::node_router(1),
            node: self.node.clone(),
            other_node: self.other_node.clone(),
            neighbor: self.neighbor.clone(),
            node_masquerades: true,
            overlay_pod: (self.overlay_pod.clone(), self.cluster_ips[0]),
            underlay_pod: (self.underlay_pod.clone(), self.cluster_ips[1]),
            outside: Peer::new(&self.outside, addresses::OUTSIDE),
            surroundings: None,
        }
    }

    fn set_underlay_gateway(&self, state: Gateway) -> Result<()> {
        self.cluster.set_underlay_gateway(state)
    }

    /// A ServiceCIDR, as an administrator adds one; the controller carries it into SpiderCoordinator's status.
    fn add_service_cidr(&self, cidr: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": service_cidr_name(cidr)}, "spec": {"cidrs": [cidr]},
        });
        self.cluster.apply(&object.to_string()).map(drop)
    }

    fn remove_service_cidr(&self, cidr: &str) -> Result<()> {
        self.cluster.kubectl(&["delete", "servicecidr", &service_cidr_name(cidr)]).map(drop)
    }

    fn ways_in(&self) -> Result<Vec<(String, String)>> {
        let machines = [&self.node.namespaces, &self.other_node.namespaces, &self.outside];
        let places = machines.into_iter().chain(&self.places);
        Ok(places.map(|namespaces| (namespaces.name.clone(), namespaces.shell())).collect())
    }

    /// Deletes the pods; their addresses must be free a moment later.
    fn finish(self: Box<Self>) -> Result<()> {
        drop(self.servers);
        self.cluster.kubectl(&[&["delete", "service"], &service::PAIR[..]].concat())?;
        for deployment in &self.deployments {
            self.cluster.kubectl(&["delete", "deployment", &deployment.name, "--wait=false"])?;
        }
        for deployment in &self.deployments {
            deployment.wait_gone(self.cluster)?;
        }
        poll::until("free addresses", FREED_LIMIT, || check_addresses(self.cluster, &[]))
    }
}

fn service_cidr_name(cidr: &str) -> String {
    cidr.replace(['.', ':', '/'], "-")
}
