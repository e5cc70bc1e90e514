//! Against a kernel that is played by a thread, for what a real one does not do on demand.

use std::io::{Read, Write};
use std::num::NonZeroI32;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rtnetlink::packet_core::{
    DoneMessage, ErrorMessage, NLM_F_ACK_TLVS, NLM_F_MULTIPART, NLMSG_OVERRUN, NetlinkBuffer,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::proto::sys::TokioSocket;

use super::*;

type Payload = NetlinkPayload<RouteNetlinkMessage>;

/// One message of an answer: its flags and its payload.
struct Reply {
    flags: u16,
    payload: Payload,
    /// The message's type, where it is not the payload's.
    kind: Option<u16>,
}

fn link(name: &str) -> Reply {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let payload = NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message));
    Reply { flags: NLM_F_MULTIPART, payload, kind: None }
}

fn done(code: i32) -> Reply {
    let mut done = DoneMessage::default();
    done.code = code;
    Reply { flags: NLM_F_MULTIPART, payload: NetlinkPayload::Done(done), kind: None }
}

fn acknowledgement() -> Reply {
    let mut ack = ErrorMessage::default();
    ack.header = vec![0; 16];
    Reply { flags: 0, payload: NetlinkPayload::Error(ack), kind: None }
}

/// `NLMSGERR_ATTR_MSG` as the kernel writes it.
fn extack(text: &str) -> Vec<u8> {
    let length = 4 + text.len() + 1;
    let mut attribute = (length as u16).to_ne_bytes().to_vec();
    attribute.extend(1u16.to_ne_bytes());
    attribute.extend(text.as_bytes());
    attribute.resize(length.next_multiple_of(4), 0);
    attribute
}

/// A link message that ends within an attribute.
fn undecodable() -> Reply {
    let text = NetlinkPayload::Overrun(vec![0xff; 20]);
    Reply { flags: NLM_F_MULTIPART, payload: text, kind: Some(libc::RTM_NEWLINK) }
}

fn interrupted(reply: Reply) -> Reply {
    Reply { flags: reply.flags | NLM_F_DUMP_INTR, ..reply }
}

impl Reply {
    fn bytes(self, sequence: u32) -> Vec<u8> {
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
        message.payload = self.payload;
        message.header.flags = self.flags;
        message.header.sequence_number = sequence;
        message.finalize();
        if let Some(kind) = self.kind {
            message.header.message_type = kind;
        }
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }
}

/// A connection whose requests `answer` answers, each reply in a datagram of its own; and how many have come.
fn connect(answer: impl Fn(usize) -> Vec<Reply> + Send + 'static) -> (Netlink, Arc<AtomicUsize>) {
    // It keeps datagrams apart, as netlink does.
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let mut kernel = UnixStream::from(theirs);
    thread::spawn(move || {
        let mut request = [0; 4096];
        while let Ok(length @ 1..) = kernel.read(&mut request) {
            let sequence = NetlinkBuffer::new_checked(&request[..length]).unwrap().sequence_number();
            for reply in answer(count.fetch_add(1, Ordering::Relaxed)) {
                kernel.write_all(&reply.bytes(sequence)).unwrap();
            }
        }
    });
    // SAFETY: the descriptor was just made and nobody else has it.
    let socket = unsafe { TokioSocket::from_raw_fd(ours.into_raw_fd()) };
    (Netlink::new(Socket::from(socket)), requests)
}

fn names(links: Vec<spiderpool_core::net::Link>) -> Vec<String> {
    links.into_iter().map(|link| link.name.to_string()).collect()
}

