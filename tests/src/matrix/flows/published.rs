//! What others start to Services whose endpoint is the pod, and to its host port.

use spiderpool_core::ip::Family;

use super::PORTS;
use crate::flow::Flow;
use crate::matrix::builder::flow;
use crate::matrix::{Hosts, Peer, Setting, Surroundings};

impl Hosts {
    pub(super) fn published(&self, family: Family) -> Vec<Flow> {
        let Some(more) = &self.surroundings else { return Vec::new() };
        let (mut flows, cluster) = (self.host_port(more, family), self.cluster_nic());
        for (endpoint, services) in &more.published.services {
            let kind = Setting::kind(endpoint);
            // By which NIC the pod is asked if its own node forwards, and if another one does.
            let (by_own, by_other) =
                if *endpoint == cluster { (cluster, cluster) } else { (self.node_nic(), *endpoint) };
            let address = self.own_address(endpoint, family);
            let pod = &self.pod.namespaces;
            let (own, own_underlay) = (self.node.main.get(family), self.node.underlay.get(family));
            let other = self.other_node.main.get(family);
            for (policy, service) in ["Cluster", "Local"].into_iter().zip(services) {
                // The three clients, where each asks, and what the pod sees of it with `Local`.
                for (client, from, node) in self.clients(more, own, own_underlay) {
                    let source = from.address.get(family);
                    let seen = if policy == "Local" { vec![source] } else { self.node_sources(family) };
                    flows.extend(
                        flow(&format!("{client} to NodePort {policy} ({kind})"), pod, &from.namespaces, node)
                            .port(service.node_port)
                            .bound(source)
                            .seen_by(pod, &seen)
                            .comes_by(by_own, address)
                            .by(PORTS),
                    );
                }
                let announced = [
                    ("underlay client to announced load balancer", &more.client, service.announced),
                    ("outside to routed load balancer", &self.outside, service.routed),
                ];
                for (name, from, to) in announced {
                    let source = from.address.get(family);
                    let seen = if policy == "Local" { vec![source] } else { self.node_sources(family) };
                    flows.extend(
                        flow(&format!("{name} {policy} ({kind})"), pod, &from.namespaces, to.get(family))
                            .seen_by(pod, &seen)
                            .comes_by(by_own, address)
                            .by(PORTS),
                    );
                }
            }
            flows.extend(
                flow(
                    &format!("node to ClusterIP ({kind})"),
                    pod,
                    &self.node.namespaces,
                    services[0].cluster_ip.get(family),
                )
                .seen_by(pod, &self.node_sources(family))
                .comes_by(by_own, address)
                .by(PORTS),
            );
            let via_other = flow(
                &format!("outside to NodePort Cluster of other node ({kind})"),
                pod,
                &self.outside.namespaces,
                other,
            );
            flows.extend(
                via_other
                    .port(services[0].node_port)
                    .seen_by(pod, &self.other_sources(family))
                    .comes_by(by_other, address)
                    .by(PORTS),
            );
        }
        flows
    }

    fn host_port(&self, more: &Surroundings, family: Family) -> Vec<Flow> {
        let pod = &self.pod.namespaces;
        let (own, own_underlay) = (self.node.main.get(family), self.node.underlay.get(family));
        let mut flows = Vec::new();
        for (client, from, node) in self.clients(more, own, own_underlay) {
            let source = from.address.get(family);
            flows.extend(
                flow(&format!("{client} to host port"), pod, &from.namespaces, node)
                    .port(more.published.host_port)
                    .bound(source)
                    .seen_by(pod, &[source])
                    .comes_by(self.cluster_nic(), self.pod.main.get(family))
                    .by(PORTS),
            );
        }
        flows
    }

    /// Who asks the node: behind its gateway, in the underlay, another node; and by which address.
    fn clients(
        &self,
        more: &Surroundings,
        own: std::net::IpAddr,
        own_underlay: std::net::IpAddr,
    ) -> [(&'static str, Peer, std::net::IpAddr); 3] {
        let other = Peer::new(&self.other_node.namespaces, self.other_node.main);
        [
            ("outside", self.outside.clone(), own),
            ("underlay client", more.client.clone(), own_underlay),
            ("other node", other, own),
        ]
    }
}
