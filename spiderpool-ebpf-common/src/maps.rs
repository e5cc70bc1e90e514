//! The maps: names, keys and values, exactly as they lie in kernel memory.
//!
//! Plain integers, explicit padding, sizes asserted. Ports are in host byte order, addresses in network byte
//! order (16 bytes, IPv4 mapped), so that `bpftool map dump` can be read. A change of layout here means a
//! new pin directory, or a replaced map where the old one is not worth keeping.

use crate::addr::Addr;

/// Names of the maps, which are also the names of their pins.
pub mod names {
    /// Array by NIC id: [`super::NicEntry`].
    pub const NICS: &str = "nics";
    /// LPM trie: [`super::CidrKey`] after a prefix length, to [`super::CidrEntry`].
    pub const CLUSTER_CIDRS: &str = "cluster_cidrs";
    /// Hash: [`super::AddressKey`] to [`super::AddressEntry`].
    pub const ADDRESSES: &str = "addresses";
    /// LRU hash: [`super::ArrivalKey`] to [`super::ArrivalEntry`].
    pub const ARRIVALS: &str = "arrivals";
    /// Hash: [`super::NatKey`] to [`super::NatEntry`].
    pub const NAT: &str = "nat";
    /// Per-CPU array by NIC id: [`crate::reason::Counters`].
    pub const STATS: &str = "stats";
    /// Program on every NIC's egress.
    pub const EGRESS: &str = "egress";
    /// Program on every NIC's ingress.
    pub const INGRESS: &str = "ingress";
    /// Set to 1 in test runs only: NIC id, time and dice come from `skb->cb`.
    pub const TEST_RUN: &str = "TEST_RUN";
}

/// No entry: the NIC id is not in use.
pub const ROLE_NONE: u8 = 0;
/// The NIC on the cluster's default network, in overlay mode: eth0.
pub const ROLE_CLUSTER: u8 = 1;
/// A NIC on the underlay network: net1 and so on.
pub const ROLE_UNDERLAY: u8 = 2;
/// The private link to the node: sp0; in underlay mode veth0, which is the exit NIC too.
pub const ROLE_NODE_LINK: u8 = 3;

/// With which source cluster traffic leaves by the exit NIC.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitMode {
    /// With the exit NIC's address, into which any other is translated: overlay mode, where the default network drops
    /// foreign sources.
    Translated = 1,
    /// With the source that it has: underlay mode, where the exit NIC has no address of its own.
    AsIs = 2,
}

/// How many underlay NICs a pod can have.
pub const SIBLINGS: usize = 15;

/// What the programs know about one NIC of a pod. A NIC id is never 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicEntry {
    /// One of the `ROLE_` constants.
    pub role: u8,
    /// An [`ExitMode`].
    pub exit_mode: u8,
    /// The pod's id: whose flows and share of the maps these are. Not a NIC id.
    pub pod: u16,
    /// NIC id of the pod's exit NIC, by which cluster traffic leaves: eth0 in overlay mode, veth0 in underlay mode.
    pub exit_nic: u16,
    /// Which set of CIDRs applies.
    pub profile: u16,
    /// Interface index in the pod's namespace.
    pub ifindex: u32,
    /// MTU in bytes, without link header.
    pub mtu: u32,
    /// The NIC's own MAC.
    pub mac: [u8; 6],
    /// MAC of the host end (cluster NIC and node link; zero for underlay NICs).
    pub peer_mac: [u8; 6],
    /// First IPv4 address; zero if it has none.
    pub addr4: [u8; 4],
    /// First IPv6 address; zero if it has none.
    pub addr6: [u8; 16],
    /// NIC ids of the pod's (other) underlay NICs; 0 where there is none.
    pub siblings: [u16; SIBLINGS],
    /// NIC id of the pod's node link; 0 if it has none.
    pub node_link: u16,
}

/// Key of `addresses`: an address of a pod that is not the first of its NIC and family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey {
    /// The pod's id.
    pub pod: u16,
    #[doc(hidden)]
    pub _pad: u16,
    /// The address.
    pub addr: Addr,
}

/// Value of `addresses`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// Id of the NIC that has the address.
    pub nic: u16,
    #[doc(hidden)]
    pub _pad: u16,
}

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
    /// Route that the user asked for.
    PolicyRoute = 7,
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

/// [`ArrivalKey::wildcard`] of an entry for exactly this local address.
pub const EXACT: u8 = 0;
/// [`ArrivalKey::wildcard`] of a UDP entry whatever the local address.
pub const ANY_LOCAL: u8 = 1;

