//! Frames with a VLAN tag on a NIC that has a program: what is in them is not the NIC's own traffic. The kernel takes the tag off and
//! keeps it beside the frame before any program runs, so the frame looks like any other.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use spiderpool_dataplane::{CidrAction, CidrKind, Dataplane, Reason};
use spiderpool_ebpf_common::model::frames::{self, Ends};
use spiderpool_ebpf_common::model::pod::{self, Endpoint, Family, NET1, at};
use support::{BpfFs, can_run};

const LIMIT: Duration = Duration::from_secs(3);

fn sh(script: &str) {
    let output = Command::new("sh").args(["-euxc", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sends a frame as it is, by one of the namespace's devices.
fn send(packets: &OwnedFd, device: &str, frame: &[u8]) {
    // SAFETY: a struct of integers; all zero is valid.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = if_nametoindex(device).unwrap() as i32;
    // SAFETY: frame and address outlive the call, with their lengths.
    let sent = unsafe {
        libc::sendto(
            packets.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

fn tagged(frame: &[u8], number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

fn packets(dataplane: &Dataplane, reason: Reason) -> u64 {
    dataplane.stats(NET1).unwrap().iter().find(|s| s.0 == reason).unwrap().1
}

/// Until the program has counted one more for this reason.
fn counted(dataplane: &Dataplane, reason: Reason, work: impl FnOnce()) {
    let before = packets(dataplane, reason);
    work();
    let deadline = Instant::now() + LIMIT;
    while packets(dataplane, reason) == before {
        assert!(Instant::now() < deadline, "nothing counted as {reason}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn tagged_frames_are_left_alone() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut dataplane = fs.load();
    dataplane.nic_put(NET1, &pod::tables().nics[&NET1]).unwrap();
    let nets = ["10.244.0.0/16", "fd00:244::/32"];
    dataplane
        .cidrs_set(pod::PROFILE, &nets.map(|net| (net.parse().unwrap(), CidrAction::Steer, CidrKind::Pod)))
        .unwrap();
    // No neighbor discovery of the kernel's own among the counted frames.
    sh(&format!(
        "sysctl -qw net.ipv6.conf.default.disable_ipv6=1
        ip link add net1 address 02:bb:00:00:00:02 type veth peer name u0
        ip link set net1 up && ip link set u0 up
        tc qdisc add dev net1 clsact
        for hook in egress ingress; do
            tc filter add dev net1 $hook prio 1 handle 1 bpf da object-pinned {}/$hook flowid :{NET1:x}
        done",
        fs.pins().display()
    ));
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    for family in [Family::V4, Family::V6] {
        // From an address that is steered: it would be recorded.
        let call = Ends {
            src: at(Endpoint::OverlayPod, family),
            sport: 40_000,
            dst: at(Endpoint::Nic(NET1), family),
            dport: 53,
        };
        let (inward, outward) = (frames::udp(call, b"q").bytes, frames::udp(call.back(), b"a").bytes);
        counted(&dataplane, Reason::NotIp, || send(&fd, "u0", &tagged(&inward, 5)));
        assert_eq!(packets(&dataplane, Reason::ArrivalNew), u64::from(family == Family::V6));
        counted(&dataplane, Reason::NotIp, || send(&fd, "net1", &tagged(&outward, 5)));
        // A tag of priority alone.
        counted(&dataplane, Reason::ArrivalNew, || send(&fd, "u0", &tagged(&inward, 7 << 13)));
        counted(&dataplane, Reason::ArrivalSeen, || send(&fd, "u0", &inward));
        // Several of them, which the kernel takes off behind the program.
        for count in 2..4 {
            let hidden = (0..count).fold(inward.clone(), |frame, _| tagged(&frame, 0));
            counted(&dataplane, Reason::HiddenTags, || send(&fd, "u0", &hidden));
        }
    }
}
