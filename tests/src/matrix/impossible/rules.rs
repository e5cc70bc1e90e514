//! What rules cannot do (`dataplane: policy`): they choose a route, and translate nothing.

use spiderpool_core::ip::Family;

use super::{Cell, Certainty, Impossible};
use crate::matrix::{DefaultNetwork, Mode, Nics, Pools};
use crate::probe::Protocol;

/// All of it.
pub(super) const LINES: &[Impossible] = &[
    Impossible {
        reason: "The underlay's gateway is on the way, as with programs.",
        certainty: Certainty::Always,
        applies: |cell| {
            // What has net1's address is answered there.
            cell.is_dead() && (cell.goes_by_gateway() || cell.flow == "net1 socket to hijackCIDR")
        },
    },
    Impossible {
        reason: "A pool without a gateway has no next hop off its link.",
        certainty: Certainty::Always,
        applies: |cell| {
            let off_link = cell.is_socket_to("outside") || cell.is_to_nic_from("outside");
            cell.setting.pools == Pools::NoGateway && off_link
        },
    },
    Impossible {
        reason: "Cilium, and a switch with port security, drop what does not carry eth0's address, in both directions.",
        certainty: Certainty::Always,
        applies: |cell| {
            let asked = matches!(cell.called(), Some(Nic::Net1 | Nic::Further)) && cell.comes_by_own_node();
            let asks = cell.is_bound() && !cell.is_socket_to("outside");
            cell.setting.network != DefaultNetwork::Calico && (asked || asks)
        },
    },
    Impossible {
        reason: "A UDP server on the wildcard address answers with the source of the route back, and that is another NIC's.",
        certainty: Certainty::Always,
        applies: |cell| cell.is_answered_by_other_source(),
    },
    Impossible {
        reason: "The answer comes straight to the underlay NIC: the node sees one direction of the connection, and drops the rest of it as \
            invalid.",
        certainty: Certainty::Always,
        applies: |cell| cell.protocol == Protocol::Tcp && cell.is_socket_to("remote pod"),
    },
    Impossible {
        reason: "The node does not masquerade what has net1's address: the answer comes by net1, and the node drops the rest of the \
            connection, as in 5.",
        certainty: Certainty::Always,
        applies: |cell| cell.protocol == Protocol::Tcp && cell.flow == "net1 socket to hijackCIDR",
    },
    Impossible {
        reason: "Pods of one switch answer each other directly, past kube-proxy, as with programs.",
        certainty: Certainty::Always,
        applies: |cell| cell.is_answered_past_proxy(),
    },
    Impossible {
        reason: "The pod's way to overlay pods is eth0: the node sees the answer alone.",
        certainty: Certainty::Always,
        applies: |cell| cell.flow.starts_with("unmasqueraded remote pod to "),
    },
];

/// A NIC of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nic {
    Eth0,
    Net1,
    Further,
}

impl Cell<'_> {
    /// A datagram for a server on the wildcard address, whose answer the kernel gives another NIC's address.
    pub(super) fn is_answered_by_other_source(&self) -> bool {
        let is_other = |called| called != self.route_back(called);
        self.protocol == Protocol::Udp && self.called().is_some_and(is_other)
    }

    /// The NIC whose address a flow ends at.
    fn called(&self) -> Option<Nic> {
        let (_, to) = self.flow.split_once(" to ")?;
        let to = to.rsplit_once('(').map_or(to, |(_, named)| named.trim_end_matches(')'));
        match to.strip_prefix("its own ").unwrap_or(to) {
            "eth0" | "host port" => Some(Nic::Eth0),
            "net1" => Some(Nic::Net1),
            "further NIC" => Some(Nic::Further),
            _ => None,
        }
    }

    /// Whether the pod's node hands over what ends at the pod.
    fn comes_by_own_node(&self) -> bool {
        let is_published = ["NodePort", "load balancer", "ClusterIP", "host port"];
        let starts = ["node to ", "pod of own node to "];
        let is_published =
            is_published.iter().any(|way| self.flow.contains(way)) && !self.is_via_other_node();
        is_published || starts.iter().any(|start| self.flow.starts_with(start))
    }

    fn is_via_other_node(&self) -> bool {
        self.flow.contains("of other node")
    }

    /// By which NIC the pod's routes lead to whom it sees as the client.
    fn route_back(&self, called: Nic) -> Nic {
        let keeps_client = self.flow.contains(" Local ") || self.flow.ends_with(" to host port");
        let of_default = if self.default_is_net1() { Nic::Net1 } else { Nic::Eth0 };
        // The first NIC's address is also the one with which an underlay pod calls the cluster.
        let is_underlay = self.setting.mode == Mode::Underlay;
        let comes_by_overlay = !is_underlay && self.flow == "remote pod to eth0"
            || self.flow.starts_with("unmasqueraded remote pod");
        let comes_by_node = self.comes_by_own_node() && !keeps_client;
        // With IPv6 it chooses the address that is nearest to the pod's, where it sends or masquerades.
        let keeps_pod =
            self.setting.network == DefaultNetwork::Ovs && self.flow.starts_with("pod of own node");
        let is_nearest = is_underlay && self.family == Family::V6 && !keeps_pod;
        if comes_by_node && is_nearest && !self.has_one_master() {
            return called;
        }
        if comes_by_node || comes_by_overlay {
            return Nic::Eth0;
        }
        let first = if is_underlay { Nic::Eth0 } else { Nic::Net1 };
        let is_neighbor =
            ["underlay client", "remote net1", "net1 of pod"].iter().any(|from| self.flow.starts_with(from));
        let by_underlay = self.flow.starts_with("remote pod")
            || self.flow.starts_with("other node") && !keeps_client
            || self.is_via_other_node()
            || is_neighbor && !keeps_client;
        if by_underlay && (is_underlay || called != Nic::Eth0) {
            // Who comes by the underlay has an address there; of NICs in one subnet the first has the route.
            return if self.has_one_master() { first } else { called };
        }
        if is_neighbor { first } else { of_default }
    }

    fn has_one_master(&self) -> bool {
        matches!(self.setting.nics, Nics::TwoOfOneMaster | Nics::ThreeOfOneMaster)
    }

    /// By a socket that is bound to an underlay NIC's address.
    fn is_bound(&self) -> bool {
        self.flow.contains(" socket to ")
    }
}
