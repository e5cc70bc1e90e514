//! Who else takes part: pods on every node, and their Services.

use anyhow::{Context as _, Result};

use super::pods::PodUnderTest;
use super::pools::pool_name;
use crate::dual::Dual;
use crate::lab::macvlan_of;
use crate::machine::Machine;
use crate::matrix::{DefaultNetwork, Host, Hosts, Peer, PublishedService, Surroundings};
use crate::namespaces::Namespaces;
use crate::pod::{Pod, PodSpec};
use crate::service::{self, LoadBalancer, Policy};
use crate::topology::{Node, Topology, addresses};

/// The NodePort of the announced Service, and its number among the load balancer's addresses, which no pod under test
/// comes to.
const ANNOUNCED: (u16, u16) = (30050, 2000);

/// A pod on a node, with the ClusterIP of the Service that it is the endpoint of.
#[derive(Debug)]
struct Place {
    pod: Pod,
    service: Dual,
}

/// All of them; those of the nodes of the pods under test in the order of [`DefaultNetwork::ALL`].
#[derive(Debug)]
pub(super) struct Places {
    neighbors: Vec<Place>,
    near_underlay_pods: Vec<Place>,
    overlay_pod: Place,
    underlay_pod: Place,
    plain_pod: Pod,
    pub(super) announced: Vec<LoadBalancer>,
    announced_as: PublishedService,
}

impl Places {
    pub(super) fn set_up(topology: &Topology) -> Result<Self> {
        let plane = &topology.plane;
        let (near, [other, plain]) = topology.nodes.split_at(DefaultNetwork::ALL.len()) else {
            anyhow::bail!("two more nodes")
        };
        let spec = |name: &str, networks| PodSpec { name: name.into(), networks, ..PodSpec::default() };
        let with_eth0 = |node: &Node, name: &str| -> Result<Place> {
            let pod = Pod::add(plane, node, &spec(name, Vec::new()))?;
            let service = service::create(plane, name, &[pod.eth0])?;
            Ok(Place { pod, service })
        };
        let with_net1 = |node: &Node, name: &str| -> Result<Place> {
            let pool = |version| pool_name(1, true, version);
            let network = macvlan_of("eth1", &pool("v4"), &pool("v6"), &serde_json::json!({}));
            let pod = Pod::add(plane, node, &spec(name, vec![network]))?;
            let service = service::create(plane, name, &[pod.net1()?])?;
            Ok(Place { pod, service })
        };
        let of_near = |make: &dyn Fn(&Node, &str) -> Result<Place>, name: &str| -> Result<Vec<Place>> {
            near.iter().map(|node| make(node, &format!("{name}-{}", node.name))).collect()
        };
        let overlay_pod = with_eth0(other, "overlay")?;
        let announced = vec![LoadBalancer {
            name: "announced-end".into(),
            endpoint: overlay_pod.pod.eth0,
            node: other.name.clone(),
            policy: Policy::Cluster,
            node_port: ANNOUNCED.0,
            health_port: ANNOUNCED.0 + 1,
            addresses: addresses::load_balancer(ANNOUNCED.1),
        }];
        Ok(Self {
            neighbors: of_near(&with_eth0, "neighbor")?,
            near_underlay_pods: of_near(&with_net1, "near")?,
            overlay_pod,
            underlay_pod: with_net1(other, "underlay")?,
            plain_pod: Pod::add(plane, plain, &spec("plain", Vec::new()))?,
            announced_as: service::create_all(plane, &announced)?.pop().context("one Service")?,
            announced,
        })
    }

    /// Where a server is needed.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Namespaces> {
        let single = [&self.overlay_pod, &self.underlay_pod];
        let places = self.neighbors.iter().chain(&self.near_underlay_pods).chain(single);
        places.map(|place| &place.pod.namespaces)
    }

    pub(super) fn hosts(
        &self,
        topology: &Topology,
        node: &Node,
        other: &Node,
        client: &Machine,
        of: &PodUnderTest,
    ) -> Result<Hosts> {
        let index = usize::from(node.index) - 1;
        let host =
            |node: &Node| Host { namespaces: (**node).clone(), main: node.address, underlay: node.underlay };
        let pod_host = |pod: &Pod| -> Result<Host> {
            Ok(Host { namespaces: pod.namespaces.clone(), main: pod.eth0, underlay: pod.net1()? })
        };
        let nics = of.setting.underlay_nics().iter().zip(of.setting.nics.underlays());
        let further_nics = of.underlays.iter().zip(nics).skip(1);
        let further_nics = further_nics
            .map(|(own, (nic, underlay))| (*nic, *own, Peer::new(client, addresses::client(*underlay))))
            .collect();
        let (neighbor, near) = (&self.neighbors[index], &self.near_underlay_pods[index]);
        let surroundings = Surroundings {
            further_nics,
            node_addresses: node.underlays().collect(),
            other_addresses: other.underlays().collect(),
            client: Peer::new(client, addresses::CLIENT),
            plain_pod: Peer::new(&self.plain_pod.namespaces, self.plain_pod.eth0),
            neighbor_service: neighbor.service,
            near_underlay_pod: (pod_host(&near.pod)?, near.service),
            announced: self.announced_as.clone(),
            hijacked: Peer::new(&topology.outside, addresses::HIJACKED),
            published: of.published.clone(),
        };
        Ok(Hosts {
            pod: Host {
                namespaces: of.pod.namespaces.clone(),
                main: of.pod.eth0,
                underlay: of.first_underlay(),
            },
            setting: of.setting,
            node: host(node),
            node_router: addresses::node_router(node.index),
            node_masquerades: of.setting.network != DefaultNetwork::Ovs,
            other_node: host(other),
            neighbor: Peer::new(&neighbor.pod.namespaces, neighbor.pod.eth0),
            overlay_pod: (
                Peer::new(&self.overlay_pod.pod.namespaces, self.overlay_pod.pod.eth0),
                self.overlay_pod.service,
            ),
            underlay_pod: (pod_host(&self.underlay_pod.pod)?, self.underlay_pod.service),
            outside: Peer::new(&topology.outside, addresses::OUTSIDE),
            surroundings: Some(surroundings),
        })
    }

    pub(super) fn del(self, topology: &Topology) -> Result<()> {
        let (near, more) = topology.nodes.split_at(DefaultNetwork::ALL.len());
        for (node, place) in near.iter().zip(self.neighbors).chain(near.iter().zip(self.near_underlay_pods)) {
            place.pod.del(&topology.plane, node)?;
        }
        for place in [self.overlay_pod, self.underlay_pod] {
            place.pod.del(&topology.plane, &more[0])?;
        }
        self.plain_pod.del(&topology.plane, &more[1])
    }
}
