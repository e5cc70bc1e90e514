//! Destinations by CIDR: keys and values of `cluster_cidrs`.

use crate::addr::Addr;

/// What to do with a destination.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CidrAction {
    /// Leave it where the routing table sends it.
    Stay = 0,
    /// Send it by the cluster NIC.
    Steer = 1,
}

/// Why a CIDR is in the map.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CidrKind {
    /// Service CIDR.
    Service = 1,
    /// CIDR of overlay pods.
    Pod = 2,
    /// `hijackCIDR` of the coordinator.
    Hijack = 3,
    /// Address of the pod's own node.
    Node = 4,
    /// Subnet of a NIC of the pod.
    Connected = 5,
    /// Route of the pool.
    PoolRoute = 6,
    /// Address of the pod's own node that is the next hop of a route by an underlay NIC: its MAC is asked for there.
    NodeGateway = 7,
}

/// What the trie `cluster_cidrs` compares, after the prefix length in bits.
///
/// Profile and zeros are always part of the prefix; they put the address on a word boundary.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CidrKey {
    /// The set of CIDRs.
    pub profile: u16,
    #[doc(hidden)]
    pub _pad: u16,
    /// Network address.
    pub addr: Addr,
}

/// Prefix length of a key that must match entirely.
pub const CIDR_KEY_BITS: u32 = 160;

/// Value of `cluster_cidrs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CidrEntry {
    /// A [`CidrAction`].
    pub action: u8,
    /// A [`CidrKind`].
    pub kind: u8,
    #[doc(hidden)]
    pub _pad: [u8; 2],
}

impl CidrKey {
    /// Key of an address or a network address.
    #[inline(always)]
    pub const fn new(profile: u16, addr: Addr) -> Self {
        Self { profile, _pad: 0, addr }
    }

    /// Prefix length in the trie of a prefix of `len` bits (IPv4: of 32, IPv6: of 128).
    pub const fn prefix_len(addr: Addr, len: u8) -> u32 {
        let head = if addr.is_v4() { 32 + 96 } else { 32 };
        head + len as u32
    }
}

impl CidrEntry {
    /// No prefix holds the address: left where the routing table sends it.
    pub const NONE: Self = Self { action: CidrAction::Stay as u8, kind: 0, _pad: [0; 2] };

    /// Value for an action and a kind.
    pub const fn new(action: CidrAction, kind: CidrKind) -> Self {
        Self { action: action as u8, kind: kind as u8, _pad: [0; 2] }
    }
}

impl CidrKind {
    /// The kind that a map value holds.
    pub const fn from_value(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Service,
            2 => Self::Pod,
            3 => Self::Hijack,
            4 => Self::Node,
            5 => Self::Connected,
            6 => Self::PoolRoute,
            7 => Self::NodeGateway,
            _ => return None,
        })
    }
}

impl CidrAction {
    /// The action that a map value holds.
    pub const fn from_value(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Stay,
            1 => Self::Steer,
            _ => return None,
        })
    }
}