#[tokio::test]
async fn an_interrupted_dump_is_repeated_wherever_its_flag_is() {
    for position in 0..3 {
        let (mut netlink, requests) = connect(move |request| {
            let whole = [link("eth0"), link("net1"), done(0)].into_iter().enumerate();
            match request {
                0 => whole.map(|(i, reply)| if i == position { interrupted(reply) } else { reply }).collect(),
                _ => vec![link("eth0"), done(0)],
            }
        });
        assert_eq!(names(netlink.links().await.unwrap()), ["eth0"], "{position}");
        assert_eq!(requests.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_dump_that_is_always_interrupted_is_an_error() {
    let (mut netlink, requests) = connect(|_| vec![link("eth0"), interrupted(done(0))]);
    let error = netlink.links().await.unwrap_err();
    assert!(matches!(error, NetlinkError::Interrupted { attempts: 10, .. }), "{error}");
    assert_eq!(error.to_string(), "list links : interrupted 10 times by changes");
    assert_eq!(requests.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn a_dump_that_fails_halfway_is_an_error_with_the_kernels_text() {
    let (mut netlink, _) = connect(|_| {
        let mut end = done(-libc::EINVAL);
        if let NetlinkPayload::Done(done) = &mut end.payload {
            done.extended_ack = extack("Invalid header");
        }
        end.flags |= NLM_F_ACK_TLVS;
        vec![link("eth0"), end]
    });
    let error = netlink.links().await.unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL));
    assert!(error.to_string().ends_with("(Invalid header)"), "{error}");
    // The connection is as good as before.
    assert!(netlink.links().await.is_err());
}

#[tokio::test]
async fn a_refused_request_has_the_kernels_text() {
    let (mut netlink, _) = connect(|_| {
        let mut refusal = ErrorMessage::default();
        refusal.code = NonZeroI32::new(-libc::EEXIST);
        refusal.header = [vec![0; 16], extack("Exclusivity flag on")].concat();
        vec![Reply { flags: NLM_F_ACK_TLVS, payload: NetlinkPayload::Error(refusal), kind: None }]
    });
    let error = netlink.set_up(7).await.unwrap_err();
    assert!(error.is_exists() && error.to_string().ends_with("(Exclusivity flag on)"), "{error}");
}

#[tokio::test]
async fn a_clsact_qdisc_that_is_there_is_kept() {
    let (mut netlink, _) = connect(|request| {
        let mut refusal = ErrorMessage::default();
        refusal.code = NonZeroI32::new(-libc::EEXIST);
        match request {
            0 => vec![Reply { flags: 0, payload: NetlinkPayload::Error(refusal), kind: None }],
            // The list of qdiscs, with no `ingress`.
            _ => vec![done(0)],
        }
    });
    let added = netlink.add_clsact(7).await;
    assert!(added.is_ok(), "{added:?}");
}

#[tokio::test]
async fn messages_that_cannot_be_decoded_are_an_error() {
    let (mut netlink, _) = connect(|request| match request {
        0 => vec![link("eth0"), undecodable(), done(0)],
        _ => vec![undecodable(), acknowledgement()],
    });
    let error = netlink.links().await.unwrap_err();
    assert!(matches!(error, NetlinkError::Answer { .. }), "{error}");
    let error = netlink.link_by_index(7).await.unwrap_err();
    assert!(matches!(error, NetlinkError::Answer { .. }), "{error}");
}

#[tokio::test]
async fn an_overrun_ends_the_request() {
    let (mut netlink, _) = connect(|_| {
        let overrun = NetlinkPayload::Overrun(Vec::new());
        vec![link("eth0"), Reply { flags: 0, payload: overrun, kind: Some(NLMSG_OVERRUN) }]
    });
    let error = netlink.links().await.unwrap_err();
    assert!(matches!(error, NetlinkError::Answer { .. }), "{error}");
}

/// It is sent before the next one is, by the same poll that reads: nobody wakes the task for what comes after.
#[tokio::test]
async fn a_request_that_was_cancelled_before_it_was_sent_does_not_hold_up_the_next_one() {
    let (mut netlink, requests) = connect(|_| vec![link("eth0"), done(0)]);
    netlink.links().await.unwrap();
    for _ in 0..3 {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        drop(netlink.handle.request(request).unwrap());
    }
    let links = tokio::time::timeout(Duration::from_secs(10), netlink.links()).await;
    assert_eq!(names(links.expect("an answer").unwrap()), ["eth0"]);
    assert_eq!(requests.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn the_answer_of_a_cancelled_request_does_not_reach_the_next_one() {
    let (mut netlink, requests) = connect(|request| match request {
        0 => vec![link("old"), link("older"), done(0)],
        _ => vec![link("eth0"), done(0)],
    });
    {
        let mut cancelled = pin!(netlink.links());
        // Sends the request; the answer has not come.
        let first = poll_fn(|cx| Poll::Ready(cancelled.as_mut().poll(cx).is_pending())).await;
        assert!(first);
    }
    assert_eq!(names(netlink.links().await.unwrap()), ["eth0"]);
    assert_eq!(requests.load(Ordering::Relaxed), 2);
}
