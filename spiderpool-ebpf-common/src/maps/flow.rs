//! Flows: the key of `arrivals` and `nat`, and their values.

use crate::addr::Addr;
use crate::flow_state;
use crate::headers::Headers;

/// Which way a packet goes, as the pod's NIC sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It leaves the pod.
    Egress,
    /// It comes in.
    Ingress,
}

/// Which tuple of a flow a key is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tuple {
    /// The one that the pod's socket has.
    Original = 0,
    /// Of a translated flow: the one that the cluster sees, whose local side is the exit NIC's address.
    Translated = 1,
    /// Of a UDP flow, whatever the local address, which is zero in the key.
    AnyLocal = 2,
    /// Of the fragments of one packet by the node link: their identification is in place of the ports (local: its upper half),
    /// and the protocol is 0.
    Fragments = 3,
}

/// A flow as the pod has it. ICMP echo: its identifier as local port, remote port 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The pod's id.
    pub pod: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`Tuple`]. In `arrivals` original or without local address, in `nat` original or translated, in `link_flows`
    /// original, in `link_fragments` of fragments.
    pub tuple: u8,
    /// The pod's port, host byte order.
    pub local_port: u16,
    /// The other side's port, host byte order.
    pub remote_port: u16,
    /// The pod's address.
    pub local: Addr,
    /// The other side's address.
    pub remote: Addr,
}

/// The keys that a flow has. In the kernel they lie in map memory, because the stack has no room for them, and because the
/// verifier follows what is known of the stack: addresses of IPv4 and of IPv6 would be two ways through all that uses them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKeys {
    /// As the pod's socket has it.
    pub original: FlowKey,
    /// Without its local address: in `arrivals`.
    pub any_local: FlowKey,
    /// As the cluster NIC has it: in `nat`.
    pub translated: FlowKey,
}

/// Value of `arrivals`: where the flow's packets come in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalEntry {
    /// CLOCK_MONOTONIC, ns; at most a second behind.
    pub last_seen: u64,
    /// The address that the other side called.
    pub local: Addr,
    /// CLOCK_MONOTONIC, s: when a packet came in last; at most a second behind.
    pub heard: u32,
    /// NIC id.
    pub nic: u16,
    /// Source MAC of the last packet.
    pub mac: [u8; 6],
    /// Bits of [`crate::flow_state`].
    pub state: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
}

/// Value of `link_flows`: a flow to the pod that has come by the host end of the node link.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFlow {
    /// CLOCK_MONOTONIC, ns; at most a second behind.
    pub last_seen: u64,
    /// CLOCK_MONOTONIC, s: when its first packet came.
    pub opened: u32,
    /// Bits of [`crate::flow_state`].
    pub state: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
}

/// Value of `nat`. The entry of the original tuple holds the flow's state; that of the translated tuple counts only
/// while the original's names it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatEntry {
    /// CLOCK_MONOTONIC, ns (original: at most a second behind; translated: when it was made).
    pub last_seen: u64,
    /// What the local address becomes.
    pub addr: Addr,
    /// What the local port becomes, host byte order.
    pub port: u16,
    /// Bits of [`crate::flow_state`].
    pub state: u8,
    #[doc(hidden)]
    pub _pad: [u8; 5],
}

impl FlowKey {
    /// The flow of a packet, by the tuple that the packet shows.
    #[inline(always)]
    pub const fn of(pod: u16, h: &Headers, direction: Direction) -> Self {
        let l4 = &h.l4;
        let (local, local_port, remote, remote_port) = match direction {
            Direction::Egress => (h.src, l4.src_port, h.dst, l4.dst_port),
            Direction::Ingress => (h.dst, l4.dst_port, h.src, l4.src_port),
        };
        Self {
            pod,
            protocol: l4.protocol,
            tuple: Tuple::Original as u8,
            // A packet has either ports or an identifier; what it has not is 0.
            local_port: local_port | l4.echo_id,
            remote_port,
            local,
            remote,
        }
    }

    /// The fragments of the packet that `h`, which leaves the pod, is a fragment of.
    #[inline(always)]
    pub const fn of_fragments(pod: u16, h: &Headers) -> Self {
        Self {
            pod,
            protocol: 0,
            tuple: Tuple::Fragments as u8,
            local_port: (h.fragment_id >> 16) as u16,
            remote_port: h.fragment_id as u16,
            local: h.src,
            remote: h.dst,
        }
    }

    /// The same addresses and ports as another tuple.
    #[inline(always)]
    #[must_use]
    pub const fn as_tuple(mut self, tuple: Tuple) -> Self {
        self.tuple = tuple as u8;
        self
    }

    /// The flow without its local address.
    #[inline(always)]
    #[must_use]
    pub const fn any_local(mut self) -> Self {
        self.local = Addr::ANY;
        self.as_tuple(Tuple::AnyLocal)
    }

    /// Key of the other entry of a translated flow, by what this key's entry says of the local side.
    #[inline(always)]
    #[must_use]
    pub const fn counterpart(&self, local: Addr, local_port: u16) -> Self {
        let tuple = if self.is(Tuple::Original) { Tuple::Translated } else { Tuple::Original };
        Self {
            pod: self.pod,
            protocol: self.protocol,
            tuple: tuple as u8,
            local_port,
            remote_port: self.remote_port,
            local,
            remote: self.remote,
        }
    }

    /// Whether the key is this tuple of its flow.
    #[inline(always)]
    pub const fn is(&self, tuple: Tuple) -> bool {
        self.tuple == tuple as u8
    }
}

impl Default for FlowKeys {
    #[inline(always)]
    fn default() -> Self {
        let none = FlowKey {
            pod: 0,
            protocol: 0,
            tuple: 0,
            local_port: 0,
            remote_port: 0,
            local: Addr::ANY,
            remote: Addr::ANY,
        };
        Self { original: none, any_local: none, translated: none }
    }
}

impl FlowKeys {
    /// Becomes the keys of a packet's flow.
    #[inline(always)]
    pub const fn set(&mut self, pod: u16, h: &Headers, direction: Direction) {
        self.original = FlowKey::of(pod, h, direction);
        self.any_local = self.original.any_local();
    }

    /// Becomes the keys of a flow that leaves with another address, and as yet with its own port.
    #[inline(always)]
    pub const fn set_translated(&mut self, pod: u16, h: &Headers, to: Addr) {
        self.original = FlowKey::of(pod, h, Direction::Egress);
        self.translated = self.original.counterpart(to, self.original.local_port);
    }
}

impl LinkFlow {
    /// Whether its time is over (`now` in ns).
    #[inline(always)]
    pub const fn is_expired(&self, protocol: u8, now: u64) -> bool {
        now.saturating_sub(self.last_seen)
            > flow_state::link_timeout(protocol, self.state) * flow_state::SECOND
    }

    /// Whether its first packet came more than so many seconds ago.
    #[inline(always)]
    pub(crate) const fn is_older_than(&self, seconds: u32, now: u64) -> bool {
        ((now / flow_state::SECOND) as u32).saturating_sub(self.opened) > seconds
    }
}

impl NatEntry {
    /// Whether the entry translates to the local side of a key.
    #[inline(always)]
    pub fn leads_to(&self, key: &FlowKey) -> bool {
        self.port == key.local_port && self.addr == key.local
    }
}
