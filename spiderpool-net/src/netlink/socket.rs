//! The socket: sequence numbers, acknowledgements, dumps, the kernel's error texts.

use std::fmt::Display;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use thiserror::Error;

/// The kernel writes at most 32 KiB per message of a dump if the reader's buffer is that large.
const BUFFER: usize = 64 * 1024;
/// A dump that the kernel had to interrupt is repeated; so often that only a broken kernel gets further.
const DUMP_ATTEMPTS: usize = 10;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const EXTACK_MESSAGE: u16 = 1;

/// A netlink request failed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The kernel refused it.
    #[error("{operation} {object}: {source}{}", extack.as_ref().map(|t| format!(" ({t})")).unwrap_or_default())]
    Refused {
        /// What was asked, for example `add route`.
        operation: &'static str,
        /// For which object.
        object: String,
        /// The kernel's errno.
        source: io::Error,
        /// The kernel's own words, where it has some.
        extack: Option<String>,
    },
    /// The socket failed.
    #[error("netlink socket: {operation}: {source}")]
    Socket {
        /// What was done to it.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel's answer is not understood.
    #[error("{operation} {object}: the kernel's answer is not understood: {reason}")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// For which object.
        object: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The namespace cannot be entered to open the socket.
    #[error("netlink socket: {0}")]
    Namespace(String),
}

impl NetlinkError {
    /// The kernel's errno, if it refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::Answer { .. } | Self::Namespace(_) => None,
        }
    }

    /// The object is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// There is no way to an address: no route to it, or none to a next hop.
    pub fn is_unreachable(&self) -> bool {
        let errnos = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL];
        matches!(self, Self::Refused { source, .. } if source.raw_os_error().is_some_and(|e| errnos.contains(&e)))
    }

    /// The object, or the device it is on, is not there.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL))
    }
}

/// A blocking rtnetlink socket; it belongs to the namespace it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |operation| move |source| NetlinkError::Socket { operation, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        socket.set_ext_ack(true).map_err(failed("ask for error texts"))?;
        socket.set_cap_ack(true).map_err(failed("ask for short errors"))?;
        socket.set_netlink_get_strict_chk(true).map_err(failed("ask for strict checking"))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// One request that is answered by an acknowledgement.
    pub(crate) fn execute(
        &mut self,
        operation: &'static str,
        object: impl Display,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<(), NetlinkError> {
        self.send(NLM_F_ACK | flags, message)?;
        self.collect(operation, &object, |_| ()).map(drop)
    }

    /// One request that is answered by one object.
    pub(crate) fn get<T>(
        &mut self,
        operation: &'static str,
        object: impl Display,
        message: RouteNetlinkMessage,
        read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        self.send(NLM_F_ACK, message)?;
        Ok(self.collect(operation, &object, read)?.0.into_iter().flatten().next())
    }

    /// One request that is answered by all objects that match.
    pub(crate) fn dump<T>(
        &mut self,
        operation: &'static str,
        object: impl Display,
        message: &RouteNetlinkMessage,
        mut read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(NLM_F_DUMP, message.clone())?;
            let (found, Completeness::Whole) = self.collect(operation, &object, &mut read)? else { continue };
            return Ok(found.into_iter().flatten().collect());
        }
        let reason = format!("interrupted {DUMP_ATTEMPTS} times by changes");
        Err(NetlinkError::Answer { operation, object: object.to_string(), reason })
    }

    fn send(&mut self, flags: u16, message: RouteNetlinkMessage) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        retry(|| self.socket.send(&bytes, 0))
            .map(drop)
            .map_err(|source| NetlinkError::Socket { operation: "send", source })
    }

    fn collect<T>(
        &mut self,
        operation: &'static str,
        object: &impl Display,
        mut read: impl FnMut(RouteNetlinkMessage) -> T,
    ) -> Result<(Vec<T>, Completeness), NetlinkError> {
        let not_understood =
            |reason: String| NetlinkError::Answer { operation, object: object.to_string(), reason };
        let mut found = Vec::new();
        let mut completeness = Completeness::Whole;
        loop {
            self.receive()?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let frame = NetlinkBuffer::new_checked(rest).map_err(|e| not_understood(e.to_string()))?;
                let length = (frame.length() as usize).next_multiple_of(4).min(rest.len());
                if frame.sequence_number() != self.sequence {
                    rest = &rest[length..]; // what is left of a request that failed half-way
                    continue;
                }
                if frame.flags() & NLM_F_DUMP_INTR != 0 {
                    completeness = Completeness::Interrupted;
                }
                let extack = error_text(&frame);
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| not_understood(e.to_string()))?;
                rest = &rest[length..];
                let code = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        found.push(read(inner));
                        continue;
                    }
                    NetlinkPayload::Error(error) => error.raw_code(),
                    NetlinkPayload::Done(done) => done.code,
                    _ => return Err(not_understood("overrun".to_owned())),
                };
                if code == 0 {
                    return Ok((found, completeness));
                }
                let source = io::Error::from_raw_os_error(code.abs());
                return Err(NetlinkError::Refused { operation, object: object.to_string(), source, extack });
            }
        }
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        self.buffer.clear();
        let length = retry(|| self.socket.recv(&mut self.buffer, libc::MSG_TRUNC))
            .map_err(|source| NetlinkError::Socket { operation: "receive", source })?;
        if length > self.buffer.len() {
            let source = io::Error::other(format!("a message of {length} bytes does not fit"));
            return Err(NetlinkError::Socket { operation: "receive", source });
        }
        Ok(())
    }
}

/// Whether a dump shows one moment, or objects changed meanwhile.
#[derive(Clone, Copy)]
enum Completeness {
    Whole,
    Interrupted,
}

/// The text in an error's attributes: `nlmsgerr` is a code and the request's header, the attributes follow.
fn error_text(frame: &NetlinkBuffer<&[u8]>) -> Option<String> {
    if frame.flags() & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let attributes = frame.payload().get(4 + 16..)?;
    let text = NlasIterator::new(attributes).flatten().find(|a| a.kind() == EXTACK_MESSAGE)?;
    let text = String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned();
    Some(text)
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
