//! Why a packet went where it went. Every packet that a program sees is counted under one reason, and under
//! [`Reason::MssClamped`] besides where that applies.
//!
//! The table below is the only place that names them: the enum, the counters' field names (which bpftool
//! prints) and the metric labels come from it. Order is layout: add at the end.

use crate::headers::{Fragment, Headers, L4Kind};

/// How often, and how many bytes (whole frames, as the NIC sees them).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets (a GSO packet counts once).
    pub packets: u64,
    /// Bytes, link header included.
    pub bytes: u64,
}

macro_rules! reasons {
    ($($variant:ident $field:ident $text:literal;)*) => {
        /// Why a packet was treated as it was.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $text] $variant,)*
        }

        /// One NIC's counters on one CPU: the value of the map `stats`.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $text] pub $field: Counter,)*
        }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// The names, in the same order.
            const NAMES: &[&str] = &[$(stringify!($field),)*];
            /// What each means, in the same order.
            const TEXTS: &[&str] = &[$($text,)*];
        }
    };
}

reasons! {
    NotOurs not_ours "Nothing to do: destination not in the cluster and source of this NIC (egress), or nothing to record (ingress).";
    NotIp not_ip "Neither IPv4 nor IPv6, or a frame of a VLAN.";
    Malformed malformed "Headers that cannot be read: not sent by the cluster NIC when the source is an underlay address. IPv6 with an IPv4-mapped address: passes.";
    LinkScope link_scope "Multicast, broadcast, IPv6 link-local or neighbor discovery: never routed.";
    NodeLink node_link "Leaves by the node link, where only the programs send.";
    ForeignSource foreign_source "Source is no address of this pod (a VM, a forwarded packet): passes.";
    ArpAnswered arp_answered "ARP request for an address of this node, answered by the program.";
    NdpAnswered ndp_answered "Neighbor solicitation for an address of this node, answered by the program.";
    ReplyHere reply_here "Reply of a flow that came in by this NIC: passes.";
    ReplyRedirected reply_redirected "Reply of a flow that came in by another NIC: sent there.";
    ReplySource reply_source "Reply of a UDP server on the wildcard address: source set to the address that was called.";
    BySource by_source "Source is another NIC's address: leaves by that NIC.";
    ClusterDirect cluster_direct "Cluster destination by the cluster NIC with its own address: passes.";
    Steered steered "Cluster destination with the cluster NIC's address: moved to the cluster NIC.";
    Translated translated "Cluster destination with an underlay address: translated, by the cluster NIC.";
    TranslatedBack translated_back "Answer of a translated flow: translated back.";
    NatNew nat_new "First packet of a translated flow (steered as translated).";
    NatPort nat_port "As nat_new, with another source port because the flow's own was taken.";
    NatFull nat_full "The pod has used up its share of nat: not translated, not sent by the cluster NIC.";
    NatNoPort nat_no_port "No free source port found for a translation: not sent by the cluster NIC.";
    NatUnknown nat_unknown "Underlay source, cluster destination, but no flow that was seen to start: not sent by the cluster NIC.";
    NatConflict nat_conflict "The pod starts a flow by the cluster NIC whose tuple a live translation has: it gets another port.";
    Fragment fragment "Later fragment whose first one was not moved or was not seen, or a first one of another protocol: not looked up, not sent by the cluster NIC when its source is an underlay address.";
    IcmpError icmp_error "ICMP error about no flow that is known: not sent by the cluster NIC when its source is an underlay address.";
    OtherProtocol other_protocol "Neither TCP, UDP nor ICMP echo: not sent by the cluster NIC when its source is an underlay address.";
    ArrivalNew arrival_new "Flow that the other side started: recorded.";
    ArrivalSeen arrival_seen "Packet of a recorded flow.";
    MtuExceeded mtu_exceeded "Longer than the MTU of the NIC that it would be moved to: its sender gets an ICMP error in place of it (none about fragments but the first, and about ICMP errors).";
    MssClamped mss_clamped "Segment size in a TCP SYN or SYN-ACK lowered to the MTU of the NIC that it leaves or comes in by (counted besides the other reason).";
    Failed failed "A kernel helper or a map refused: passes unchanged, or is not sent by the cluster NIC.";
    LinkOpened link_opened "At the host end of the node link: the first packet of a flow to the pod, recorded.";
    LinkFlow link_flow "At the host end of the node link: packet of a recorded flow to the pod.";
    LinkToPod link_to_pod "At the host end of the node link: to the pod, opens no flow and belongs to none: passes.";
    LinkReply link_reply "At the host end of the node link: from the pod, of a recorded flow: passes.";
    LinkDenied link_denied "At the host end of the node link: from the pod, of no recorded flow: dropped.";
    LinkNeighbor link_neighbor "At the host end of the node link: from another pod of the node, with nodeLink node: dropped.";
    LinkFromPod link_from_pod "At the host end of veth0 (underlay mode): from the pod, with one of its addresses: passes.";
    LinkForeign link_foreign "At the host end of veth0 (underlay mode): from the pod, with an address that is not the pod's: dropped.";
    LinkIgnored link_ignored "At the host end of the node link: ARP, neighbor discovery or multicast from the pod: dropped.";
    LinkSpoofed link_spoofed "At the host end of the node link: forwarded to the pod in the name of a source that the node reaches by another device: dropped.";
    LinkFull link_full "At the host end of the node link: the pod has used up its share of link_flows: not recorded, and dropped in overlay mode.";
    ClusterAddress cluster_address "Comes in by an underlay NIC for the cluster NIC's address, where the default network's policies do not see it: dropped.";
    OwnFlow own_flow "Comes in as if it were the first packet of a flow, but the pod has begun that itself: not recorded.";
    ArrivalsFull arrivals_full "The pod has used up its share of arrivals: not recorded, the reply follows the routing table.";
    HiddenTags hidden_tags "Comes in by an underlay NIC with several VLAN tags of which the outer one has no number: dropped, because the kernel looks behind them.";
    FragmentFollowed fragment_followed "Later fragment: goes where its first one went, with the same address.";
    ErrorTranslated error_translated "ICMP error about a translated flow: translated as that, with what it quotes.";
}

