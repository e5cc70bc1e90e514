//! Pairs of the kind netkit (Linux 6.7, drivers/net/netkit.c), as Cilium makes them for pods where it is asked to.
//!
//! By a message of our own: the ip(8) of Debian 12 does not know the kind.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// What a pair carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Ethernet, as veth does: both ends have a MAC and ask for their neighbors'.
    L2,
    /// IP: both ends have the MAC 00:00:00:00:00:00, no neighbor is asked for anything, and what has another destination
    /// MAC than the end that it comes in by is not for this host.
    L3,
}

/// A pair to be created, with both ends down.
#[derive(Debug)]
pub struct NewNetkit<'a> {
    /// What it carries.
    pub mode: Mode,
    /// Name of this end.
    pub name: &'a str,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Namespace of the other end.
    pub peer_netns: &'a Path,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h.
mod uapi {
    pub(super) const RTM_NEWLINK: u16 = 16;
    /// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL`
    pub(super) const FLAGS: u16 = 0x605;
    pub(super) const NLMSG_ERROR: u16 = 2;
    /// Of `struct nlmsghdr`, and of `struct ifinfomsg`.
    pub(super) const HEADER: usize = 16;
    pub(super) const IFLA_IFNAME: u16 = 3;
    pub(super) const IFLA_MTU: u16 = 4;
    pub(super) const IFLA_LINKINFO: u16 = 18;
    pub(super) const IFLA_NET_NS_FD: u16 = 28;
    pub(super) const IFLA_INFO_KIND: u16 = 1;
    pub(super) const IFLA_INFO_DATA: u16 = 2;
    pub(super) const IFLA_NETKIT_PEER_INFO: u16 = 1;
    pub(super) const IFLA_NETKIT_MODE: u16 = 5;
    pub(super) const NETKIT_L2: u32 = 0;
    pub(super) const NETKIT_L3: u32 = 1;
}

impl NewNetkit<'_> {
    /// Creates it in the calling thread's namespace. `false`: the kernel makes no such pairs.
    pub fn add(&self) -> Result<bool> {
        let netns = File::open(self.peer_netns).with_context(|| self.peer_netns.display().to_string())?;
        let netns = OwnedFd::from(netns);
        let what = || format!("netkit {} with peer {}", self.name, self.peer_name);
        match request(&self.message(u32::try_from(netns.as_raw_fd())?)).with_context(what)? {
            0 => Ok(true),
            errno if Errno::from_raw(errno) == Errno::EOPNOTSUPP => Ok(false),
            errno => Err(Errno::from_raw(errno)).with_context(what),
        }
    }

    fn message(&self, netns: u32) -> Vec<u8> {
        let mode = match self.mode {
            Mode::L2 => uapi::NETKIT_L2,
            Mode::L3 => uapi::NETKIT_L3,
        };
        let mtu = attribute(uapi::IFLA_MTU, &self.mtu.to_ne_bytes());
        let peer = [
            vec![0; uapi::HEADER],
            name(self.peer_name),
            mtu.clone(),
            attribute(uapi::IFLA_NET_NS_FD, &netns.to_ne_bytes()),
        ];
        let data = [
            attribute(uapi::IFLA_NETKIT_MODE, &mode.to_ne_bytes()),
            attribute(uapi::IFLA_NETKIT_PEER_INFO, &peer.concat()),
        ];
        let info =
            [attribute(uapi::IFLA_INFO_KIND, b"netkit"), attribute(uapi::IFLA_INFO_DATA, &data.concat())];
        let body =
            [vec![0; uapi::HEADER], name(self.name), mtu, attribute(uapi::IFLA_LINKINFO, &info.concat())]
                .concat();
        let length = (uapi::HEADER + body.len()) as u32;
        let kind = [uapi::RTM_NEWLINK.to_ne_bytes(), uapi::FLAGS.to_ne_bytes()].concat();
        [length.to_ne_bytes().to_vec(), kind, vec![0; 8], body].concat()
    }
}

fn name(text: &str) -> Vec<u8> {
    attribute(uapi::IFLA_IFNAME, &[text.as_bytes(), &[0]].concat())
}

/// Length, type and value, filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a request; the number of the error that the kernel answers with, 0 if it has none.
fn request(message: &[u8]) -> Result<i32> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let of = |from: usize, to: usize| answer.get(from..to).filter(|_| to <= length);
    let kind = of(4, 6).context("a short answer")?;
    ensure!(kind == uapi::NLMSG_ERROR.to_ne_bytes(), "an answer of another type: {kind:?}");
    let number = of(uapi::HEADER, uapi::HEADER + 4).context("a short answer")?;
    Ok(-i32::from_ne_bytes(number.try_into()?))
}
