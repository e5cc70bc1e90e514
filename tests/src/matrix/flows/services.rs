//! What the pod starts to Services, whose endpoints may be anywhere, itself included.

use std::net::IpAddr;

use spiderpool_core::ip::Family;

use super::PORTS;
use crate::flow::Flow;
use crate::matrix::builder::flow;
use crate::matrix::{Hosts, Setting, Surroundings};
use crate::namespaces::Namespaces;

impl Hosts {
    pub(super) fn services(&self, family: Family) -> Vec<Flow> {
        let eth0 = self.pod.main.get(family);
        // What leaves the overlay carries the node's address, if the node masquerades it.
        let to_underlay = if self.node_masquerades { self.node_sources(family) } else { vec![eth0] };
        let (overlay, underlay) = (&self.overlay_pod, &self.underlay_pod);
        let mut endpoints = vec![
            ("overlay pod", overlay.1, &overlay.0.namespaces, vec![eth0]),
            ("underlay pod", underlay.1, &underlay.0.namespaces, to_underlay.clone()),
        ];
        if let Some(more) = &self.surroundings {
            let near = &more.near_underlay_pod;
            endpoints.push(("pod of own node", more.neighbor_service, &self.neighbor.namespaces, vec![eth0]));
            endpoints.push(("underlay pod of own node", near.1, &near.0.namespaces, to_underlay));
        }
        let mut flows = Vec::new();
        for (endpoint, service, server, sources) in endpoints {
            flows.extend(self.to_service("ClusterIP", endpoint, service.get(family), server, &sources));
        }
        if let Some(more) = &self.surroundings {
            flows.extend(self.announced(more, family));
            flows.extend(self.itself(more, family));
        }
        flows
    }

    /// By a socket that is bound to nothing, and one bound to each underlay NIC.
    fn to_service(
        &self,
        what: &str,
        endpoint: &str,
        to: IpAddr,
        server: &Namespaces,
        seen: &[IpAddr],
    ) -> Vec<Flow> {
        let pod = &self.pod.namespaces;
        let start = |from: &str, seen: &[IpAddr]| {
            flow(&format!("{from} to {what} ({endpoint})"), pod, pod, to)
                .seen_by(server, seen)
                .leaves_by(self.cluster_nic())
        };
        let family = Family::of(to);
        let of_unbound = self.sources_of_service(seen, false, family);
        let mut flows = start("pod", &of_unbound).by(PORTS);
        let of_bound = self.sources_of_service(seen, true, family);
        for (nic, own) in self.underlay_nics(family) {
            flows.extend(start(&format!("{} socket", Setting::kind(nic)), &of_bound).bound(own).by(PORTS));
        }
        flows
    }

    /// What the pod's own node answers for: a macvlan NIC never reaches it in the underlay.
    fn announced(&self, more: &Surroundings, family: Family) -> Vec<Flow> {
        let (service, server) = (&more.announced, &self.overlay_pod.0.namespaces);
        let sources = self.node_sources(family);
        let ways = [("announced by own node", service.announced), ("routed to own node", service.routed)];
        let mut flows = Vec::new();
        for (way, address) in ways {
            let what = format!("load balancer {way}");
            flows.extend(self.to_service(&what, "overlay pod", address.get(family), server, &sources));
        }
        let (pod, first) = (&self.pod.namespaces, self.setting.first_underlay_nic());
        let start = |name: &str| {
            flow(name, pod, pod, self.node.main.get(family))
                .port(service.node_port)
                .seen_by(server, &sources)
                .leaves_by(self.cluster_nic())
        };
        flows.extend(start("pod to NodePort of own node (overlay pod)").by(PORTS));
        let bound = start(&format!("{first} socket to NodePort of own node (overlay pod)"))
            .bound(self.pod.underlay.get(family));
        flows.extend(bound.by(PORTS));
        flows
    }

    /// A Service whose only endpoint is the pod that asks.
    fn itself(&self, more: &Surroundings, family: Family) -> Vec<Flow> {
        let (pod, sources) = (&self.pod.namespaces, self.node_sources(family));
        let socket = format!("{} socket", self.setting.first_underlay_nic());
        let mut flows = Vec::new();
        for (endpoint, [service, _]) in &more.published.services {
            let kind = Setting::kind(endpoint);
            let nic = if *endpoint == self.cluster_nic() { endpoint } else { self.node_nic() };
            let start = |from: &str| {
                flow(
                    &format!("{from} to ClusterIP (its own {kind})"),
                    pod,
                    pod,
                    service.cluster_ip.get(family),
                )
                .seen_by(pod, &sources)
                .leaves_by(self.cluster_nic())
                .comes_by(nic, self.own_address(endpoint, family))
            };
            flows.extend(start("pod").by(PORTS));
            flows.extend(start(&socket).bound(self.pod.underlay.get(family)).by(PORTS));
        }
        flows
    }
}
