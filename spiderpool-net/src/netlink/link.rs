//! Links: find, create a veth pair, change, delete.

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use rtnetlink::packet_route::link::{
    InfoBond, InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, VlanProtocol as KernelProtocol,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{BondMode, Link, LinkDetail, Medium, Vlan, VlanProtocol};

use super::{Netlink, NetlinkError};

/// Whether frames can be sent by a link, which changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// IFF_UP.
    pub up: bool,
    /// IFF_LOWER_UP: it has a carrier. Only of a link that is up.
    pub carrier: bool,
    /// Not IFF_NOARP: its neighbors are asked for their MACs.
    pub arp: bool,
}

/// A veth pair to be created: this end where the socket is, the peer in another namespace.
///
/// Both MACs are explicit, otherwise systemd-udevd rewrites the host end's later (`MACAddressPolicy=persistent`)
/// and the pod's neighbor entry for it goes stale.
#[derive(Debug)]
pub struct NewVeth<'a, F: AsFd> {
    /// Name of this end.
    pub name: &'a IfName,
    /// MAC of this end.
    pub mac: MacAddr,
    /// Name of the other end.
    pub peer_name: &'a IfName,
    /// MAC of the other end.
    pub peer_mac: MacAddr,
    /// Namespace of the other end.
    pub peer_netns: &'a F,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

