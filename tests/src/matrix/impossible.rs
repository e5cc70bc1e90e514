//! What cannot work on principle, and why. Everything else has to.

mod programs;
mod rules;
mod underlay;

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::{DefaultNetwork, DefaultRoute, Gateway, Mode, RouteHints, Setting};
use crate::probe::Protocol;

/// One flow in one setting.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// What the pod is like.
    pub setting: Setting,
    /// What the underlay's gateway does.
    pub gateway: Gateway,
    /// IPv4 or IPv6.
    pub family: Family,
    /// The flow's name.
    pub flow: &'a str,
    /// How it is sent.
    pub protocol: Protocol,
}

/// Whether a cell of a line can work nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It fails; if it works, the line is wrong.
    Always,
    /// IPv6 takes another default route when neighbor discovery has failed, after seconds; then it may work.
    AtFirst,
}

/// Cells with a reason in common.
#[derive(Debug)]
pub struct Impossible {
    /// Why they do not work, for the documents.
    pub reason: &'static str,
    /// Whether they always fail.
    pub certainty: Certainty,
    /// Which they are.
    pub applies: fn(&Cell<'_>) -> bool,
}

/// All that a dataplane cannot do for pods of a mode.
pub fn impossible(dataplane: Dataplane, mode: Mode) -> &'static [Impossible] {
    match (mode, dataplane) {
        (Mode::Overlay, Dataplane::Ebpf) => programs::LINES,
        (Mode::Overlay, Dataplane::Policy) => rules::LINES,
        (Mode::Underlay, Dataplane::Ebpf) => underlay::PROGRAMS,
        (Mode::Underlay, Dataplane::Policy) => underlay::RULES,
    }
}

impl Cell<'_> {
    /// The first of [`impossible`] that names it, by number.
    pub fn impossible(&self) -> Option<usize> {
        impossible(self.setting.dataplane, self.setting.mode).iter().position(|line| (line.applies)(self))
    }

    fn is_dead(&self) -> bool {
        self.gateway == Gateway::Dead
    }

    /// The underlay's gateway is on the way of request or answer.
    fn goes_by_gateway(&self) -> bool {
        let by_default =
            self.flow == "pod to outside" && (self.setting.mode == Mode::Underlay || self.default_is_net1());
        self.is_socket_to("outside") || self.is_to_nic_from("outside") || by_default
    }

    /// On a switch, a Service's endpoint answers a pod of its own node directly.
    fn is_answered_past_proxy(&self) -> bool {
        self.setting.network == DefaultNetwork::Ovs && self.flow.ends_with("to ClusterIP (pod of own node)")
    }

    fn default_is_net1(&self) -> bool {
        self.setting.default_route == DefaultRoute::Net1
    }

    fn hints_are_off(&self) -> bool {
        self.setting.hints == RouteHints::Never
    }

    /// What flows call the NICs on the underlay.
    fn underlay_kinds(&self) -> &'static [&'static str] {
        match self.setting.mode {
            Mode::Overlay => &["net1", "further NIC"],
            Mode::Underlay => &["eth0", "net1", "further NIC"],
        }
    }

    fn names_underlay_nic(&self) -> bool {
        self.underlay_kinds().iter().any(|kind| self.flow.contains(kind))
    }

    /// Named, or given by the kernel before any program runs: to what a UDP server on the wildcard address sends.
    fn answers_with_underlay_address(&self) -> bool {
        self.names_underlay_nic() || self.protocol == Protocol::Udp && self.default_is_net1()
    }

    /// A socket that is bound to an underlay NIC's address.
    fn is_socket_to(&self, to: &str) -> bool {
        self.underlay_kinds().iter().any(|nic| self.flow == format!("{nic} socket to {to}"))
    }

    /// To an underlay NIC's address, and by that NIC.
    fn is_to_nic_from(&self, from: &str) -> bool {
        self.underlay_kinds().iter().any(|nic| self.flow == format!("{from} to {nic}"))
    }
}
