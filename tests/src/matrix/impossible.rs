//! What cannot work on principle, and why. Everything else has to.

use spiderpool_core::ip::Family;

use super::{DefaultNetwork, DefaultRoute, Gateway, Pools, RouteHints, Setting};
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

/// All of them.
pub const IMPOSSIBLE: &[Impossible] = &[
    Impossible {
        reason: "The underlay's gateway is on the way.",
        certainty: Certainty::Always,
        applies: |cell| {
            let by_default = cell.flow == "pod to outside" && cell.default_is_net1();
            cell.is_dead() && (cell.is_socket_to("outside") || cell.is_to_nic_from("outside") || by_default)
        },
    },
    Impossible {
        reason: "A pool without a gateway has no next hop off its link. Answers go to the last sender.",
        certainty: Certainty::Always,
        applies: |cell| cell.setting.pools == Pools::NoGateway && cell.is_socket_to("outside"),
    },
    Impossible {
        reason: "Without route hints, a destination in the underlay's own subnet that nobody answers for never reaches a program.",
        certainty: Certainty::Always,
        applies: |cell| cell.hints_are_off() && cell.flow.contains("to load balancer announced by own node"),
    },
    Impossible {
        reason: "Without masquerading, the pod would get a packet with its own source.",
        certainty: Certainty::Always,
        applies: |cell| {
            let itself =
                cell.flow.ends_with("(its own net1)") || cell.flow.ends_with("(its own further NIC)");
            cell.setting.network == DefaultNetwork::Ovs && itself
        },
    },
    Impossible {
        reason: "Pods of one switch answer each other directly, past kube-proxy. Such networks have load balancers of their own.",
        certainty: Certainty::Always,
        applies: |cell| {
            cell.setting.network == DefaultNetwork::Ovs
                && cell.flow.ends_with("to ClusterIP (pod of own node)")
        },
    },
    Impossible {
        reason: "The client is in no known subnet, as other nodes may be, and the default route is on net1 or, with IPv6, the answer has \
            an address of the underlay (with the default route on net1 also that of a UDP server on the wildcard address): the \
            kernel resolves the gateway before any program runs. IPv6 answers with eth0's address go by its own default route.",
        certainty: Certainty::AtFirst,
        applies: |cell| {
            let keeps_client = cell.flow.contains("NodePort Local")
                || cell.flow.contains("load balancer Local")
                || cell.flow.contains("host port");
            let asks = cell.flow.starts_with("outside") && keeps_client
                || cell.flow.starts_with("other node to NodePort Local")
                || cell.flow.starts_with("other node to host port")
                || cell.flow.starts_with("other node to eth0")
                || cell.flow.starts_with("outside to NodePort Cluster of other node");
            let waits = match cell.family {
                Family::V4 => cell.default_is_net1(),
                Family::V6 => cell.answers_with_underlay_address(),
            };
            cell.is_dead() && asks && waits
        },
    },
    Impossible {
        reason: "Without route hints, an IPv6 answer or socket with an underlay address waits for the underlay's gateway.",
        certainty: Certainty::AtFirst,
        applies: |cell| {
            let has_gateway = cell.setting.pools == Pools::Gateway;
            cell.is_dead()
                && cell.hints_are_off()
                && has_gateway
                && cell.family == Family::V6
                && cell.names_underlay_nic()
        },
    },
];

impl Cell<'_> {
    /// The first of [`IMPOSSIBLE`] that names it.
    pub fn impossible(&self) -> Option<usize> {
        IMPOSSIBLE.iter().position(|line| (line.applies)(self))
    }

    fn is_dead(&self) -> bool {
        self.gateway == Gateway::Dead
    }

    fn default_is_net1(&self) -> bool {
        self.setting.default_route == DefaultRoute::Net1
    }

    fn hints_are_off(&self) -> bool {
        self.setting.hints == RouteHints::Never
    }

    fn names_underlay_nic(&self) -> bool {
        self.flow.contains("net1") || self.flow.contains("further NIC")
    }

    /// Named, or given by the kernel before any program runs: to what a UDP server on the wildcard address sends.
    fn answers_with_underlay_address(&self) -> bool {
        self.names_underlay_nic() || self.protocol == Protocol::Udp && self.default_is_net1()
    }

    /// A socket that is bound to an underlay NIC's address.
    fn is_socket_to(&self, to: &str) -> bool {
        ["net1", "further NIC"].iter().any(|nic| self.flow == format!("{nic} socket to {to}"))
    }

    /// To an underlay NIC's address, and by that NIC.
    fn is_to_nic_from(&self, from: &str) -> bool {
        ["net1", "further NIC"].iter().any(|nic| self.flow == format!("{from} to {nic}"))
    }
}
