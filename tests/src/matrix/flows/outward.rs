//! What the pod starts, but for Services.

use spiderpool_core::ip::Family;

use super::EVERY;
use crate::flow::Flow;
use crate::matrix::builder::flow;
use crate::matrix::{Hosts, Setting};

impl Hosts {
    pub(super) fn outward(&self, family: Family) -> Vec<Flow> {
        let (pod, node) = (&self.pod.namespaces, &self.node);
        let (own, first) = (self.own_source(family), self.pod.underlay.get(family));
        let (node_ip, node_underlay) = (node.main.get(family), node.underlay.get(family));
        let (remote, near) = (&self.overlay_pod.0, &self.neighbor);
        let (remote_ip, outside_ip) = (remote.address.get(family), self.outside.address.get(family));
        let underlay_ip = self.underlay_pod.0.underlay.get(family);
        let cluster = self.cluster_nic();
        let start = |name: &str, to| flow(name, pod, pod, to);
        // The node's own subnet in the underlay is the first NIC's.
        let in_subnet = if self.is_underlay() { first } else { own };
        let mut flows = [
            start("pod to own node", node_ip).seen_by(&node.namespaces, &[own]).leaves_by(cluster),
            start("pod to own node's underlay address", node_underlay)
                .seen_by(&node.namespaces, &[in_subnet])
                .leaves_by(cluster),
            start("pod to remote pod", remote_ip)
                .seen_by(&remote.namespaces, &[own])
                .leaves_by(self.remote_nic(false)),
            start("pod to pod of own node", near.address.get(family))
                .seen_by(&near.namespaces, &[own])
                .leaves_by(cluster),
            start("pod to remote net1", underlay_ip)
                .seen_by(&self.underlay_pod.0.namespaces, &[first])
                .leaves_by(self.setting.first_underlay_nic()),
        ]
        .map(|flow| flow.by(EVERY))
        .concat();
        if let Some(more) = &self.surroundings {
            let near = &more.near_underlay_pod.0;
            flows.extend(
                start("pod to net1 of pod of own node", near.underlay.get(family))
                    .seen_by(&near.namespaces, &[first])
                    .leaves_by(self.setting.first_underlay_nic())
                    .by(EVERY),
            );
            let sources: Vec<_> =
                self.underlay_nics(family).into_iter().map(|(_, address)| address).collect();
            let sources = if self.is_underlay() { sources } else { vec![own] };
            let name = "pod to own node's address in another underlay";
            let further = more.node_addresses.iter().skip(1);
            flows.extend(further.flat_map(|address| {
                start(name, address.get(family))
                    .seen_by(&node.namespaces, &sources)
                    .leaves_by(cluster)
                    .by(EVERY)
            }));
        }
        let (nic, sources) = self.default_way(family);
        flows.extend(
            start("pod to outside", outside_ip)
                .seen_by(&self.outside.namespaces, &sources)
                .leaves_by(nic)
                .by(EVERY),
        );
        for (nic, own) in self.underlay_nics(family) {
            let kind = Setting::kind(nic);
            let start = |what: &str, to| flow(&format!("{kind} socket to {what}"), pod, pod, to).bound(own);
            let seen = self.bound_source(own);
            let bound = [
                start("own node", node_ip).seen_by(&node.namespaces, &[seen]).leaves_by(cluster),
                start("remote pod", remote_ip)
                    .seen_by(&remote.namespaces, &[seen])
                    .leaves_by(self.remote_nic(true)),
                start("outside", outside_ip).seen_by(&self.outside.namespaces, &[own]).leaves_by(nic),
            ];
            flows.extend(bound.map(|flow| flow.by(EVERY)).concat());
        }
        flows.extend(self.hijacked(family));
        flows
    }

    fn hijacked(&self, family: Family) -> Vec<Flow> {
        let Some(more) = &self.surroundings else { return Vec::new() };
        let (pod, to) = (&self.pod.namespaces, more.hijacked.address.get(family));
        let first = self.pod.underlay.get(family);
        let start = |who: &str, is_bound: bool, source| {
            let nic = self.remote_nic(is_bound);
            // What has an address of the underlay, the node does not masquerade.
            let sources = if nic.is_some() { self.node_sources(family) } else { vec![source] };
            flow(&format!("{who} to hijackCIDR"), pod, pod, to)
                .seen_by(&more.hijacked.namespaces, &sources)
                .leaves_by(nic)
        };
        let socket = format!("{} socket", self.setting.first_underlay_nic());
        let unbound = start("pod", false, self.own_source(family)).by(EVERY);
        [unbound, start(&socket, true, first).bound(first).by(EVERY)].concat()
    }
}
