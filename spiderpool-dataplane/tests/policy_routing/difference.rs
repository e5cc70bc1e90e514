//! Where the programs do something else than policy routing on purpose.
//!
//! Most of it an administrator can write as rules too. Those rules are in the pod that the programs are compared with, so that what
//! they do is compared as well ([`Difference::encoded_as`]). What no rule can express is an [`Exception`]: it explains one pair of
//! observations, and nothing else about it may differ.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::topology::{GATEWAY, OTHER_NODE};
use super::wire::Mac;
use super::world::Left;

/// A decision of the design that goes beyond "replies leave by the NIC that they came in by, cluster CIDRs by eth0, otherwise the
/// source decides".
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    /// Why it is so (docs/dataplane.md).
    pub(crate) why: &'static str,
    pub(crate) encoded_as: &'static str,
}

/// All of them.
pub(crate) const DIFFERENCES: [Difference; 14] = [
    Difference {
        name: "translation",
        why: "the default network drops, and its policies do not know, what leaves eth0 with another address",
        encoded_as: "nftables: snat of net1's source on eth0, for flows that the pod begins",
    },
    Difference {
        name: "unknown-flow",
        why: "what was not seen to begin cannot be translated, and nothing leaves eth0 with net1's source",
        encoded_as: "nftables: what conntrack calls invalid has the mark of its source's NIC",
    },
    Difference {
        name: "cluster-address",
        why: "eth0's servers are behind policies that the underlay must not go around",
        encoded_as: "nftables: dropped by net1",
    },
    Difference {
        name: "ephemeral-udp",
        why: "calls to ports that clients get are not told from answers, which anybody in the underlay can forge",
        encoded_as: "nftables: by net1 and sp0 untracked, unless from the node; the server is a plain one",
    },
    Difference {
        name: "own-flow",
        why: "nobody in the underlay diverts what the pod has begun",
        encoded_as: "nftables: a set of those flows, which are untracked by net1 and sp0; the server is a plain one",
    },
    Difference {
        name: "service-caller",
        why: "no Service calls by the underlay: somebody has borrowed its address",
        encoded_as: "nftables: its datagrams are untracked by net1; the server is a plain one",
    },
    Difference {
        name: "wildcard-udp",
        why: "a reply keeps the address that it was called by, also where the server does not see to that",
        encoded_as: "the server of the other pod answers with IP_PKTINFO",
    },
    Difference {
        name: "last-sender",
        why: "a caller that is steered may be behind another node, which the gateway cannot send to by the underlay",
        encoded_as: "Exception::LastSender",
    },
    Difference {
        name: "taken-port",
        why: "kernel and programs each choose another port in their own way where a flow's own is taken; the programs also leave \
              alone what a socket has",
        encoded_as: "Exception::TakenPort",
    },
    Difference {
        name: "not-taken-over",
        why: "a UDP flow that came in by eth0 or the node link is not taken over by net1",
        encoded_as: "Exception::NotTakenOver",
    },
    Difference {
        name: "answered-before",
        why: "between two fixed ports, and where it is translated, an answer to a caller that is not recorded looks like a \
              question: what the same caller sends to another address of the same server then is answered by the routing table",
        encoded_as: "Exception::AnsweredBefore",
    },
    Difference {
        name: "clients-port",
        why: "to whom a server has sent first is not remembered where the other side's port is one that clients get: what comes from \
              there is a call",
        encoded_as: "Exception::ClientsPort",
    },
    Difference {
        name: "called-first",
        why: "between two fixed ports who has spoken first, at whichever address, has called; conntrack tells flows with several \
              addresses apart",
        encoded_as: "Exception::CalledFirst",
    },
    Difference {
        name: "hint-ahead",
        why: "an IPv6 look-up is not bound to the NIC that a packet is moved to: a route hint takes it for eth0's, whose gateway \
              is not there; only what is of no known flow goes that way",
        encoded_as: "Exception::HintAhead",
    },
];

/// One that no rule expresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exception {
    LastSender,
    TakenPort,
    NotTakenOver,
    AnsweredBefore,
    ClientsPort,
    CalledFirst,
    HintAhead,
}

/// What is known about the step that two observations are of.
#[derive(Debug, Default, Clone)]
pub(crate) struct Context {
    /// From where the flow's packets have come by net1, if the programs may record it.
    pub(crate) senders: BTreeSet<Mac>,
    /// They do record it.
    pub(crate) is_recorded: bool,
    /// The port of the pod's socket.
    pub(crate) own_port: u16,
    /// Another flow or socket has it on eth0's address.
    pub(crate) port_is_taken: bool,
    /// How this caller has called this server: by which NIC, at which address.
    pub(crate) calls: BTreeSet<(&'static str, SocketAddr)>,
    /// The ports of both sides are none that clients get.
    pub(crate) is_fixed: bool,
    /// What a socket without address sends to the other side is translated.
    pub(crate) is_translated: bool,
    /// The pod has sent to the other side before that has called.
    pub(crate) has_spoken_first: bool,
    /// The other side has called before the pod has sent to it.
    pub(crate) called_first: bool,
    /// By which NIC the last datagram came, for which address.
    pub(crate) last_call: Option<(&'static str, SocketAddr)>,
    /// The last call came by net1.
    pub(crate) is_called_by_net1: bool,
}

impl Context {
    /// Who has called by another node alone is answered there, where the kernel's route leads to the gateway.
    pub(crate) fn allows_next_hop(&self, ours: &Left) -> bool {
        let by_other_node = self.is_recorded && self.senders.iter().eq([&OTHER_NODE]);
        !by_other_node || ours.nic != "net1" || ours.next_hop == OTHER_NODE
    }

    /// What explains that the programs sent `ours` where the kernel sent `kernels`.
    pub(crate) fn explain(&self, ours: &Left, kernels: &Left) -> Option<Exception> {
        let mut to_gateway = *ours;
        to_gateway.next_hop = GATEWAY;
        if self.senders.contains(&OTHER_NODE)
            && ours.nic == "net1"
            && ours.next_hop == OTHER_NODE
            && to_gateway == *kernels
        {
            return Some(Exception::LastSender);
        }
        let mut same_port = *ours;
        same_port.header.src.set_port(kernels.header.src.port());
        if self.port_is_taken && ours.nic == "eth0" && same_port == *kernels {
            return Some(Exception::TakenPort);
        }
        let is_answer = (ours.header.kind, ours.header.dst) == (kernels.header.kind, kernels.header.dst);
        if is_answer && self.calls.contains(&(ours.nic, ours.header.src)) {
            if self.is_called_by_net1 && ours.nic != "net1" {
                return Some(Exception::NotTakenOver);
            }
            if self.is_fixed || self.is_translated {
                return Some(Exception::AnsweredBefore);
            }
        }
        let is_last = self.last_call == Some((ours.nic, ours.header.src));
        if is_answer && is_last && self.has_spoken_first && !self.is_fixed {
            return Some(Exception::ClientsPort);
        }
        if is_answer && is_last && self.is_fixed && self.called_first {
            return Some(Exception::CalledFirst);
        }
        None
    }
}
