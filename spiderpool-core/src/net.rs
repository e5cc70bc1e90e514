//! Links, addresses, routes and neighbors as plain data: what plans are made from and made of.
//!
//! `D` is how a device is named: by its name in plans, by its index where the kernel is asked.

mod bond;
mod vlan;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

pub use bond::{BondMode, BondNumber, BondOption};
pub use vlan::{Vlan, VlanProtocol};

use crate::ip::Family;
use crate::mac::MacAddr;
use crate::names::IfName;

/// `proto` of every route that Spiderpool adds, so that it finds and removes its own only.
pub const ROUTE_PROTOCOL: u8 = 0x53;
/// The table in which a route is looked up that no rule sends elsewhere.
pub const MAIN_TABLE: u32 = 254;
/// `proto kernel` in the kernel's numbering.
pub const PROTOCOL_KERNEL: u8 = 2;
/// `proto boot`, which the routes of CNI plugins have.
pub const PROTOCOL_BOOT: u8 = 3;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its network namespace.
    pub index: u32,
    /// Name.
    pub name: IfName,
    /// Ethernet address; `None` for devices without one.
    pub mac: Option<MacAddr>,
    /// In bytes.
    pub mtu: u32,
    /// Transmit queue, in packets.
    pub tx_queue_len: u32,
    /// IFF_UP.
    pub up: bool,
    /// `IFLA_INFO_KIND`: `veth`, `macvlan`, ...; empty for physical devices.
    pub kind: String,
    /// What the device carries.
    pub medium: Medium,
    /// `IFLA_LINK`: the veth's other end or the macvlan's master; an index in another namespace as a rule.
    pub peer: Option<u32>,
    /// `IFLA_LINK_NETNSID`: where `peer` is, if it is in another network namespace.
    pub peer_netns: Option<i32>,
    /// `IFLA_MASTER`: the bridge, bond or VRF that the device is a port of.
    pub master: Option<u32>,
    /// What its kind alone has.
    pub detail: LinkDetail,
}

/// What a kind of device has, where plans look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkDetail {
    /// Of any other kind.
    #[default]
    Nothing,
    /// `vlan`
    Vlan(Vlan),
    /// `bond`
    Bond(BondMode),
}

/// Kinds of devices that come in pairs and connect pods with their node. netkit is in Linux since 6.7 (drivers/net/netkit.c); in
/// its L3 mode both ends have the MAC 00:00:00:00:00:00 and ask for no neighbors.
const PAIRS: [&str; 2] = ["veth", "netkit"];

impl Link {
    /// Whether it is one end of a pair: `peer` is the other end.
    pub fn is_one_of_a_pair(&self) -> bool {
        PAIRS.contains(&self.kind.as_str())
    }
}

#[cfg(test)]
impl Link {
    /// An Ethernet device of a kind, up, with nothing else of note.
    pub(crate) fn of_kind(name: &str, index: u32, kind: &str) -> Self {
        Self {
            name: name.parse().unwrap(),
            index,
            mac: None,
            mtu: 1500,
            tx_queue_len: 0,
            up: true,
            kind: kind.to_owned(),
            medium: Medium::Ethernet,
            peer: None,
            peer_netns: None,
            master: None,
            detail: LinkDetail::Nothing,
        }
    }
}

/// What a device carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Ethernet frames.
    Ethernet,
    /// InfiniBand: no programs are attached.
    Infiniband,
    /// The loopback device.
    Loopback,
    /// Tunnels and other things without an Ethernet header.
    Other,
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<D = u32> {
    /// The device.
    pub dev: D,
    /// Address and prefix length.
    pub net: IpNet,
    /// How far it reaches.
    pub scope: Scope,
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere that routes lead.
    Global,
    /// The link.
    Link,
    /// The host itself.
    Host,
}

impl Scope {
    /// What an address has where nothing else is said.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            _ if addr.is_loopback() => Self::Host,
            IpAddr::V4(v4) if v4.is_link_local() => Self::Link,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Self::Link,
            _ => Self::Global,
        }
    }
}

impl<D> Address<D> {
    /// With the scope that it has where nothing else is said.
    pub fn new(dev: D, net: IpNet) -> Self {
        Self { dev, net, scope: Scope::of(net.addr()) }
    }
}

/// A unicast route; a multipath route is several of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<D = IfName> {
    /// Destination; `0.0.0.0/0` or `::/0` is the default route.
    pub dst: IpNet,
    /// The device it leaves by.
    pub dev: D,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Lower wins; the kernel reads 0 as 1024 for IPv6.
    pub metric: u32,
    /// Who made it.
    pub protocol: u8,
    /// The table it is in.
    pub table: u32,
    /// The next hop is reachable on the device, whatever the addresses say.
    pub onlink: bool,
    /// `mtu` of the route, where one is set.
    pub mtu: Option<u32>,
    /// Only for packets with this source address; IPv6 alone has such routes in the main table.
    pub from: Option<IpAddr>,
    /// One next hop of an IPv4 multipath route: the kernel deletes all of them or none.
    pub is_hop: bool,
}