impl Netlink {
    /// All links of the namespace, by index.
    pub async fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump("list links", "", RouteNetlinkMessage::GetLink(message), read).await
    }

    /// The link of this name, if there is one.
    pub async fn link_by_name(&mut self, name: &IfName) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        self.find_link(message, name.to_string()).await
    }

    /// The link of this index, if there is one.
    pub async fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.find_link(message, format!("index {index}")).await
    }

    /// How many packets the link has received and sent, if it is there.
    pub async fn packets(&mut self, index: u32) -> Result<Option<(u64, u64)>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let read = |message| {
            let RouteNetlinkMessage::NewLink(message) = message else { return None };
            message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some((stats.rx_packets, stats.tx_packets)),
                _ => None,
            })
        };
        let object = format!("of link {index}");
        match self.get("get counters", object, RouteNetlinkMessage::GetLink(message), read).await {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            result => result,
        }
    }

    /// Whether frames can be sent by the link, if it is there.
    pub async fn link_state(&mut self, index: u32) -> Result<Option<LinkState>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let read = |message| {
            let RouteNetlinkMessage::NewLink(message) = message else { return None };
            let flags = message.header.flags;
            Some(LinkState {
                up: flags.contains(LinkFlags::Up),
                carrier: flags.contains(LinkFlags::LowerUp),
                arp: !flags.contains(LinkFlags::Noarp),
            })
        };
        let object = format!("of link {index}");
        match self.get("get state", object, RouteNetlinkMessage::GetLink(message), read).await {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            result => result,
        }
    }

    async fn find_link(
        &mut self,
        mut message: LinkMessage,
        object: String,
    ) -> Result<Option<Link>, NetlinkError> {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.get("get link", object, RouteNetlinkMessage::GetLink(message), read).await {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            result => result,
        }
    }

    /// Creates a veth pair, both ends down.
    pub async fn add_veth<F: AsFd>(&mut self, veth: &NewVeth<'_, F>) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer_name.to_string()),
            LinkAttribute::Address(veth.peer_mac.0.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::NetNsFd(veth.peer_netns.as_fd().as_raw_fd()),
        ];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(veth.name.to_string()),
            LinkAttribute::Address(veth.mac.0.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        let object = format!("{} with peer {}", veth.name, veth.peer_name);
        let request = self.builder().link().add(message);
        self.execute("add veth", object, request.execute()).await
    }

    /// Sets the link up.
    pub async fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flags("set up link", index, LinkFlags::Up).await
    }

    /// Sets the link down: its routes go with it.
    pub async fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flags("set down link", index, LinkFlags::empty()).await
    }

    async fn set_flags(
        &mut self,
        operation: &'static str,
        index: u32,
        flags: LinkFlags,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        let request = self.builder().link().set(message);
        self.execute(operation, index, request.execute()).await
    }

    /// Sets the Ethernet address.
    pub async fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        self.set_attribute("set MAC of link", index, LinkAttribute::Address(mac.0.to_vec())).await
    }

    /// Sets the MTU, in bytes.
    pub async fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.set_attribute("set MTU of link", index, LinkAttribute::Mtu(mtu)).await
    }

    /// Sets the transmit queue's length, in packets.
    pub async fn set_tx_queue_len(&mut self, index: u32, length: u32) -> Result<(), NetlinkError> {
        self.set_attribute("set txqueuelen of link", index, LinkAttribute::TxQueueLen(length)).await
    }

    async fn set_attribute(
        &mut self,
        operation: &'static str,
        index: u32,
        attribute: LinkAttribute,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        let request = self.builder().link().set(message);
        self.execute(operation, index, request.execute()).await
    }

    /// Deletes the link of this index; one that is not there is not an error.
    pub async fn delete_link_of_index(&mut self, index: u32) -> Result<(), NetlinkError> {
        let request = self.builder().link().del(index);
        match self.execute("delete link", index, request.execute()).await {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }

    /// Deletes a link; one that is not there is not an error.
    pub async fn delete_link(&mut self, name: &IfName) -> Result<(), NetlinkError> {
        let mut request = self.builder().link().del(0);
        request.message_mut().attributes.push(LinkAttribute::IfName(name.to_string()));
        match self.execute("delete link", name, request.execute()).await {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }
}

/// `None` for a link whose name is not one, which no kernel makes, and for a bridge's report of a port.
pub(crate) fn read(message: RouteNetlinkMessage) -> Option<Link> {
    let (RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)) = message else {
        return None;
    };
    // A bridge reports its ports too, in a family of its own and without most attributes.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mac, mut mtu, mut tx_queue_len, mut kind) = (None, None, 0, 0, String::new());
    let (mut peer, mut peer_netns, mut master, mut detail) = (None, None, None, LinkDetail::Nothing);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::TxQueueLen(packets) => tx_queue_len = packets,
            LinkAttribute::Link(index) => peer = Some(index),
            LinkAttribute::LinkNetNsId(id) => peer_netns = Some(id),
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                let found = infos.iter().find_map(|i| if let LinkInfo::Kind(k) = i { Some(k) } else { None });
                kind = found.map(ToString::to_string).unwrap_or_default();
                detail = infos.iter().find_map(read_detail).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        mtu,
        tx_queue_len,
        up: message.header.flags.contains(LinkFlags::Up),
        kind,
        medium: match message.header.link_layer_type {
            LinkLayerType::Ether => Medium::Ethernet,
            LinkLayerType::Infiniband => Medium::Infiniband,
            LinkLayerType::Loopback => Medium::Loopback,
            _ => Medium::Other,
        },
        peer,
        peer_netns,
        master,
        detail,
    })
}

fn read_detail(info: &LinkInfo) -> Option<LinkDetail> {
    let LinkInfo::Data(data) = info else { return None };
    match data {
        InfoData::Vlan(infos) => {
            let id = infos.iter().find_map(|i| if let InfoVlan::Id(id) = i { Some(*id) } else { None })?;
            let is_customer = infos.contains(&InfoVlan::Protocol(KernelProtocol::Ieee8021Q));
            let protocol = if is_customer { VlanProtocol::Customer } else { VlanProtocol::Other };
            Some(LinkDetail::Vlan(Vlan { id, protocol }))
        }
        InfoData::Bond(infos) => {
            let mode =
                infos.iter().find_map(|i| if let InfoBond::Mode(mode) = i { Some(*mode) } else { None });
            BondMode::of_number(u8::from(mode?).into()).map(LinkDetail::Bond)
        }
        _ => None,
    }
}
