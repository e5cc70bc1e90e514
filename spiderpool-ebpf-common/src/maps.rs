//! The maps: names, keys and values, exactly as they lie in kernel memory.
//!
//! Plain integers, explicit padding, sizes asserted. Ports are in host byte order, addresses in network byte
//! order (16 bytes, IPv4 mapped), so that `bpftool map dump` can be read. The agent compares pinned maps with
//! these layouts when it starts and replaces those that differ.
//!
//! Flows and CIDRs of a map with another layout are carried over member by member, by their names in BTF (upgrade and rollback). So:
//!
//! * A member whose meaning changes, or that of one of its values, gets another name. Padding begins with `_`.
//! * A new member is listed in [`OPTIONAL_MEMBERS`] if zero is right for an entry that was made without it. Otherwise entries of
//!   earlier versions are discarded.
//! * A version that does not know a member ignores it in a value, and the whole entry if it is in a key and not zero. What an entry
//!   says without a new member of its value must stay right; if it cannot, the entry gets a key that earlier versions do not look up.
//! * An integer may become wider, members may change places. One that becomes narrower, or an array of another length, is another
//!   member.

mod cidr;
mod device;
mod flow;
mod fragment;
mod nic;
mod usage;

pub use cidr::{CIDR_KEY_BITS, CidrAction, CidrEntry, CidrKey, CidrKind};
pub use device::{DeviceKind, NodeDevice};
pub use flow::{ArrivalEntry, Direction, FlowKey, FlowKeys, LinkFlow, NatEntry, Tuple};
pub use fragment::{FragmentEntry, FragmentKey};
pub use nic::{
    AddressEntry, AddressKey, DEFAULT_BACKUP, DEFAULT_NONE, DEFAULT_USED, EPHEMERAL_PORTS, ExitMode,
    NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE, ROLE_UNDERLAY,
};
pub use usage::{PodFlag, PodFlags, PodUsage};

/// Names of the maps, which are also the names of their pins.
pub mod names {
    /// Array by NIC id: [`super::NicEntry`].
    pub const NICS: &str = "nics";
    /// LPM trie: [`super::CidrKey`] after a prefix length, to [`super::CidrEntry`].
    pub const CLUSTER_CIDRS: &str = "cluster_cidrs";
    /// Hash: [`super::AddressKey`] to [`super::AddressEntry`].
    pub const ADDRESSES: &str = "addresses";
    /// Hash: [`super::FlowKey`] to [`super::ArrivalEntry`].
    pub const ARRIVALS: &str = "arrivals";
    /// Hash: [`super::FlowKey`] to [`super::NatEntry`].
    pub const NAT: &str = "nat";
    /// Hash: [`super::FlowKey`] to [`super::LinkFlow`].
    pub const LINK_FLOWS: &str = "link_flows";
    /// LRU hash: [`super::FlowKey`] to the time of the first fragment, CLOCK_MONOTONIC in ns.
    pub const LINK_FRAGMENTS: &str = "link_fragments";
    /// LRU hash: [`super::FragmentKey`] to [`super::FragmentEntry`].
    pub const FRAGMENTS: &str = "fragments";
    /// Array by pod id: [`super::PodUsage`], what the programs have added to the maps.
    pub const ADDED: &str = "added";
    /// Array by pod id: [`super::PodUsage`], what the agent has removed from them.
    pub const REMOVED: &str = "removed";
    /// Array by pod id: [`super::PodFlags`].
    pub const POD_FLAGS: &str = "pod_flags";
    /// When something was logged last, by NIC id.
    pub const REPORTED: &str = "reported";
    /// Hash by interface index on the node: [`super::NodeDevice`].
    pub const NODE_DEVICES: &str = "node_devices";
    /// Per-CPU array by NIC id: [`crate::reason::Counters`].
    pub const STATS: &str = "stats";
    /// Program on every NIC's egress.
    pub const EGRESS: &str = "egress";
    /// Program on every NIC's ingress.
    pub const INGRESS: &str = "ingress";
    /// Program on the egress of the node link's host end.
    pub const HOST_EGRESS: &str = "host_egress";
    /// Program on the ingress of the node link's host end.
    pub const HOST_INGRESS: &str = "host_ingress";
    /// How many entries of each map a pod may have: [`super::PodUsage`].
    pub const SHARE: &str = "SHARE";
    /// Set to 1 in test runs only: NIC id, time and randomness come from `skb->cb`.
    pub const TEST_RUN: &str = "TEST_RUN";
}

/// Members that entries of other versions may lack, by map: zero is right for these.
pub const OPTIONAL_MEMBERS: [&str; 2] = [
    // Long ago: the reply goes to the kernel's next hop.
    "arrivals.value.heard",
    // Long ago: a caller that goes on has a stream.
    "link_flows.value.opened",
];

const _: () = assert!(size_of::<NicEntry>() == 64);
const _: () = assert!(size_of::<AddressKey>() == 20);
const _: () = assert!(size_of::<AddressEntry>() == 4);
const _: () = assert!(size_of::<CidrKey>() == 20);
const _: () = assert!(size_of::<CidrEntry>() == 4);
const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<ArrivalEntry>() == 40);
const _: () = assert!(size_of::<NatEntry>() == 32);
const _: () = assert!(size_of::<LinkFlow>() == 16);
const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<FragmentEntry>() == 48);
const _: () = assert!(size_of::<PodUsage>() == 12);
const _: () = assert!(size_of::<PodFlags>() == 4);
const _: () = assert!(size_of::<NodeDevice>() == 4);

#[cfg(feature = "user")]
mod pod {
    use super::{
        AddressEntry, AddressKey, ArrivalEntry, CidrEntry, CidrKey, FlowKey, FragmentEntry, FragmentKey,
        LinkFlow, NatEntry, NicEntry, NodeDevice, PodFlags, PodUsage,
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
        FlowKey,
        ArrivalEntry,
        NatEntry,
        LinkFlow,
        FragmentKey,
        FragmentEntry,
        PodUsage,
        PodFlags,
        NodeDevice,
        Counters
    );
}
