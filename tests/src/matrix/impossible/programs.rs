//! What programs cannot do (`dataplane: ebpf`).

use spiderpool_core::ip::Family;

use super::{Certainty, Impossible};
use crate::matrix::{DefaultNetwork, Pools};

/// All of it.
pub(super) const LINES: &[Impossible] = &[
    Impossible {
        reason: "The underlay's gateway is on the way.",
        certainty: Certainty::Always,
        applies: |cell| cell.is_dead() && cell.goes_by_gateway(),
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
        applies: |cell| cell.is_answered_past_proxy(),
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
