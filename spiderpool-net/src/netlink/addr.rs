//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use spiderpool_core::ip::Family;
use spiderpool_core::net::{Address, Scope};

use super::{Netlink, NetlinkError};

impl Netlink {
    /// All addresses of the namespace, or of one link.
    pub async fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index.unwrap_or_default();
        self.dump("list addresses", "", RouteNetlinkMessage::GetAddress(message), read).await
    }

    /// The IPv6 addresses of a link whose duplicate address detection goes on.
    pub async fn tentative_addresses(&mut self, index: u32) -> Result<Vec<IpNet>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = index;
        let tentative = |message| is_tentative(&message).then(|| read(message)).flatten();
        let all =
            self.dump("list addresses", "", RouteNetlinkMessage::GetAddress(message), tentative).await?;
        // Kernels before 4.20 do not look at the index.
        Ok(all.into_iter().filter(|address| address.dev == index).map(|address| address.net).collect())
    }

    /// Adds an address, or keeps it as it is. IPv6 addresses are usable at once, without duplicate detection.
    pub async fn add_address(&mut self, index: u32, net: IpNet) -> Result<(), NetlinkError> {
        let mut request = self.builder().address().add(index, net.addr(), net.prefix_len()).replace();
        *request.message_mut() = message(index, net);
        self.execute("add address", Object(net, index), request.execute()).await
    }

    /// Deletes an address; one that is not there is not an error.
    pub async fn delete_address(&mut self, index: u32, net: IpNet) -> Result<(), NetlinkError> {
        let request = self.builder().address().del(message(index, net));
        match self.execute("delete address", Object(net, index), request.execute()).await {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }
}

struct Object(IpNet, u32);

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on link {}", self.0, self.1)
    }
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.scope =
        if is_link_local(net.addr()) { AddressScope::Link } else { AddressScope::Universe };
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    match Family::of_net(&net) {
        Family::V4 => message.header.family = AddressFamily::Inet,
        Family::V6 => {
            message.header.family = AddressFamily::Inet6;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_tentative(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewAddress(message) = message else { return false };
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    // The kernel leaves the flag on an address whose detection found a duplicate.
    flags.is_some_and(|flags| {
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Dadfailed)
    })
}

pub(crate) fn read(message: RouteNetlinkMessage) -> Option<Address> {
    let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) = message
    else {
        return None;
    };
    let (mut local, mut address) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(addr),
            AddressAttribute::Address(addr) => address = Some(addr),
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end.
    let addr = local.or(address)?;
    let net = IpNet::new(addr, message.header.prefix_len).ok()?;
    let scope = match message.header.scope {
        AddressScope::Link => Scope::Link,
        AddressScope::Host | AddressScope::Nowhere => Scope::Host,
        _ => Scope::Global,
    };
    Some(Address { dev: message.header.index, net, scope })
}
