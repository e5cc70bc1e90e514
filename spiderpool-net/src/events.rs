//! Changes of links and addresses as the kernel tells them.

use std::io;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use spiderpool_core::net::{Address, Link};

use crate::netlink::{NetlinkError, addr, link};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new or changed.
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address is new or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// The kernel had more to tell than the socket could hold: list everything again.
    Lost,
}

/// A blocking stream of changes in the namespace it was opened in. It never ends by itself.
pub struct Events {
    socket: Socket,
    pending: std::collections::VecDeque<Event>,
}

impl Events {
    /// Subscribes to the links and addresses of the calling thread's namespace. What changes after this call
    /// is reported, so list what there is after it.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |operation| move |source| NetlinkError::Socket { operation, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        let groups = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        socket.bind(&SocketAddr::new(0, groups)).map_err(failed("subscribe"))?;
        Ok(Self { socket, pending: std::collections::VecDeque::new() })
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        let bytes = match self.socket.recv_from_full() {
            Ok((bytes, _)) => bytes,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.pending.push_back(Event::Lost);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(NetlinkError::Socket { operation: "receive", source }),
        };
        let mut rest = bytes.as_slice();
        while let Ok(frame) = NetlinkBuffer::new_checked(rest) {
            let length = (frame.length() as usize).next_multiple_of(4).clamp(1, rest.len());
            // What is not understood may have mattered.
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
            self.pending.extend(message.map_or(Some(Event::Lost), |m| read(m.payload)));
            rest = &rest[length..];
        }
        Ok(())
    }
}

impl Iterator for Events {
    type Item = Result<Event, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(Ok(event));
            }
            if let Err(error) = self.receive() {
                return Some(Err(error));
            }
        }
    }
}

fn read(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(_) => link::read(message).map(Event::Link),
        RouteNetlinkMessage::DelLink(_) => link::read(message).map(Event::LinkGone),
        RouteNetlinkMessage::NewAddress(_) => addr::read(message).map(Event::Address),
        RouteNetlinkMessage::DelAddress(_) => addr::read(message).map(Event::AddressGone),
        _ => None,
    }
}
