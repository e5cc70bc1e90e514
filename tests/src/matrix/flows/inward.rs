//! What others start to the pod's own addresses. Its server listens on the wildcard address, by UDP too.

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::EVERY;
use crate::flow::Flow;
use crate::matrix::builder::flow;
use crate::matrix::{Hosts, Setting};

impl Hosts {
    pub(super) fn inward(&self, family: Family) -> Vec<Flow> {
        let (pod, eth0) = (&self.pod.namespaces, self.pod.main.get(family));
        let (node, other) = (&self.node, &self.other_node);
        let (remote, near) = (&self.overlay_pod.0, &self.neighbor);
        let to_eth0 = |name: &str, from, sources: &[_]| {
            flow(name, pod, from, eth0).seen_by(pod, sources).comes_by("eth0", eth0).by(EVERY)
        };
        // Where eth0 is on the underlay, it is one of the NICs below.
        let mut flows = if self.is_underlay() {
            Vec::new()
        } else {
            [
                to_eth0("node to eth0", &node.namespaces, &self.node_sources(family)),
                to_eth0("other node to eth0", &other.namespaces, &self.other_sources(family)),
                to_eth0("remote pod to eth0", &remote.namespaces, &[remote.address.get(family)]),
                to_eth0("pod of own node to eth0", &near.namespaces, &[near.address.get(family)]),
            ]
            .concat()
        };
        let near_sources =
            if self.node_masquerades { self.node_sources(family) } else { vec![near.address.get(family)] };
        for (nic, own) in self.underlay_nics(family) {
            let kind = Setting::kind(nic);
            let start = |from: &str, namespaces| flow(&format!("{from} to {kind}"), pod, namespaces, own);
            let by_node = [
                ("node", &node.namespaces, self.node_sources(family)),
                ("pod of own node", &near.namespaces, near_sources.clone()),
            ];
            for (name, from, sources) in by_node {
                flows.extend(
                    start(name, from).seen_by(pod, &sources).comes_by(self.node_nic(), own).by(EVERY),
                );
            }
            let outside_ip = self.outside.address.get(family);
            let by_underlay = [
                ("other node", &other.namespaces, self.other_sources(family)),
                ("remote pod", &remote.namespaces, self.other_sources(family)),
                ("outside", &self.outside.namespaces, vec![outside_ip]),
            ];
            if let Some(more) = &self.surroundings {
                let plain = &more.plain_pod;
                let from = "unmasqueraded remote pod";
                let calls = start(from, &plain.namespaces).seen_by(pod, &[plain.address.get(family)]);
                // By rules the answer leaves by the cluster NIC, as all that goes to overlay pods.
                let calls =
                    if self.setting.dataplane == Dataplane::Ebpf { calls.comes_by(nic, own) } else { calls };
                flows.extend(calls.by(EVERY));
            }
            for (name, from, sources) in by_underlay {
                flows.extend(start(name, from).seen_by(pod, &sources).comes_by(nic, own).by(EVERY));
            }
            flows.extend(self.neighbors_in_underlay(family, nic, own, kind));
        }
        flows
    }

    /// Clients in the NIC's subnet.
    fn neighbors_in_underlay(
        &self,
        family: Family,
        nic: &'static str,
        own: std::net::IpAddr,
        kind: &str,
    ) -> Vec<Flow> {
        let pod = &self.pod.namespaces;
        let start = |name: &str, from, source| {
            flow(&format!("{name} to {kind}"), pod, from, own)
                .bound(source)
                .seen_by(pod, &[source])
                .comes_by(nic, own)
                .by(EVERY)
        };
        let mut flows = Vec::new();
        if nic == self.setting.first_underlay_nic() {
            let remote = &self.underlay_pod.0;
            flows.extend(start("remote net1", &remote.namespaces, remote.underlay.get(family)));
            if let Some(more) = &self.surroundings {
                let near = &more.near_underlay_pod.0;
                let name = "net1 of pod of own node";
                flows.extend(start(name, &near.namespaces, near.underlay.get(family)));
            }
        }
        if let Some(more) = &self.surroundings {
            let further =
                more.further_nics.iter().find(|(name, ..)| *name == nic).map(|(_, _, client)| client);
            let client = further.unwrap_or(&more.client);
            flows.extend(start("underlay client", &client.namespaces, client.address.get(family)));
        }
        flows
    }
}
