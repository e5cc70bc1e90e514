//! Probing against real kernels: they answer for their addresses, by ARP and NDP, and for no others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions it calls")]

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use spiderpool_core::detection::{Query, Timing, arp};
use spiderpool_core::mac::MacAddr;
use spiderpool_net::block_on;
use spiderpool_net::netlink::{NetlinkError, NewVeth};
use spiderpool_net::netns::NetNs;
use spiderpool_net::probe::ask;

const NEAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const THIRD: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
/// Longer than a busy machine needs to answer.
const PATIENT: Timing = Timing { probes: 10, interval: Duration::from_millis(500) };
/// Two that ask each other: it is over for one when the other one has stopped.
const TOGETHER: Timing = Timing { probes: 10, interval: Duration::from_millis(50) };
const SHORT: Timing = Timing { probes: 2, interval: Duration::from_millis(50) };

/// Namespaces need root; without it a test is skipped, except where nobody would notice.
macro_rules! root_or_skip {
    () => {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
    };
}

/// Two namespaces with a veth pair between them, both ends up.
struct Pair {
    near: NetNs,
    far: NetNs,
    near_index: u32,
    far_index: u32,
}

impl Pair {
    fn new() -> Self {
        let (near, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let veth = NewVeth {
            name: &"near".parse().unwrap(),
            mac: NEAR,
            peer_name: &"far".parse().unwrap(),
            peer_mac: FAR,
            peer_netns: &far,
            mtu: 1500,
        };
        let indexes: Result<_, NetlinkError> = block_on(async {
            let (mut here, mut there) = (near.netlink().unwrap(), far.netlink().unwrap());
            here.add_veth(&veth).await?;
            let near_index = here.link_by_name(veth.name).await?.unwrap().index;
            let far_index = there.link_by_name(veth.peer_name).await?.unwrap().index;
            here.set_up(near_index).await?;
            there.set_up(far_index).await?;
            for address in ["10.6.0.9/16", "fd66::9/64"] {
                there.add_address(far_index, address.parse().unwrap()).await?;
            }
            Ok((near_index, far_index))
        });
        let (near_index, far_index) = indexes.unwrap();
        Self { near, far, near_index, far_index }
    }

    fn ask(&self, queries: &[Query], timing: Timing) -> Vec<Option<MacAddr>> {
        let answers = self.near.run(|| ask(self.near_index, NEAR, queries.to_vec(), timing)).unwrap();
        answers.unwrap().into_iter().map(|(_, answer)| answer).collect()
    }

    /// Sends a frame from the far end as it is.
    fn send(&self, frame: &[u8]) {
        let sent = self.far.run(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>).unwrap();
            // SAFETY: sockaddr_ll is a plain C struct for which all zeroes is a valid value.
            let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            to.sll_family = libc::AF_PACKET as u16;
            to.sll_ifindex = self.far_index as i32;
            // SAFETY: the frame and the address outlive the call, and their lengths are given.
            unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            }
        });
        assert_eq!(usize::try_from(sent.unwrap()), Ok(frame.len()));
    }
}

fn owner(address: &str) -> Query {
    Query::Owner(address.parse().unwrap())
}

#[test]
fn a_kernel_answers_for_its_addresses_and_for_no_others() {
    root_or_skip!();
    let pair = Pair::new();
    assert_eq!(pair.ask(&[owner("10.6.0.9"), owner("fd66::9")], PATIENT), [Some(FAR), Some(FAR)]);
    let begun = Instant::now();
    assert_eq!(pair.ask(&[owner("10.6.0.8"), owner("fd66::8")], SHORT), [None, None]);
    assert!(begun.elapsed() >= SHORT.interval * SHORT.probes);
    // Each on its own, however the others end.
    assert_eq!(pair.ask(&[owner("10.6.0.8"), owner("fd66::9")], SHORT), [None, Some(FAR)]);
}

#[test]
fn a_gateway_is_found_by_an_address_that_the_asking_kernel_does_not_have() {
    root_or_skip!();
    let pair = Pair::new();
    let gateway = |gateway: &str, own: &str| Query::Gateway {
        gateway: gateway.parse().unwrap(),
        own: own.parse::<IpAddr>().unwrap(),
    };
    let there = [gateway("10.6.0.9", "10.6.0.8"), gateway("fd66::9", "fd66::8")];
    assert_eq!(pair.ask(&there, PATIENT), [Some(FAR), Some(FAR)]);
    let dead = [gateway("10.6.0.1", "10.6.0.8"), gateway("fd66::1", "fd66::8")];
    assert_eq!(pair.ask(&dead, SHORT), [None, None]);
}

/// The group of an address is joined by nobody who does not have it yet.
#[test]
fn two_that_probe_at_the_same_time_see_each_other() {
    root_or_skip!();
    let pair = Pair::new();
    for query in [owner("10.6.0.7"), owner("fd66::7")] {
        let both = Barrier::new(2);
        let ask_at = |netns: &NetNs, index: u32, mac: MacAddr| {
            let answers = netns.run(|| {
                both.wait();
                ask(index, mac, vec![query], TOGETHER)
            });
            answers.unwrap().unwrap()[0].1
        };
        let (near, far) = thread::scope(|scope| {
            let far = scope.spawn(|| {
                // The first question may come before the other end listens, and an answered one is not asked again.
                ask_at(&pair.far, pair.far_index, FAR)
            });
            (ask_at(&pair.near, pair.near_index, NEAR), far.join().unwrap())
        });
        assert!(near == Some(FAR) || far == Some(NEAR), "{near:?} {far:?}");
    }
}

/// The kernel takes the tag off before anybody sees the frame.
#[test]
fn an_answer_in_another_vlan_is_none_and_one_in_vlan_0_is() {
    root_or_skip!();
    let pair = Pair::new();
    let reply = |vlan: u8| {
        let target = Ipv4Addr::new(10, 6, 0, 8);
        let mut reply = arp::request(THIRD, target, Ipv4Addr::UNSPECIFIED);
        reply[7] = 2;
        [&NEAR.0[..], &THIRD.0, &[0x81, 0, 0, vlan], &[0x08, 0x06], &reply].concat()
    };
    for (vlan, expect) in [(7, None), (0, Some(THIRD))] {
        let answers = thread::scope(|scope| {
            let asked = scope.spawn(|| pair.ask(&[owner("10.6.0.8")], TOGETHER));
            while !asked.is_finished() {
                pair.send(&reply(vlan));
                thread::sleep(Duration::from_millis(5));
            }
            asked.join().unwrap()
        });
        assert_eq!(answers, [expect], "VLAN {vlan}");
    }
}

#[test]
fn a_link_that_is_down_cannot_be_asked_and_says_so() {
    root_or_skip!();
    let pair = Pair::new();
    let down: Result<_, NetlinkError> =
        block_on(async { pair.near.netlink().unwrap().set_down(pair.near_index).await });
    down.unwrap();
    let error = pair.near.run(|| ask(pair.near_index, NEAR, vec![owner("10.6.0.9")], SHORT));
    let error = error.unwrap().unwrap_err().to_string();
    assert!(error.contains("who has 10.6.0.9: Network is down"), "{error}");
}
