//! What a pod whose NICs are all on the underlay cannot do.

use super::{Cell, Certainty, Impossible};
use crate::matrix::{DefaultNetwork, Pools, ProxyMode};
use crate::probe::Protocol;

/// By programs.
pub(super) const PROGRAMS: &[Impossible] = &[
    GATEWAY,
    NO_GATEWAY,
    ONE_DIRECTION,
    Impossible {
        reason: "Without route hints, a destination in the underlay's own subnet that nobody answers for never reaches a program.",
        certainty: Certainty::Always,
        applies: |cell| cell.hints_are_off() && cell.flow.contains("to load balancer announced by own node"),
    },
    Impossible {
        reason: "The client is in no known subnet, as other nodes may be: the kernel resolves the gateway before any program runs.",
        certainty: Certainty::AtFirst,
        applies: |cell| cell.is_dead() && cell.answers_beyond_subnets(),
    },
];

/// By rules.
pub(super) const RULES: &[Impossible] = &[
    GATEWAY,
    NO_GATEWAY,
    ONE_DIRECTION,
    Impossible {
        reason: "A UDP server on the wildcard address answers with the source of the route back, and that is another NIC's.",
        certainty: Certainty::Always,
        applies: |cell| cell.is_answered_by_other_source(),
    },
    Impossible {
        reason: "The pod's way to overlay pods is its node, which sees the answer alone and may drop it as in 3.",
        certainty: Certainty::Always,
        applies: |cell| {
            let is_tracked = cell.protocol != Protocol::Udp;
            is_tracked && cell.drops_invalid() && cell.flow.starts_with("unmasqueraded remote pod to ")
        },
    },
    Impossible {
        reason: "The client is in no known subnet: its answer waits for the gateway's MAC.",
        certainty: Certainty::AtFirst,
        applies: |cell| cell.is_dead() && cell.answers_beyond_subnets(),
    },
];

const GATEWAY: Impossible = Impossible {
    reason: "The underlay's gateway is on the way of request or answer.",
    certainty: Certainty::Always,
    applies: |cell| cell.is_dead() && (cell.goes_by_gateway() || cell.flow.ends_with(" to hijackCIDR")),
};

const NO_GATEWAY: Impossible = Impossible {
    reason: "A pool without a gateway: the pod has no route off its links.",
    certainty: Certainty::Always,
    applies: |cell| {
        let off_link = cell.goes_by_gateway() || cell.answers_beyond_subnets();
        cell.setting.pools == Pools::NoGateway && off_link
    },
};

const ONE_DIRECTION: Impossible = Impossible {
    reason: "The answer comes straight to the underlay NIC: the node sees one direction of the connection, and drops the rest of it if \
        kube-proxy (iptables) or the default network (Calico) drops what is invalid for conntrack.",
    certainty: Certainty::Always,
    applies: |cell| {
        let is_answered_there =
            cell.flow.ends_with(" to remote pod") || cell.flow.ends_with(" to hijackCIDR");
        cell.protocol == Protocol::Tcp && is_answered_there && cell.drops_invalid()
    },
};

impl Cell<'_> {
    /// The pod sees a client that is in no subnet of its NICs.
    fn answers_beyond_subnets(&self) -> bool {
        let starts = ["outside to NodePort", "outside to routed load balancer", "other node to NodePort"];
        let keeps_client =
            self.flow.contains(" Local ") && starts.iter().any(|start| self.flow.starts_with(start));
        keeps_client || matches!(self.flow, "outside to host port" | "other node to host port")
    }

    /// Whether the node drops what is invalid for conntrack. kube-proxy with nftables does not.
    fn drops_invalid(&self) -> bool {
        self.setting.network == DefaultNetwork::Calico || self.setting.proxy == ProxyMode::Iptables
    }
}
