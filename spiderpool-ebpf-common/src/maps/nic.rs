//! What the programs know about the NICs of pods: values of `nics`, keys and values of `addresses`.

use crate::addr::Addr;

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

/// No default route by the NIC, or it is not known.
pub const DEFAULT_NONE: u8 = 0;
/// One that another NIC's takes precedence of. It has the next hop for what has to leave by this NIC.
pub const DEFAULT_BACKUP: u8 = 1;
/// What no other route matches leaves by this NIC.
pub const DEFAULT_USED: u8 = 2;

/// The kernel's default of `ip_local_port_range` (net/ipv4/af_inet.c, `inet_init_net`).
pub const EPHEMERAL_PORTS: (u16, u16) = (32_768, 60_999);

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
    /// NIC id of the pod's node link; 0 if it has none.
    pub node_link: u16,
    /// IPv4 default route by this NIC: one of the `DEFAULT_` constants.
    pub default4: u8,
    /// The same for IPv6.
    pub default6: u8,
    /// 1: a CIDR is no longer steered, and the pod's translated flows to it go on.
    pub keeps_translations: u8,
    /// Of a node link, 1: pods of the node open no flows by it.
    pub refuses_pods: u8,
    /// First port of the pod's `ip_local_port_range`.
    pub port_low: u16,
    /// Its last port.
    pub port_high: u16,
    #[doc(hidden)]
    pub _pad: [u8; 6],
}

/// Key of `addresses`: an address of a pod's cluster NIC or of one of its underlay NICs.
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

impl NicEntry {
    /// With which source the pod's cluster traffic leaves.
    #[inline(always)]
    pub const fn exit_mode(&self) -> ExitMode {
        if self.exit_mode == ExitMode::AsIs as u8 { ExitMode::AsIs } else { ExitMode::Translated }
    }

    /// Whether it is the way to the cluster, on which the program decides again: eth0 in overlay mode, veth0 in underlay mode.
    #[inline(always)]
    pub const fn decides(&self) -> bool {
        self.role == ROLE_CLUSTER
            || (self.role == ROLE_NODE_LINK && matches!(self.exit_mode(), ExitMode::AsIs))
    }

    /// The NIC's address of the family that `like` has.
    #[inline(always)]
    pub const fn addr(&self, like: Addr) -> Addr {
        if like.is_v4() { Addr::v4(self.addr4) } else { Addr::v6(self.addr6) }
    }

    /// The default route by this NIC of the family that `like` has: one of the `DEFAULT_` constants.
    #[inline(always)]
    pub const fn default_route(&self, like: Addr) -> u8 {
        if like.is_v4() { self.default4 } else { self.default6 }
    }

    /// Whether the kernel gives the port to sockets of the pod that ask for none.
    #[inline(always)]
    pub const fn is_ephemeral(&self, port: u16) -> bool {
        self.port_low <= port && port <= self.port_high
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
