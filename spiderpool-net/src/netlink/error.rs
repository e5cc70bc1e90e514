//! Why a request failed, with the kernel's extended error text where there is one.

use std::fmt::Display;
use std::io;

use nix::libc;
use rtnetlink::packet_core::{DoneMessage, ErrorMessage, NlasIterator};
use thiserror::Error;

use crate::netns::NetNsError;

/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const EXTACK_MESSAGE: u16 = 1;
/// `struct nlmsghdr` of the request, which an error quotes. The socket asks not to have the rest quoted.
const QUOTED_HEADER: usize = 16;

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
        /// The kernel's extended error text, if there is one.
        extack: Option<String>,
    },
    /// Objects changed during each attempt to list them.
    #[error("{operation} {object}: interrupted {attempts} times by changes")]
    Interrupted {
        /// What was asked.
        operation: &'static str,
        /// For which object.
        object: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// There are more objects than this connection may list.
    #[error("{operation} {object}: more than {limit} objects")]
    TooMany {
        /// What was asked.
        operation: &'static str,
        /// For which object.
        object: String,
        /// How many it may list.
        limit: usize,
    },
    /// The kernel's answer is not understood.
    #[error("{operation} {object}: the kernel's answer is not understood: {reason}")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// For which object.
        object: String,
        /// What is wrong with the answer.
        reason: &'static str,
    },
    /// The link has an `ingress` qdisc, which has the place of clsact.
    #[error(
        "link {link} has an ingress qdisc of another program (Kata Containers and other runtimes of virtual machines make one), \
         and cannot have clsact, which the eBPF dataplane needs: set dataplane to policy in the coordinator's part of the \
         network that these pods use"
    )]
    IngressQdisc {
        /// Its index.
        link: u32,
    },
    /// The socket failed.
    #[error("netlink socket: {operation}: {source}")]
    Socket {
        /// What was done to it.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The namespace cannot be entered to open the socket.
    #[error("netlink socket: {0}")]
    Namespace(#[from] NetNsError),
}

impl NetlinkError {
    pub(crate) fn socket(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { operation, source }
    }

    pub(crate) fn answer(operation: &'static str, object: impl Display, reason: &'static str) -> Self {
        Self::Answer { operation, object: object.to_string(), reason }
    }

    pub(crate) fn refused(operation: &'static str, object: impl Display, error: &ErrorMessage) -> Self {
        let extack = error.header.get(QUOTED_HEADER..).and_then(extack_text);
        Self::Refused { operation, object: object.to_string(), source: error.to_io(), extack }
    }

    /// A dump ends with its error.
    pub(crate) fn refused_dump(operation: &'static str, object: impl Display, done: &DoneMessage) -> Self {
        let source = io::Error::from_raw_os_error(done.code.abs());
        let extack = extack_text(&done.extended_ack);
        Self::Refused { operation, object: object.to_string(), source, extack }
    }

    /// The kernel's errno, if it refused the request.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::Interrupted { .. }
            | Self::TooMany { .. }
            | Self::Answer { .. }
            | Self::IngressQdisc { .. }
            | Self::Namespace(_) => None,
        }
    }

    /// The kernel's text, if it has said why it refused.
    pub fn extack(&self) -> Option<&str> {
        match self {
            Self::Refused { extack, .. } => extack.as_deref(),
            _ => None,
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

/// The text among the attributes of an error (`struct nlmsgerr` and what follows it).
fn extack_text(attributes: &[u8]) -> Option<String> {
    let text = NlasIterator::new(attributes).flatten().find(|a| a.kind() == EXTACK_MESSAGE)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}
