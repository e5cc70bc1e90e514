//! Everything besides the packet that the logic reads and writes: maps, clock, random numbers, sockets.

use crate::maps::{
    AddressKey, ArrivalEntry, CidrEntry, CidrKey, FlowKey, FragmentEntry, FragmentKey, LinkFlow, NatEntry,
    NicEntry, PodFlag, PodFlags, PodUsage,
};
use crate::reason::Reason;

/// How a map entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Only if there is none (`BPF_NOEXIST`).
    NoExist,
    /// Whether there is one or not (`BPF_ANY`).
    Any,
}

/// Why a map entry was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// There is one ([`Put::NoExist`]).
    Exists,
    /// No room.
    Full,
}

/// Something rare that is logged: as this number and the NIC's id.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A neighbor request was answered.
    NeighborAnswered = 1,
    /// A pod has used up its share of `nat`, or the map is full.
    NatFull = 2,
    /// No free port for a translation.
    NatNoPort = 3,
    /// A pod has used up its share of `link_flows`, or the map is full.
    LinkFull = 4,
    /// The same for `arrivals`.
    ArrivalsFull = 5,
}

impl LogEvent {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NeighborAnswered, Self::NatFull, Self::NatNoPort, Self::LinkFull, Self::ArrivalsFull];

    /// The one with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|event| *event as u8 == number)
    }
}

/// Maps and facts. Entries are changed in place by closures, because that is how map memory works.
pub trait State {
    /// CLOCK_MONOTONIC in ns.
    fn now(&self) -> u64;

    /// A random number; `attempt` differs between calls for one packet.
    fn random(&self, attempt: u32) -> u32;

    /// Entry of a NIC id.
    fn nic(&self, id: u16) -> Option<&NicEntry>;

    /// Entry of `addresses`: a NIC id, 0 if there is none.
    fn address(&self, key: &AddressKey) -> u16;

    /// Longest prefix that holds the address of the key, or [`CidrEntry::NONE`].
    ///
    /// (Not an `Option`: the BPF compiler reads its value before it knows that there is one.)
    fn cidr(&self, key: &CidrKey) -> CidrEntry;

    /// Works on an entry of `arrivals`.
    fn arrival<R>(&self, key: &FlowKey, f: impl FnOnce(&mut ArrivalEntry) -> R) -> Option<R>;

    /// Writes a new entry of `arrivals`, and counts it.
    fn arrival_put(&self, key: &FlowKey, entry: &ArrivalEntry) -> Result<(), PutError>;

    /// Removes an entry of `arrivals`, and does not count it any more.
    fn arrival_remove(&self, key: &FlowKey);

    /// Works on an entry of `nat`.
    fn nat<R>(&self, key: &FlowKey, f: impl FnOnce(&mut NatEntry) -> R) -> Option<R>;

    /// Writes an entry of `nat`, and counts it if it is new.
    fn nat_put(&self, key: &FlowKey, entry: &NatEntry, put: Put) -> Result<(), PutError>;

    /// Removes an entry of `nat`, and does not count it any more.
    fn nat_remove(&self, key: &FlowKey);

    /// Works on an entry of `link_flows`.
    fn link_flow<R>(&self, key: &FlowKey, f: impl FnOnce(&mut LinkFlow) -> R) -> Option<R>;

    /// Writes a new entry of `link_flows`, and counts it.
    fn link_flow_put(&self, key: &FlowKey, flow: &LinkFlow) -> Result<(), PutError>;

    /// Removes an entry of `link_flows`, and does not count it any more.
    fn link_flow_remove(&self, key: &FlowKey);

    /// How many entries of each map a pod is counted to have.
    fn usage(&self, pod: u16) -> PodUsage;

    /// How many each may have.
    fn share(&self) -> PodUsage;

    /// What a pod has, or has had.
    fn flags(&self, pod: u16) -> PodFlags;

    /// Notes that a pod has it.
    fn set_flag(&self, pod: u16, flag: PodFlag);

    /// Whether `link_fragments` has an entry that is not too old.
    fn link_fragment(&self, key: &FlowKey) -> bool;

    /// Writes an entry of `link_fragments`.
    fn link_fragment_put(&self, key: &FlowKey);

    /// Entry of `fragments`, however old.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry>;

    /// Writes an entry of `fragments`.
    fn fragment_put(&self, key: &FragmentKey, entry: &FragmentEntry);

    /// Removes an entry of `fragments`, if there is one.
    fn fragment_remove(&self, key: &FragmentKey);

    /// Whether the node forwards the packet: no socket of its own has sent it.
    fn is_forwarded(&self) -> bool;

    /// Whether another pod has sent the packet: it came by a pod's host end or a tunnel.
    fn is_from_pods(&self) -> bool;

    /// Whether a packet that the node forwards, of this flow to a pod, comes by a device by which the node would not
    /// reach its source (strict reverse path), or in the node's own name.
    fn is_spoofed(&self, key: &FlowKey) -> bool;

    /// Whether a TCP or UDP socket of the pod has the local address and port of this key towards its remote
    /// one; sockets that only listen do not count.
    fn socket_has(&self, key: &FlowKey) -> bool;

    /// Whether a connected socket of the pod has this flow: of TCP one whose connection is begun and not over, of UDP one that
    /// takes datagrams of this remote side alone.
    fn socket_connected(&self, key: &FlowKey) -> bool;

    /// Whether a RST of the other side with this sequence number ends the TCP connection that the pod has with this key: its
    /// socket takes it, or there is none (any more).
    fn takes_reset(&self, key: &FlowKey, sequence: u32) -> bool;

    /// Whether the packet comes from a socket of the pod that is bound to no local address.
    fn wildcard_socket(&self) -> bool;

    /// Counts a packet.
    fn count(&self, nic: u16, reason: Reason, bytes: u32);

    /// Has it logged when the run is over, not more often than every few seconds.
    fn report(&self, event: LogEvent);
}
