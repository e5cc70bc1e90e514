//! What the pod starts, but for Services.

use spiderpool_core::ip::Family;

use super::EVERY;
use crate::flow::Flow;
use crate::matrix::builder::flow;
use crate::matrix::{DefaultRoute, Hosts};

impl Hosts {
    pub(super) fn outward(&self, family: Family) -> Vec<Flow> {
        let (pod, node) = (&self.pod.namespaces, &self.node);
        let (eth0, net1) = (self.pod.main.get(family), self.pod.underlay.get(family));
        let (node_ip, node_net1) = (node.main.get(family), node.underlay.get(family));
        let (remote, near) = (&self.overlay_pod.0, &self.neighbor);
        let (remote_ip, outside_ip) = (remote.address.get(family), self.outside.address.get(family));
        let underlay_ip = self.underlay_pod.0.underlay.get(family);
        let start = |name: &str, to| flow(name, pod, pod, to);
        let mut flows = Vec::new();
        flows.extend(
            start("pod to own node", node_ip).seen_by(&node.namespaces, &[eth0]).leaves_by("eth0").by(EVERY),
        );
        flows.extend(
            start("pod to own node's underlay address", node_net1)
                .seen_by(&node.namespaces, &[eth0])
                .leaves_by("eth0")
                .by(EVERY),
        );
        flows.extend(
            start("pod to remote pod", remote_ip)
                .seen_by(&remote.namespaces, &[eth0])
                .leaves_by("eth0")
                .by(EVERY),
        );
        flows.extend(
            start("pod to pod of own node", near.address.get(family))
                .seen_by(&near.namespaces, &[eth0])
                .leaves_by("eth0")
                .by(EVERY),
        );
        flows.extend(
            start("pod to remote net1", underlay_ip)
                .seen_by(&self.underlay_pod.0.namespaces, &[net1])
                .leaves_by("net1")
                .by(EVERY),
        );
        let (source, nic) = match self.setting.default_route {
            DefaultRoute::Eth0 => (self.node_sources(family), "eth0"),
            DefaultRoute::Net1 => (vec![net1], "net1"),
        };
        flows.extend(
            start("pod to outside", outside_ip)
                .seen_by(&self.outside.namespaces, &source)
                .leaves_by(nic)
                .by(EVERY),
        );
        for (nic, own) in self.underlay_nics(family) {
            let kind = if nic == "net1" { nic } else { "further NIC" };
            let start = |what: &str, to| flow(&format!("{kind} socket to {what}"), pod, pod, to).bound(own);
            flows.extend(
                start("own node", node_ip)
                    .seen_by(&node.namespaces, &[self.bound_source(own)])
                    .leaves_by("eth0")
                    .by(EVERY),
            );
            let to_remote =
                start("remote pod", remote_ip).seen_by(&remote.namespaces, &[self.bound_source(own)]);
            let to_remote = match self.bound_nic() {
                Some(nic) => to_remote.leaves_by(nic),
                None => to_remote,
            };
            flows.extend(to_remote.by(EVERY));
            flows.extend(
                start("outside", outside_ip)
                    .seen_by(&self.outside.namespaces, &[own])
                    .leaves_by(nic)
                    .by(EVERY),
            );
        }
        flows.extend(self.hijacked(family));
        flows
    }

    fn hijacked(&self, family: Family) -> Vec<Flow> {
        let Some(more) = &self.surroundings else { return Vec::new() };
        let (pod, to) = (&self.pod.namespaces, more.hijacked.address.get(family));
        let net1 = self.pod.underlay.get(family);
        let start =
            |name: &str, sources: &[_]| flow(name, pod, pod, to).seen_by(&more.hijacked.namespaces, sources);
        let sources = self.node_sources(family);
        let unbound = start("pod to hijackCIDR", &sources).leaves_by("eth0");
        // Rules let it have net1's address, which the node does not masquerade.
        let bound = match self.bound_nic() {
            Some(nic) => start("net1 socket to hijackCIDR", &sources).leaves_by(nic),
            None => start("net1 socket to hijackCIDR", &[net1]),
        };
        [unbound.by(EVERY), bound.bound(net1).by(EVERY)].concat()
    }
}
