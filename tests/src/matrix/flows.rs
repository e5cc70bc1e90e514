//! The flows, each in words that are the same in every setting and family.

mod inward;
mod outward;
mod published;
mod services;

use spiderpool_core::ip::Family;

use super::{Cell, Gateway, Hosts};
use crate::flow::Flow;
use crate::probe::Protocol;

/// What has ports.
const PORTS: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];
/// Everything that is sent.
const EVERY: &[Protocol] = &[Protocol::Tcp, Protocol::Udp, Protocol::Ping];

impl Hosts {
    /// All flows of one family that can work while the underlay's gateway does.
    pub fn flows(&self, family: Family) -> Vec<Flow> {
        let mut flows = self.all_flows(family);
        flows.retain(|flow| self.is_served(flow));
        flows
    }

    /// Those that cannot.
    pub fn flows_beyond(&self, family: Family) -> Vec<Flow> {
        let mut flows = self.all_flows(family);
        flows.retain(|flow| !self.is_served(flow));
        flows
    }

    fn is_served(&self, flow: &Flow) -> bool {
        let cell = Cell {
            setting: self.setting,
            gateway: Gateway::Alive,
            family: flow.family(),
            flow: &flow.name,
            protocol: flow.probe.protocol,
        };
        cell.impossible().is_none()
    }

    /// All flows of one family, also those that cannot work.
    pub fn all_flows(&self, family: Family) -> Vec<Flow> {
        [self.outward(family), self.services(family), self.inward(family), self.published(family)].concat()
    }

    /// The flows that need no underlay gateway, for when it is dead.
    pub fn flows_without_gateway(&self, family: Family) -> Vec<Flow> {
        let kept = ["pod to ClusterIP (overlay pod)", "pod to own node", "pod to remote pod", "node to net1"];
        let mut flows = self.flows(family);
        flows.retain(|flow| kept.contains(&flow.name.as_str()));
        for flow in &mut flows {
            flow.name.push_str(", underlay gateway dead");
        }
        flows
    }
}
