//! Fragments: the key and the value of `fragments`.

use super::Direction;
use crate::addr::Addr;
use crate::headers::Headers;

/// Key of `fragments`: the packet that fragments are of, as one NIC's program sees them.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// NIC id.
    pub nic: u16,
    /// 1: they come in; 0: they leave.
    pub is_ingress: u8,
    /// IP protocol number; 0 with IPv6, where later fragments may not show it.
    pub protocol: u8,
    /// Identification of the packet, byte order of the host.
    pub id: u32,
    /// IP source.
    pub src: Addr,
    /// IP destination.
    pub dst: Addr,
}

/// Value of `fragments`: what became of the first one, and becomes of the others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentEntry {
    /// CLOCK_MONOTONIC, ns: when the first one was seen.
    pub since: u64,
    /// What the address becomes that is changed.
    pub addr: Addr,
    /// Destination and source MAC.
    pub macs: [u8; 12],
    /// Interface index of the NIC that it was moved to.
    pub ifindex: u32,
    /// That NIC's MTU; 0 if it was not moved.
    pub mtu: u16,
    /// What is changed: bits of `rewrite`.
    pub changes: u16,
    /// The number of its `Action`.
    pub action: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
}

impl FragmentKey {
    /// The packet of which `h` is a fragment.
    #[inline(always)]
    pub const fn of(nic: u16, h: &Headers, direction: Direction) -> Self {
        Self {
            nic,
            is_ingress: matches!(direction, Direction::Ingress) as u8,
            protocol: if h.src.is_v4() { h.l4.protocol } else { 0 },
            id: h.fragment_id,
            src: h.src,
            dst: h.dst,
        }
    }
}
