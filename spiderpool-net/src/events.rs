//! Changes of links, addresses, routes and neighbors as the kernel reports them.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::channel::mpsc::UnboundedReceiver;
use nix::libc;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::proto::Connection;
use rtnetlink::sys::SocketAddr;
use spiderpool_core::net::{Address, Link, ROUTE_PROTOCOL};

use crate::netlink::socket::Socket;
use crate::netlink::{NetlinkError, addr, link, neigh};

const ROUTES: i32 = libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetlinkEvent {
    /// A link is new or changed.
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address is new or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route by the link with this index is gone, or one is there that is not ours.
    Route(u32),
    /// A neighbor is gone, or one is there that is not permanent. Whoever sends to a link makes as many as it likes:
    /// ask for the address before anything else.
    Neighbor {
        /// The link.
        dev: u32,
        /// Whose neighbor entry it is.
        address: IpAddr,
    },
    /// The kernel had more to report than the socket could hold, or something that cannot be decoded: list
    /// everything again.
    Lost,
}

/// The changes in the namespace it was opened in.
pub struct Events {
    connection: Connection<RouteNetlinkMessage, Socket>,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// How many messages were decoded, of those that the socket has counted.
    decoded: usize,
    /// The connection ends without it.
    _handle: Handle,
}

impl Events {
    /// Subscribes to the links, addresses and routes of the calling thread's namespace. What changes after this call
    /// is reported, so list what there is after it.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::subscribe(libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | ROUTES)
    }

    /// Subscribes to links, addresses, routes and neighbors in the same way.
    pub fn of_routes() -> Result<Self, NetlinkError> {
        let addresses = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        Self::subscribe(libc::RTMGRP_LINK | libc::RTMGRP_NEIGH | ROUTES | addresses)
    }

    fn subscribe(groups: i32) -> Result<Self, NetlinkError> {
        let groups = groups as u32;
        let (connection, handle, messages) = rtnetlink::from_socket(Socket::subscribe(groups)?);
        Ok(Self { connection, messages, decoded: 0, _handle: handle })
    }

    /// The next change. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<NetlinkEvent, NetlinkError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<NetlinkEvent, NetlinkError>> {
        let has_ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        while let Poll::Ready(Some((message, _))) = Pin::new(&mut self.messages).poll_next(cx) {
            // What the socket could not hold was never received, and so not counted.
            if matches!(message.payload, NetlinkPayload::Overrun(_)) {
                return Poll::Ready(Ok(NetlinkEvent::Lost));
            }
            self.decoded += 1;
            if let Some(event) = read(message.payload) {
                return Poll::Ready(Ok(event));
            }
        }
        let received = self.connection.socket_mut().received().total;
        if received != self.decoded {
            self.decoded = received;
            return Poll::Ready(Ok(NetlinkEvent::Lost));
        }
        if has_ended { Poll::Ready(Err(self.connection.socket_mut().failure())) } else { Poll::Pending }
    }
}

fn by_link(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// `None` for what a bridge has learned, which is reported as a neighbor without address.
fn changed_neighbor(message: &NeighbourMessage) -> Option<NetlinkEvent> {
    Some(NetlinkEvent::Neighbor { dev: message.header.ifindex, address: neigh::address(message)? })
}

fn read(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<NetlinkEvent> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(_) => link::read(message).map(NetlinkEvent::Link),
        RouteNetlinkMessage::DelLink(_) => link::read(message).map(NetlinkEvent::LinkGone),
        RouteNetlinkMessage::NewAddress(_) => addr::read(message).map(NetlinkEvent::Address),
        RouteNetlinkMessage::DelAddress(_) => addr::read(message).map(NetlinkEvent::AddressGone),
        RouteNetlinkMessage::DelRoute(route) => by_link(&route).map(NetlinkEvent::Route),
        RouteNetlinkMessage::NewRoute(route) if u8::from(route.header.protocol) != ROUTE_PROTOCOL => {
            by_link(&route).map(NetlinkEvent::Route)
        }
        RouteNetlinkMessage::DelNeighbour(neighbor) => changed_neighbor(&neighbor),
        RouteNetlinkMessage::NewNeighbour(neighbor) if neighbor.header.state != NeighbourState::Permanent => {
            changed_neighbor(&neighbor)
        }
        _ => None,
    }
}