/// Key of `arrivals`: a flow as the pod sees it. ICMP echo: its id as local port, remote port 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArrivalKey {
    /// The pod's id.
    pub pod: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`EXACT`] or [`ANY_LOCAL`], where `local` is zero.
    pub wildcard: u8,
    /// The pod's port, host byte order.
    pub local_port: u16,
    /// The other side's port, host byte order.
    pub remote_port: u16,
    /// The pod's address.
    pub local: Addr,
    /// The other side's address.
    pub remote: Addr,
}

/// Value of `arrivals`: where the flow's packets come in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalEntry {
    /// CLOCK_MONOTONIC, ns; at most a second behind.
    pub last_seen: u64,
    /// The address that the other side called.
    pub local: Addr,
    /// NIC id.
    pub nic: u16,
    /// MAC of who handed the last packet to us.
    pub mac: [u8; 6],
    /// Bits of [`crate::life`].
    pub state: u8,
    #[doc(hidden)]
    pub _pad: [u8; 7],
}

/// [`NatKey::direction`]: the flow as the pod's socket has it.
pub const OUT: u8 = 0;
/// [`NatKey::direction`]: the flow as the cluster sees it.
pub const BACK: u8 = 1;

/// Key of `nat`. ICMP echo: its id as local port, remote port 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatKey {
    /// The pod's id.
    pub pod: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`OUT`]: local is the underlay address. [`BACK`]: local is the cluster address.
    pub direction: u8,
    /// The pod's port, host byte order.
    pub local_port: u16,
    /// The other side's port, host byte order.
    pub remote_port: u16,
    /// The pod's address.
    pub local: Addr,
    /// The other side's address.
    pub remote: Addr,
}

/// Value of `nat`. The [`OUT`] entry holds the flow's state; a [`BACK`] entry counts only while the `OUT`
/// entry that it leads to names it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatEntry {
    /// CLOCK_MONOTONIC, ns ([`OUT`]: at most a second behind; [`BACK`]: when it was made).
    pub last_seen: u64,
    /// What the local address becomes.
    pub addr: Addr,
    /// What the local port becomes, host byte order.
    pub port: u16,
    /// Bits of [`crate::life`].
    pub state: u8,
    #[doc(hidden)]
    pub _pad: [u8; 5],
}

const _: () = assert!(size_of::<NicEntry>() == 80);
const _: () = assert!(size_of::<AddressKey>() == 20);
const _: () = assert!(size_of::<AddressEntry>() == 4);
const _: () = assert!(size_of::<CidrKey>() == 20);
const _: () = assert!(size_of::<CidrEntry>() == 4);
const _: () = assert!(size_of::<ArrivalKey>() == 40);
const _: () = assert!(size_of::<ArrivalEntry>() == 40);
const _: () = assert!(size_of::<NatKey>() == 40);
const _: () = assert!(size_of::<NatEntry>() == 32);

impl NicEntry {
    /// With which source the pod's cluster traffic leaves.
    #[inline(always)]
    pub const fn exit_mode(&self) -> ExitMode {
        if self.exit_mode == ExitMode::AsIs as u8 { ExitMode::AsIs } else { ExitMode::Translated }
    }

    /// The NIC's address of the family that `like` has.
    #[inline(always)]
    pub const fn addr(&self, like: Addr) -> Addr {
        if like.is_v4() { Addr::v4(self.addr4) } else { Addr::v6(self.addr6) }
    }

    /// Whether `addr` is this NIC's first of its family. An address that is not set belongs to nobody.
    #[inline(always)]
    pub fn owns(&self, addr: Addr) -> bool {
        self.addr(addr) == addr && !addr.is_unspecified()
    }
}

impl AddressKey {
    /// Key of an address of a pod.
    #[inline(always)]
    pub const fn new(pod: u16, addr: Addr) -> Self {
        Self { pod, _pad: 0, addr }
    }
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
            7 => Self::PolicyRoute,
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

#[cfg(feature = "user")]
mod pod {
    use super::{
        AddressEntry, AddressKey, ArrivalEntry, ArrivalKey, CidrEntry, CidrKey, NatEntry, NatKey, NicEntry,
    };
    use crate::reason::Counters;

    macro_rules! pod {
        ($($t:ty),*) => { $(
            // SAFETY: repr(C), only integers and arrays of them, padding explicit (sizes asserted).
            unsafe impl aya::Pod for $t {}
        )* };
    }
    pod!(
        NicEntry,
        AddressKey,
        AddressEntry,
        CidrKey,
        CidrEntry,
        ArrivalKey,
        ArrivalEntry,
        NatKey,
        NatEntry,
        Counters
    );
}
