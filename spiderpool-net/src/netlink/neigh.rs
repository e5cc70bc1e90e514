//! Permanent neighbours.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::net::Neighbor;

use super::{Netlink, NetlinkError};

impl Netlink {
    /// Makes a neighbour permanent with this MAC, whatever it was before.
    pub fn set_neighbor(&mut self, neighbor: &Neighbor<u32>) -> Result<(), NetlinkError> {
        let mut message = message(neighbor.dev, neighbor.address);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbor.mac.0.to_vec()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        self.execute("set neighbour", neighbor, NLM_F_CREATE | NLM_F_REPLACE, message)
    }

    /// Deletes a neighbour; one that is not there is not an error.
    pub fn delete_neighbor(&mut self, index: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(message(index, address));
        match self.execute("delete neighbour", format!("{address} dev {index}"), 0, message) {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }

    /// The permanent neighbours of a link.
    pub fn permanent_neighbors(&mut self, index: u32) -> Result<Vec<Neighbor<u32>>, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let object = format!("of link {index}");
        self.dump("list neighbours", object, &RouteNetlinkMessage::GetNeighbour(request), read)
    }
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.header.kind = RouteType::Unspec;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
}

fn read(message: RouteNetlinkMessage) -> Option<Neighbor<u32>> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr),
            _ => {}
        }
    }
    Some(Neighbor { dev: message.header.ifindex, address: address?, mac: mac? })
}