impl<D> Route<D> {
    /// A route of the main table with our protocol and nothing optional.
    pub fn new(dst: IpNet, dev: D) -> Self {
        Self {
            dst: dst.trunc(),
            dev,
            gateway: None,
            source: None,
            metric: 0,
            protocol: ROUTE_PROTOCOL,
            table: MAIN_TABLE,
            onlink: false,
            mtu: None,
            from: None,
            is_hop: false,
        }
    }

    /// Its address family.
    pub fn family(&self) -> Family {
        Family::of_net(&self.dst)
    }

    /// Whether it is a default route, for whatever source.
    pub fn is_default(&self) -> bool {
        self.dst.prefix_len() == 0 && self.from.is_none()
    }

    /// Whether Spiderpool made it.
    pub fn is_ours(&self) -> bool {
        self.protocol == ROUTE_PROTOCOL
    }

    /// The same route with its device named otherwise; `None` if the device is not known.
    pub fn with_dev<T>(&self, name: impl FnOnce(&D) -> Option<T>) -> Option<Route<T>> {
        Some(Route {
            dst: self.dst,
            dev: name(&self.dev)?,
            gateway: self.gateway,
            source: self.source,
            metric: self.metric,
            protocol: self.protocol,
            table: self.table,
            onlink: self.onlink,
            mtu: self.mtu,
            from: self.from,
            is_hop: self.is_hop,
        })
    }
}

impl<D: fmt::Display> fmt::Display for Route<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dst.prefix_len() == 0 {
            write!(f, "default")?;
        } else {
            write!(f, "{}", self.dst)?;
        }
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.dev)?;
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if self.onlink {
            write!(f, " onlink")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        write!(f, " proto {:#x}", self.protocol)?;
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

/// A rule of policy routing: which table is asked for which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its family.
    pub family: Family,
    /// Lower is asked first.
    pub priority: u32,
    /// For which packets.
    pub selector: Selector,
    /// The table that is asked.
    pub table: u32,
    /// Who made it; 0 where nobody said.
    pub protocol: u8,
}

/// For which packets a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// All.
    All,
    /// Those with this source address.
    From(IpAddr),
    /// Those with this mark.
    Mark(u32),
    /// What Spiderpool neither makes nor understands.
    Other,
}

impl Rule {
    /// A rule of ours.
    pub const fn new(family: Family, priority: u32, selector: Selector, table: u32) -> Self {
        Self { family, priority, selector, table, protocol: ROUTE_PROTOCOL }
    }

    /// Whether Spiderpool made it.
    pub const fn is_ours(&self) -> bool {
        self.protocol == ROUTE_PROTOCOL
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, priority, selector, table, protocol } = self;
        match selector {
            Selector::All => write!(f, "{family} from all")?,
            Selector::From(address) => write!(f, "{family} from {address}")?,
            Selector::Mark(mark) => write!(f, "{family} from all fwmark {mark:#x}")?,
            Selector::Other => write!(f, "{family} of another kind")?,
        }
        write!(f, " lookup {table} priority {priority} proto {protocol:#x}")
    }
}

/// A permanent neighbor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor<D = IfName> {
    /// The device.
    pub dev: D,
    /// The neighbor's address.
    pub address: IpAddr,
    /// Where frames for it go.
    pub mac: MacAddr,
}

impl<D: fmt::Display> fmt::Display for Neighbor<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lladdr {} dev {}", self.address, self.mac, self.dev)
    }
}

/// Which connections of others get their answers back the way they came, by a mark: those that begin with a packet that
/// comes in by one NIC. The mark is kept with the connection, and a rule sends what carries it to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnMarks {
    /// For which NIC of the pod they are made. It names the nftables table, so that each has its own.
    pub nic: IfName,
    /// By which NIC the connections come.
    pub from: IfName,
    /// To which of the pod's addresses; none means to all of them.
    pub to: Vec<IpAddr>,
    /// The mark.
    pub mark: u32,
}

impl ReturnMarks {
    /// The name of the nftables table (family inet).
    pub fn table(nic: &IfName) -> String {
        format!("spiderpool-{nic}")
    }
}

impl fmt::Display for ReturnMarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table inet {} mark {:#x} from {}", Self::table(&self.nic), self.mark, self.from)?;
        self.to.iter().try_for_each(|address| write!(f, " to {address}"))
    }
}
