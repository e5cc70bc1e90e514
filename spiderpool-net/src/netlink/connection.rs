//! Requests and their answers: acknowledgements, dumps and their interruptions.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::Connection;
use rtnetlink::sys::SocketAddr;

use super::NetlinkError;
use super::socket::Socket;
use crate::netns::NetNs;

/// A dump that the kernel had to interrupt is repeated; so often that only a broken kernel gets further.
const DUMP_ATTEMPTS: usize = 10;

/// A connection to the rtnetlink of one namespace. It stays there, whoever uses it.
pub struct Netlink {
    connection: Connection<RouteNetlinkMessage, Socket>,
    handle: Handle,
    unsolicited: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// How many messages a dump may have.
    dump_limit: usize,
}

impl NetNs {
    /// A netlink connection to this namespace: it stays there, whoever uses it. An error outside a tokio runtime.
    pub fn netlink(&self) -> Result<Netlink, NetlinkError> {
        self.run(Netlink::open)?
    }
}

/// What a request has brought so far.
struct Answer<T> {
    found: Vec<T>,
    messages: usize,
    is_interrupted: bool,
    end: Option<NetlinkPayload<RouteNetlinkMessage>>,
}

impl Netlink {
    /// Opens one in the calling thread's namespace. An error outside a tokio runtime, see [`crate::block_on`].
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open().map(Self::new)
    }

    pub(crate) fn new(socket: Socket) -> Self {
        let (mut connection, handle, unsolicited) = rtnetlink::from_socket(socket);
        // It carries the dump's error, and may carry the flag that it was interrupted.
        connection.set_forward_done(true);
        Self { connection, handle, unsolicited, dump_limit: usize::MAX }
    }

    /// From now on a list of more objects is an error, after which the connection is of no use: what a pod has in its
    /// namespace is for the pod to decide, what it costs is not.
    pub fn limit_dumps(&mut self, objects: usize) {
        self.dump_limit = objects;
    }

    /// Makes rtnetlink's requests, for [`Netlink::execute`].
    pub(crate) fn builder(&self) -> &Handle {
        &self.handle
    }

    /// Runs a request of rtnetlink's.
    pub(crate) async fn execute(
        &mut self,
        operation: &'static str,
        object: impl Display,
        request: impl Future<Output = Result<(), rtnetlink::Error>>,
    ) -> Result<(), NetlinkError> {
        match self.drive(request).await? {
            Ok(()) => Ok(()),
            Err(rtnetlink::Error::NetlinkError(error)) => {
                Err(NetlinkError::refused(operation, object, &error))
            }
            Err(rtnetlink::Error::RequestFailed) => Err(self.failure()),
            Err(_) => Err(NetlinkError::answer(operation, object, "it is of another kind")),
        }
    }

    /// One request that rtnetlink has no builder for, answered by an acknowledgement.
    pub(crate) async fn execute_raw(
        &mut self,
        operation: &'static str,
        object: impl Display,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<(), NetlinkError> {
        let answer = self.exchange(NLM_F_ACK | flags, message, |_| None::<()>).await?;
        match answer.end {
            Some(NetlinkPayload::Error(error)) => Err(NetlinkError::refused(operation, object, &error)),
            _ => Ok(()),
        }
    }

    /// One request that is answered by one object.
    pub(crate) async fn get<T>(
        &mut self,
        operation: &'static str,
        object: impl Display,
        message: RouteNetlinkMessage,
        read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        // With an acknowledgement there is an end also if the object cannot be decoded.
        let answer = self.exchange(NLM_F_ACK, message, read).await?;
        if let Some(NetlinkPayload::Error(error)) = answer.end {
            return Err(NetlinkError::refused(operation, object, &error));
        }
        // The acknowledgement is not among the answer's messages.
        if self.received() != answer.messages + 1 {
            return Err(NetlinkError::answer(operation, object, "it cannot be decoded"));
        }
        Ok(answer.found.into_iter().next())
    }

    /// One request that is answered by all objects that match.
    pub(crate) async fn dump<T>(
        &mut self,
        operation: &'static str,
        object: impl Display,
        message: RouteNetlinkMessage,
        mut read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.exchange(NLM_F_DUMP, message.clone(), &mut read).await?;
            // The end is one of the messages.
            if answer.messages > self.dump_limit.saturating_add(1) {
                let (object, limit) = (object.to_string(), self.dump_limit);
                return Err(NetlinkError::TooMany { operation, object, limit });
            }
            match answer.end {
                Some(NetlinkPayload::Done(done)) if done.code == 0 => {}
                Some(NetlinkPayload::Done(done)) => {
                    return Err(NetlinkError::refused_dump(operation, object, &done));
                }
                Some(NetlinkPayload::Error(error)) => {
                    return Err(NetlinkError::refused(operation, object, &error));
                }
                _ => return Err(NetlinkError::answer(operation, object, "it has no end")),
            }
            if self.received() != answer.messages {
                return Err(NetlinkError::answer(operation, object, "a part of it cannot be decoded"));
            }
            if !answer.is_interrupted {
                return Ok(answer.found);
            }
        }
        let object = object.to_string();
        Err(NetlinkError::Interrupted { operation, object, attempts: DUMP_ATTEMPTS })
    }

    async fn exchange<T>(
        &mut self,
        flags: u16,
        message: RouteNetlinkMessage,
        mut read: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Answer<T>, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let Ok(mut messages) = self.handle.request(request) else { return Err(self.failure()) };
        let mut answer = Answer { found: Vec::new(), messages: 0, is_interrupted: false, end: None };
        let most = self.dump_limit.saturating_add(1);
        let collect = async {
            while answer.messages <= most
                && let Some(message) = messages.next().await
            {
                answer.messages += 1;
                // The kernel flags the first message after a change only, which is any of a dump.
                answer.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answer.found.extend(read(inner)),
                    end => answer.end = Some(end),
                }
            }
        };
        self.drive(collect).await?;
        Ok(answer)
    }

    /// Lets `request` and the connection go on in turns until the request has its answer.
    async fn drive<T>(&mut self, request: impl Future<Output = T>) -> Result<T, NetlinkError> {
        let mut request = pin!(request);
        let answered = poll_fn(|cx| {
            if let Poll::Ready(answer) = request.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            // It sends after it has read, and the kernel answers before the send returns: after each request that was
            // sent there is something to read, which nothing else wakes this task for.
            let mut has_failed = false;
            let mut sent = None;
            while !has_failed && sent != Some(self.connection.socket_mut().sent()) {
                sent = Some(self.connection.socket_mut().sent());
                has_failed = Pin::new(&mut self.connection).poll(cx).is_ready();
            }
            // Either the rest of a cancelled request's answer, or the notice that messages were lost.
            while let Poll::Ready(Some((message, _))) = Pin::new(&mut self.unsolicited).poll_next(cx) {
                has_failed |= matches!(message.payload, NetlinkPayload::Overrun(_));
            }
            match request.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if has_failed => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        answered.await.ok_or_else(|| self.failure())
    }

    /// How many messages the latest request has brought.
    fn received(&mut self) -> usize {
        self.connection.socket_mut().received().of_request
    }

    fn failure(&mut self) -> NetlinkError {
        self.connection.socket_mut().failure()
    }
}

#[cfg(test)]
mod tests;
