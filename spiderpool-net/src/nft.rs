//! nftables by netlink: needs no program on the host or in an image, and does not care which flavor of iptables there is.
//!
//! Of the calling thread's namespace: call this inside [`NetNs::run`].
//!
//! [`NetNs::run`]: crate::netns::NetNs::run

mod marks;

use std::io;

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::libc;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use spiderpool_core::names::IfName;
use spiderpool_core::net::ReturnMarks;
use thiserror::Error;

/// Number of the subsystem in the header of a batch (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10;
/// Room for the answers to one batch.
const BUFFER: usize = 64 * 1024;

/// A request to nftables failed.
#[derive(Debug, Error)]
#[error("nftables: {operation} {table}: {source}{}", hint(source))]
pub struct NftError {
    /// What was asked.
    operation: &'static str,
    /// For which table.
    table: String,
    /// The kernel's errno, or that of the socket.
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EINVAL) => {
            " (does the kernel have the modules nf_tables and nft_ct?)"
        }
        _ => "",
    }
}

/// Sets the marks in place of those that there were. Whether there were any.
pub fn set_return_marks(marks: &ReturnMarks) -> Result<bool, NftError> {
    let table = ReturnMarks::table(&marks.nic);
    let was_there = has_return_marks(&marks.nic)?;
    // In one batch: the table is made so that it can be deleted with what it holds, and is made anew.
    let mut batch = vec![
        (NLM_F_CREATE, NfTablesMessage::NewTable(of_table(&table))),
        (0, NfTablesMessage::DeleteTable(of_table(&table))),
        (NLM_F_CREATE, NfTablesMessage::NewTable(of_table(&table))),
    ];
    batch.extend(marks::ruleset(&table, marks).into_iter().map(|message| (marks::FLAGS, message)));
    run_batch(batch).map(|()| was_there).map_err(error("set marks in", table))
}

/// Deletes the marks that were set for a NIC; that there are none is not an error.
pub fn delete_return_marks(nic: &IfName) -> Result<(), NftError> {
    let table = ReturnMarks::table(nic);
    match run_batch(vec![(0, NfTablesMessage::DeleteTable(of_table(&table)))]) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(error("delete", table)),
    }
}

/// Whether there are marks for a NIC.
pub fn has_return_marks(nic: &IfName) -> Result<bool, NftError> {
    let table = ReturnMarks::table(nic);
    let request = message(NLM_F_ACK, 1, inet(NfTablesMessage::GetTable(of_table(&table))));
    match exchange(&[request]) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        result => result.map(|()| true).map_err(error("look up", table)),
    }
}

fn of_table(name: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] }
}

fn error(operation: &'static str, table: String) -> impl FnOnce(io::Error) -> NftError {
    move |source| NftError { operation, table, source }
}

/// All of it or nothing.
fn run_batch(requests: Vec<(u16, NfTablesMessage)>) -> io::Result<()> {
    let control = |message| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
        NetfilterMessage::new(header, message)
    };
    let end = requests.len() as u32 + 1;
    let mut messages = vec![message(0, 0, control(ControlMessage::BatchBegin))];
    let requests = (1..).zip(requests);
    messages
        .extend(requests.map(|(number, (flags, request))| message(flags | NLM_F_ACK, number, inet(request))));
    messages.push(message(0, end, control(ControlMessage::BatchEnd)));
    exchange(&messages)
}

fn inet(message: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

fn message(flags: u16, number: u32, message: NetfilterMessage) -> NetlinkMessage<NetfilterMessage> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = number;
    message.finalize();
    message
}

/// Sends everything as one datagram. The kernel has answered when that returns (`nfnetlink_rcv_batch()` in
/// net/netfilter/nfnetlink.c); the first error counts.
fn exchange(messages: &[NetlinkMessage<NetfilterMessage>]) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut bytes = Vec::new();
    for message in messages {
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }
    socket.send(&bytes, 0)?;
    let mut is_answered = false;
    loop {
        let mut answer = Vec::with_capacity(BUFFER);
        match socket.recv(&mut answer, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_answered => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => check(&answer)?,
        }
        is_answered = true;
    }
}

/// Fails with the first error among the messages of a datagram.
fn check(mut datagram: &[u8]) -> io::Result<()> {
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        if message.message_type() == NLMSG_ERROR {
            let code =
                message.payload().first_chunk().map_or(-libc::EBADMSG, |code| i32::from_ne_bytes(*code));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
        datagram = datagram.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}
