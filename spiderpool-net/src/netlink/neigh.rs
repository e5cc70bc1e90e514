//! Neighbors: permanent ones, and what the kernel finds out.

use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::net::Neighbor;

use super::{Netlink, NetlinkError};

impl Netlink {
    /// Makes a neighbor permanent with this MAC, whatever it was before.
    pub async fn set_neighbor(&mut self, neighbor: &Neighbor<u32>) -> Result<(), NetlinkError> {
        let request = self.builder().neighbours().add(neighbor.dev, neighbor.address);
        let request = request.state(NeighbourState::Permanent).link_layer_address(&neighbor.mac.0).replace();
        self.execute("set neighbor", neighbor, request.execute()).await
    }

    /// Deletes a neighbor; one that is not there is not an error.
    pub async fn delete_neighbor(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let request = self.builder().neighbours().del(message(index, address));
        let object = format!("{address} dev {index}");
        match self.execute("delete neighbor", object, request.execute()).await {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }

    /// The permanent neighbors of a link.
    pub async fn permanent_neighbors(&mut self, index: u32) -> Result<Vec<Neighbor<u32>>, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let object = format!("of link {index}");
        let read = |message| read(message, &[NeighbourState::Permanent]);
        self.dump("list neighbors", object, RouteNetlinkMessage::GetNeighbour(request), read).await
    }

    /// The neighbors of a link whose MAC the kernel has, permanent or found out.
    pub async fn known_neighbors(&mut self, index: u32) -> Result<Vec<Neighbor<u32>>, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let object = format!("of link {index}");
        let read = |message| read(message, VALID);
        self.dump("list neighbors", object, RouteNetlinkMessage::GetNeighbour(request), read).await
    }

    /// Has the kernel ask for the MAC of an address, as for a packet (`NTF_USE`, `neigh_add` in net/core/neighbour.c),
    /// unless it has it or is asking.
    pub async fn solicit_neighbor(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let request = self.builder().neighbours().add(index, address);
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use).replace();
        self.execute("solicit neighbor", format!("{address} dev {index}"), request.execute()).await
    }
}

/// States in which an entry has a MAC.
const VALID: &[NeighbourState] = &[
    NeighbourState::Permanent,
    NeighbourState::Reachable,
    NeighbourState::Stale,
    NeighbourState::Delay,
    NeighbourState::Probe,
];

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
}

fn read(message: RouteNetlinkMessage, states: &[NeighbourState]) -> Option<Neighbor<u32>> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if !states.contains(&message.header.state) {
        return None;
    }
    let address = address(&message)?;
    let mac = message.attributes.into_iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes).ok().map(MacAddr),
        _ => None,
    });
    Some(Neighbor { dev: message.header.ifindex, address, mac: mac? })
}

/// Whose entry it is.
pub(crate) fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some((*v4).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}
