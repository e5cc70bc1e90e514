//! The dimensions of the flow matrix: in what kinds of pods, on what kinds of nodes, flows have to work.
//!
//! A new value is a line here, and what the lab does for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use spiderpool_core::coordinator::Dataplane;

/// SpiderCoordinator's `spec.dataplane`: programs on the pod's NICs, or rules.
pub const DATAPLANES: [Dataplane; 2] = [Dataplane::Ebpf, Dataplane::Policy];

/// An enumeration whose values are listed and have names.
macro_rules! dimension {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// What reports call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

dimension! {
    /// SpiderCoordinator's `spec.mode`.
    Mode {
        /// eth0 is the default network's.
        Overlay = "overlay",
        /// eth0 is on the underlay, and veth0 leads to the node.
        Underlay = "underlay",
    }
}

dimension! {
    /// Whose stand-in gives pods their eth0.
    DefaultNetwork {
        /// A /32 behind 169.254.1.1, which the strict host end answers for.
        Calico = "Calico-like",
        /// A /32 behind a host end that lets nothing pass but packets from and to eth0's address.
        Cilium = "Cilium-like",
        /// A port of a switch whose router is another port; not masqueraded towards the underlay.
        Ovs = "OVS-like",
    }
}

dimension! {
    /// How kube-proxy works.
    ProxyMode {
        /// By nftables.
        Nftables = "nftables",
        /// By iptables.
        Iptables = "iptables",
    }
}

dimension! {
    /// Which NIC keeps the pod's default route.
    DefaultRoute {
        /// The first NIC: the overlay's, in underlay mode one on the underlay.
        Eth0 = "eth0",
        /// The second one, on the underlay.
        Net1 = "net1",
    }
}

dimension! {
    /// The pod's underlay NICs.
    Nics {
        /// A single one.
        One = "1 NIC",
        /// Two in the same subnet.
        TwoOfOneMaster = "2 NICs of one master",
        /// Two in different underlays.
        TwoMasters = "2 NICs of 2 masters",
        /// Three in the same subnet.
        ThreeOfOneMaster = "3 NICs of one master",
        /// Three in different underlays.
        ThreeMasters = "3 NICs of 3 masters",
    }
}

dimension! {
    /// SpiderCoordinator's `spec.ebpf.routeHints`, by the value's name there.
    RouteHints {
        /// Pods get them for what other routes, or in IPv6 other sources, would send by an underlay NIC.
        Auto = "auto",
        /// Nobody gets them.
        Never = "never",
    }
}

dimension! {
    /// The SpiderIPPools of the underlay NICs.
    Pools {
        /// They name the subnet's gateway.
        Gateway = "pools with gateway",
        /// They name none: the subnet is all there is.
        NoGateway = "pools without gateway",
    }
}

dimension! {
    /// Whether the underlay's gateway answers.
    Gateway {
        /// It does.
        Alive = "alive",
        /// It does, but the pod has not asked for its MAC yet.
        Cold = "cold",
        /// It does not, and the pod has forgotten its MAC.
        Dead = "dead",
    }
}

impl DefaultRoute {
    /// The NIC's name.
    pub fn nic(self) -> &'static str {
        self.name()
    }
}

impl Nics {
    /// In which underlay each of them is, by number.
    pub fn underlays(self) -> &'static [u8] {
        match self {
            Self::One => &[1],
            Self::TwoOfOneMaster => &[1, 1],
            Self::TwoMasters => &[1, 2],
            Self::ThreeOfOneMaster => &[1, 1, 1],
            Self::ThreeMasters => &[1, 2, 3],
        }
    }
}