/// How many reasons there are.
pub const REASONS: usize = Reason::ALL.len();

const _: () = assert!(size_of::<Counters>() == REASONS * size_of::<Counter>());

impl Reason {
    /// Why the flow of a packet is not looked up.
    #[inline(always)]
    pub(crate) const fn of_untracked(h: &Headers) -> Self {
        match (h.l4.kind, h.fragment) {
            (L4Kind::Malformed, _) => Self::Malformed,
            (_, Fragment::First | Fragment::Later) => Self::Fragment,
            (L4Kind::IcmpError, _) => Self::IcmpError,
            _ => Self::OtherProtocol,
        }
    }

    /// Whether it is counted at the host end of the node link, under the id of the pod's end.
    pub const fn is_at_host_end(self) -> bool {
        self as u8 >= Self::LinkOpened as u8 && self as u8 <= Self::LinkFull as u8
    }

    /// Whether it is counted there for what comes from the pod, in overlay or in underlay mode.
    pub const fn is_from_pod(self) -> bool {
        matches!(
            self,
            Self::LinkReply | Self::LinkDenied | Self::LinkFromPod | Self::LinkForeign | Self::LinkIgnored
        )
    }

    /// The name that metrics, logs and bpftool show.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        Self::TEXTS[self as usize]
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl Counters {
    /// The counters in the order of [`Reason::ALL`].
    pub const fn as_array(&self) -> &[Counter; REASONS] {
        // SAFETY: repr(C), REASONS fields of one type, size asserted above.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// The same, to count in.
    pub const fn as_array_mut(&mut self) -> &mut [Counter; REASONS] {
        // SAFETY: repr(C), REASONS fields of one type, size asserted above.
        unsafe { &mut *core::ptr::from_mut(self).cast() }
    }
}
