//! The socket below rtnetlink's connection, with the options that it has to have.
//!
//! netlink-proto writes to the `log` crate what goes wrong below it, and goes on or ends: a failed system call, a
//! message that it cannot decode. So the socket remembers the one and counts the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use rtnetlink::packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};
use rtnetlink::proto::sys::{AsyncSocket, TokioSocket};
use rtnetlink::sys::{Socket as SysSocket, SocketAddr, protocols::NETLINK_ROUTE};

use super::NetlinkError;

/// The kernel writes at most 32 KiB per message of a dump if the reader's buffer is that large.
const BUFFER: usize = 64 * 1024;

/// How many messages have come, whether or not they can be decoded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// All.
    pub(crate) total: usize,
    /// Of the request to which the latest belongs.
    pub(crate) of_request: usize,
    /// Those that end an answer.
    ends: usize,
    sequence: u32,
}

impl Received {
    /// An end of the datagram that is no message counts as one.
    fn with(mut self, mut datagram: &[u8]) -> Self {
        while !datagram.is_empty() {
            let message = NetlinkBuffer::new_checked(datagram).ok();
            let is_end =
                message.as_ref().is_some_and(|m| [NLMSG_DONE, NLMSG_ERROR].contains(&m.message_type()));
            self.ends += usize::from(is_end);
            let (length, sequence) = message
                .map_or((datagram.len(), self.sequence), |m| (m.length() as usize, m.sequence_number()));
            self.total += 1;
            self.of_request = if sequence == self.sequence { self.of_request + 1 } else { 1 };
            self.sequence = sequence;
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        self
    }
}

/// A netlink socket that is registered with the runtime; it belongs to the namespace it was opened in.
pub(crate) struct Socket {
    inner: TokioSocket,
    datagram: RefCell<Vec<u8>>,
    received: Cell<Received>,
    /// How many answers are to come in all. While none is outstanding nothing is read: a read without success costs
    /// a system call, and the next one has to wait for epoll, though the kernel answers before a send returns.
    expected: Cell<usize>,
    failure: RefCell<Option<(&'static str, io::Error)>>,
}

impl Socket {
    /// For requests, in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Self::create()?;
        let options = socket.socket_mut();
        options.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::socket("connect"))?;
        options.set_ext_ack(true).map_err(NetlinkError::socket("ask for error texts"))?;
        options.set_cap_ack(true).map_err(NetlinkError::socket("ask for short errors"))?;
        options.set_netlink_get_strict_chk(true).map_err(NetlinkError::socket("ask for strict checking"))?;
        Ok(socket)
    }

    /// Subscribed to these multicast groups of the calling thread's namespace.
    pub(crate) fn subscribe(groups: u32) -> Result<Self, NetlinkError> {
        let mut socket = Self::create()?;
        let groups = SocketAddr::new(0, groups);
        socket.socket_mut().bind(&groups).map_err(NetlinkError::socket("subscribe"))?;
        socket.expected.set(usize::MAX);
        Ok(socket)
    }

    fn create() -> Result<Self, NetlinkError> {
        // Otherwise tokio panics.
        tokio::runtime::Handle::try_current()
            .map_err(|error| NetlinkError::socket("open")(io::Error::other(error)))?;
        <Self as AsyncSocket>::new(NETLINK_ROUTE).map_err(NetlinkError::socket("open"))
    }

    pub(crate) fn received(&self) -> Received {
        self.received.get()
    }

    /// How many requests have been sent.
    pub(crate) fn sent(&self) -> usize {
        self.expected.get()
    }

    /// Why the connection has ended.
    pub(crate) fn failure(&self) -> NetlinkError {
        let failure = self.failure.borrow_mut().take();
        let (operation, source) = failure.unwrap_or_else(|| ("use", io::ErrorKind::NotConnected.into()));
        NetlinkError::Socket { operation, source }
    }

    fn remember<T>(&self, operation: &'static str, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let error =
                error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            *self.failure.borrow_mut() = Some((operation, error));
        })
    }
}

impl From<TokioSocket> for Socket {
    fn from(socket: TokioSocket) -> Self {
        Self {
            inner: socket,
            datagram: RefCell::new(Vec::with_capacity(BUFFER)),
            received: Cell::default(),
            expected: Cell::new(0),
            failure: RefCell::new(None),
        }
    }
}

impl AsyncSocket for Socket {
    fn socket_ref(&self) -> &SysSocket {
        self.inner.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut SysSocket {
        self.inner.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(Self::from)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_to(cx, buf, &SocketAddr::new(0, 0))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], addr: &SocketAddr) -> Poll<io::Result<usize>> {
        let sent = self.remember("send", ready!(self.inner.poll_send_to(cx, buf, addr)))?;
        self.expected.set(self.expected.get().saturating_add(1));
        Poll::Ready(Ok(sent))
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf).map_ok(drop)
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        if self.received.get().ends >= self.expected.get() {
            return Poll::Pending; // to be polled again after a send
        }
        let mut datagram = self.datagram.borrow_mut();
        datagram.clear();
        let source = self.remember("receive", ready!(self.inner.poll_recv_from(cx, &mut *datagram)))?;
        self.received.set(self.received.get().with(&datagram));
        buf.put_slice(&datagram);
        Poll::Ready(Ok(source))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        let mut buf = Vec::with_capacity(BUFFER);
        self.poll_recv_from(cx, &mut buf).map_ok(|source| (buf, source))
    }
}
