//! Each reason by a packet that leads to it, in the kernel; and what only the kernel knows: sockets.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use spiderpool_dataplane::{Reason, Sizes};
use spiderpool_ebpf_common::flow_state;
use spiderpool_ebpf_common::headers::{ACK, FIN, RST, SYN};
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, NatEntry, NicEntry, Tuple};
use spiderpool_ebpf_common::model::frames::{self, Ends};
use spiderpool_ebpf_common::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, POD, SP0, VETH0, at};
use spiderpool_ebpf_common::model::traffic::Program;
use spiderpool_ebpf_common::model::{Frame, Tables, pod};
use spiderpool_ebpf_common::nat::{PORT_COUNT, PORT_FIRST, pseudo_random};
use spiderpool_ebpf_common::verdict::Verdict;
use support::run::{Bench, Contents};
use support::{SIZES, can_run, wait_until_up};

const PASS: Verdict = Verdict::Pass;

const fn by(nic: u16) -> Verdict {
    Verdict::Redirect { ifindex: IFINDEX + nic as u32 }
}

const fn neigh(nic: u16) -> Verdict {
    Verdict::RedirectNeigh { ifindex: IFINDEX + nic as u32 }
}

fn ends(src: Endpoint, dst: Endpoint) -> Ends {
    Ends { src: at(src, Family::V4), sport: 40_000, dst: at(dst, Family::V4), dport: 53 }
}

/// What a packet was counted as, and what became of it.
fn run(bench: &Bench, out: bool, nic: u16, frame: &Frame, tables: &Tables) -> (Verdict, Vec<Reason>, Frame) {
    run_program(bench, if out { Program::Egress } else { Program::Ingress }, nic, frame, tables)
}

fn run_program(
    bench: &Bench,
    program: Program,
    nic: u16,
    frame: &Frame,
    tables: &Tables,
) -> (Verdict, Vec<Reason>, Frame) {
    let before = bench.contents().stats;
    let (verdict, after_run) = bench.run_program(program, nic, frame, tables).unwrap();
    let after = bench.contents().stats;
    let packets = |stats: &std::collections::BTreeMap<_, spiderpool_ebpf_common::reason::Counter>, r| {
        stats.get(&(nic, r)).map_or((0, 0), |c| (c.packets, c.bytes))
    };
    let mut reasons = Vec::new();
    for &reason in Reason::ALL {
        let (was, is) = (packets(&before, reason), packets(&after, reason));
        if was != is {
            assert_eq!(is, (was.0 + 1, was.1 + frame.bytes.len() as u64), "{reason}");
            reasons.push(reason);
        }
    }
    (verdict, reasons, after_run)
}

#[test]
fn every_reason() {
    if !can_run() {
        return;
    }
    let mut tables = pod::tables();
    let mut bench = Bench::new(&tables, &SIZES);
    bench.reset(&tables);
    let (net1, eth0) = (Endpoint::Nic(NET1), Endpoint::Nic(ETH0));
    let to_service = ends(net1, Endpoint::Service);
    let seen = ends(eth0, Endpoint::Service);
    let call = Ends { dport: 80, ..ends(Endpoint::OverlayPod, net1) };
    let v6_to_service =
        Ends { src: at(net1, Family::V6), dst: at(Endpoint::Service, Family::V6), ..to_service };
    let v4 = |place| match at(place, Family::V4) {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => unreachable!(),
    };
    let v6 = |place| match at(place, Family::V6) {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(_) => unreachable!(),
    };
    let multicast = Ends { dst: "224.0.0.251".parse().unwrap(), ..to_service };
    let own = Verdict::RedirectIngress { ifindex: IFINDEX + u32::from(NET1) };
    let mut hidden = frames::udp(call, b"");
    hidden.bytes.splice(12..12, [0x81, 0, 0, 0]);
    let mut short = frames::udp(to_service, b"");
    short.bytes.truncate(40);
    // The source is the pod's address in IPv4, and every map has it.
    let mapped = frames::with_mapped_source(frames::udp(v6_to_service, b"q"), v4(net1));
    // In order: later packets meet what earlier ones left in the maps.
    let table: Vec<(bool, u16, Frame, Verdict, Vec<Reason>)> = vec![
        (true, NET1, frames::tcp(ends(net1, Endpoint::Outside), SYN, b""), PASS, vec![Reason::NotOurs]),
        (true, ETH0, Frame::new(vec![0xff; 60]), PASS, vec![Reason::NotIp]),
        (true, NET1, short, PASS, vec![Reason::Malformed]),
        (true, NET1, mapped.clone(), PASS, vec![Reason::Malformed]),
        (false, ETH0, mapped, PASS, vec![Reason::Malformed]),
        (true, NET1, frames::udp(multicast, b"x"), PASS, vec![Reason::LinkScope]),
        (true, SP0, frames::udp(to_service, b"x"), PASS, vec![Reason::NodeLink]),
        (
            true,
            NET1,
            frames::udp(ends(Endpoint::Foreign, Endpoint::Service), b"x"),
            PASS,
            vec![Reason::ForeignSource],
        ),
        (true, NET1, frames::arp(v4(net1), v4(Endpoint::Node)), own, vec![Reason::ArpAnswered]),
        (true, NET1, frames::solicitation(v6(net1), v6(Endpoint::Node)), own, vec![Reason::NdpAnswered]),
        (true, ETH0, frames::tcp(seen, SYN, b""), PASS, vec![Reason::ClusterDirect]),
        (true, NET1, frames::tcp(seen, ACK, b""), by(ETH0), vec![Reason::Steered]),
        (
            true,
            NET1,
            frames::tcp(ends(eth0, Endpoint::Outside), SYN, b""),
            by(ETH0),
            vec![Reason::BySource, Reason::MssClamped],
        ),
        (true, NET1, frames::tcp(to_service, ACK, b""), PASS, vec![Reason::NatUnknown]),
        (true, NET1, frames::tcp(to_service, SYN, b""), by(ETH0), vec![Reason::NatNew, Reason::MssClamped]),
        (
            false,
            ETH0,
            frames::tcp(seen.back(), SYN | ACK, b""),
            PASS,
            vec![Reason::TranslatedBack, Reason::MssClamped],
        ),
        (true, NET1, frames::tcp(to_service, ACK, b"x"), by(ETH0), vec![Reason::Translated]),
        (
            true,
            NET1,
            frames::tcp(to_service, ACK, &[0; 1440]),
            Verdict::RedirectIngress { ifindex: IFINDEX + u32::from(NET1) },
            vec![Reason::MtuExceeded],
        ),
        (true, ETH0, frames::tcp(seen, SYN, b""), PASS, vec![Reason::NatConflict, Reason::MssClamped]),
        (
            true,
            NET2,
            frames::tcp(ends(Endpoint::Nic(NET2), Endpoint::Service), SYN, b""),
            by(ETH0),
            vec![Reason::NatPort, Reason::MssClamped],
        ),
        (
            false,
            NET1,
            frames::tcp(ends(Endpoint::Outside, eth0), SYN, b""),
            Verdict::Drop,
            vec![Reason::ClusterAddress],
        ),
        (false, NET1, hidden, Verdict::Drop, vec![Reason::HiddenTags]),
        (false, NET1, frames::tcp(call, SYN, b""), PASS, vec![Reason::ArrivalNew]),
        (false, NET1, frames::tcp(call, ACK, b""), PASS, vec![Reason::ArrivalSeen]),
        (true, NET1, frames::tcp(call.back(), SYN | ACK, b""), PASS, vec![Reason::ReplyHere]),
        (true, ETH0, frames::tcp(call.back(), FIN | ACK, b""), by(NET1), vec![Reason::ReplyRedirected]),
        (true, ETH0, frames::icmp_error(ends(net1, Endpoint::Node)), neigh(NET1), vec![Reason::IcmpError]),
        (
            true,
            ETH0,
            frames::fragment(frames::udp(ends(net1, Endpoint::Node), &[0; 64]), false),
            neigh(NET1),
            vec![Reason::Fragment],
        ),
        (
            true,
            NET1,
            frames::fragment(frames::udp(to_service, &[0; 64]), true),
            by(ETH0),
            vec![Reason::NatNew],
        ),
        (
            true,
            NET1,
            frames::fragment(frames::udp(to_service, &[0; 64]), false),
            by(ETH0),
            vec![Reason::FragmentFollowed],
        ),
        (
            false,
            ETH0,
            frames::icmp_error_about(seen.back(), &frames::udp(seen, b"q")),
            PASS,
            vec![Reason::ErrorTranslated],
        ),
        (
            true,
            ETH0,
            frames::other(ends(net1, Endpoint::Node), 132, &[0; 12]),
            neigh(NET1),
            vec![Reason::OtherProtocol],
        ),
    ];
    let mut covered = BTreeSet::new();
    for (number, (out, nic, frame, verdict, reasons)) in table.into_iter().enumerate() {
        let (got, counted, _) = run(&bench, out, nic, &frame, &tables);
        assert_eq!((got, &counted), (verdict, &reasons), "packet {number}");
        covered.extend(counted);
    }
    let call = Ends { sport: 41_000, ..ends(Endpoint::Node, net1) };
    run_program(&bench, Program::HostEgress, SP0, &frames::udp(call, b"q"), &tables);
    let arrived = run(&bench, false, SP0, &frames::udp(call, b"q"), &tables);
    assert_eq!((arrived.0, arrived.1), (PASS, vec![Reason::ArrivalNew]));
    tables.wildcard = true;
    let answer = frames::udp(Ends { src: at(eth0, Family::V4), ..call.back() }, b"a");
    let (got, counted, frame) = run(&bench, true, ETH0, &answer, &tables);
    assert_eq!((got, &counted[..]), (by(SP0), &[Reason::ReplySource][..]));
    assert_eq!(frames::ends(&frame), Some(call.back()));
    covered.extend(counted);
    covered.extend(reasons_at_the_host_end(&mut bench, &tables));
    covered.extend(reasons_at_the_host_end_of_veth0());
    // The next ones have tests of their own; helpers do not fail on purpose.
    covered.extend([
        Reason::NatFull,
        Reason::NatNoPort,
        Reason::OwnFlow,
        Reason::ArrivalsFull,
        Reason::Failed,
    ]);
    let missing: Vec<_> = Reason::ALL.iter().filter(|r| !covered.contains(r)).collect();
    assert!(missing.is_empty(), "no packet for {missing:?}");
}

fn reasons_at_the_host_end_of_veth0() -> Vec<Reason> {
    let tables = pod::underlay_tables();
    let mut bench = Bench::new(&tables, &SIZES);
    bench.reset(&tables);
    let own = ends(Endpoint::Nic(NET1), Endpoint::Service);
    let table = [
        (frames::tcp(own, SYN, b""), PASS, Reason::LinkFromPod),
        (
            frames::tcp(ends(Endpoint::Foreign, Endpoint::Service), SYN, b""),
            Verdict::Drop,
            Reason::LinkForeign,
        ),
    ];
    let mut covered = Vec::new();
    for (frame, verdict, reason) in table {
        let (got, counted, after) = run_program(&bench, Program::HostIngress, VETH0, &frame, &tables);
        assert_eq!((got, &counted[..], &after.bytes), (verdict, &[reason][..], &frame.bytes));
        covered.push(reason);
    }
    covered
}

fn reasons_at_the_host_end(bench: &mut Bench, tables: &Tables) -> Vec<Reason> {
    let call = ends(Endpoint::Node, Endpoint::Nic(NET1));
    let other = Ends { sport: 40_001, ..call };
    let neighbor = Tables { forwarded: true, from_pods: true, ..tables.clone() };
    let spoofed = Tables { forwarded: true, spoofed: true, ..tables.clone() };
    let (to_pod, from_pod) = (Program::HostEgress, Program::HostIngress);
    let table = [
        (to_pod, frames::udp(call, b"q"), tables, PASS, Reason::LinkOpened),
        (to_pod, frames::udp(call, b"q"), tables, PASS, Reason::LinkFlow),
        (to_pod, frames::tcp(call, ACK, b"x"), tables, PASS, Reason::LinkToPod),
        (from_pod, frames::udp(call.back(), b"a"), tables, PASS, Reason::LinkReply),
        (from_pod, frames::tcp(call.back(), SYN, b""), tables, Verdict::Drop, Reason::LinkDenied),
        (from_pod, Frame::new(vec![0xff; 60]), tables, Verdict::Drop, Reason::LinkIgnored),
        (to_pod, frames::udp(other, b"q"), &spoofed, Verdict::Drop, Reason::LinkSpoofed),
    ];
    let mut covered = Vec::new();
    for (number, (program, frame, tables, verdict, reason)) in table.into_iter().enumerate() {
        let (got, counted, after) = run_program(bench, program, SP0, &frame, tables);
        assert_eq!((got, &counted[..]), (verdict, &[reason][..]), "packet {number}");
        assert_eq!(after.bytes, frame.bytes, "packet {number}");
        covered.push(reason);
    }
    bench.set_nic(SP0, &NicEntry { refuses_pods: 1, ..tables.nics[&SP0] });
    for (tables, verdict, reason) in
        [(&neighbor, Verdict::Drop, Reason::LinkNeighbor), (tables, PASS, Reason::LinkFlow)]
    {
        let (got, counted, _) = run_program(bench, to_pod, SP0, &frames::udp(call, b"q"), tables);
        assert_eq!((got, &counted[..]), (verdict, &[reason][..]));
        covered.push(reason);
    }
    for port in 1..=u16::try_from(SIZES.per_pod.link_flows).unwrap() {
        let flow = frames::udp(Ends { sport: port, ..call }, b"q");
        covered.extend(run_program(bench, to_pod, SP0, &flow, tables).1);
    }
    covered
}

/// A pod that has used up its share gets no more flows; another pod does, and so does the first one when the agent has removed
/// what has expired.
#[test]
fn a_pods_share_of_link_flows_is_its_own() {
    if !can_run() {
        return;
    }
    let mut tables = pod::tables();
    let neighbor = (10, POD + 1);
    let sp0 = tables.nics[&SP0];
    tables.nics.insert(neighbor.0, NicEntry { pod: neighbor.1, ..sp0 });
    let mut bench = Bench::new(&tables, &SIZES);
    bench.reset(&tables);
    let call = ends(Endpoint::Outside, Endpoint::Nic(NET1));
    let flow = |port| frames::udp(Ends { sport: port, ..call }, b"q");
    let open =
        |bench: &Bench, nic, port| run_program(bench, Program::HostEgress, nic, &flow(port), &tables).1;
    let share = u16::try_from(SIZES.per_pod.link_flows).unwrap();
    assert_eq!(open(&bench, neighbor.0, 1), [Reason::LinkOpened]);
    for port in 1..=share {
        assert_eq!(open(&bench, SP0, port), [Reason::LinkOpened]);
    }
    for port in 1000..3000 {
        assert_eq!(open(&bench, SP0, port), [Reason::LinkFull]);
    }
    assert_eq!(open(&bench, neighbor.0, 1), [Reason::LinkFlow], "the neighbor's flow is there");
    assert_eq!(open(&bench, neighbor.0, 2), [Reason::LinkOpened], "and it gets more");
    // The model's clock is far ahead of the kernel's: to the agent all of these are in the future, and live.
    let expired = bench.dataplane.expire().unwrap().link_flows;
    assert_eq!(
        (expired.removed, expired.left, expired.most),
        (0, usize::from(share) + 2, usize::from(share))
    );
    assert_eq!(open(&bench, SP0, 5000), [Reason::LinkFull]);
    // After this they expire (`link_timeout`).
    wait_until_up(Duration::from_secs(31));
    bench.forget_time_of_link_flows(POD);
    let expired = bench.dataplane.expire().unwrap().link_flows;
    assert_eq!((expired.removed, expired.left), (usize::from(share), 2));
    assert_eq!(open(&bench, SP0, 5000), [Reason::LinkOpened]);
    bench.dataplane.pod_flush(neighbor.1).unwrap();
    for port in 1..=share {
        assert_eq!(open(&bench, neighbor.0, port), [Reason::LinkOpened]);
    }
    assert_eq!(open(&bench, neighbor.0, 5000), [Reason::LinkFull]);
}

/// One pod's flood of records would hide what is wrong with another.
#[test]
fn each_nic_has_a_limit_of_its_own_in_the_log() {
    if !can_run() {
        return;
    }
    let mut tables = pod::tables();
    let neighbor = (10, POD + 1);
    tables.nics.insert(neighbor.0, NicEntry { pod: neighbor.1, ..tables.nics[&SP0] });
    let mut bench = Bench::new(&tables, &SIZES);
    bench.reset(&tables);
    let call = ends(Endpoint::Outside, Endpoint::Nic(NET1));
    let share = u16::try_from(SIZES.per_pod.link_flows).unwrap();
    for nic in [SP0, neighbor.0] {
        for port in 1..share + 100 {
            let flow = frames::udp(Ends { sport: port, ..call }, b"q");
            run_program(&bench, Program::HostEgress, nic, &flow, &tables);
        }
    }
    let logged = bench.logged();
    for nic in [SP0, neighbor.0] {
        assert_eq!(
            logged.matches(&format!("by the node link: they are dropped nic={nic}\n")).count(),
            1,
            "{logged}"
        );
    }
}

#[test]
fn a_full_map_is_counted_and_leaves_no_half() {
    if !can_run() {
        return;
    }
    let tables = pod::tables();
    for room in [1, 2] {
        let mut bench = Bench::new(&tables, &Sizes { nat: room, ..SIZES });
        bench.reset(&tables);
        let e = ends(Endpoint::Nic(NET1), Endpoint::Service);
        let (verdict, reasons, _) = run(&bench, true, NET1, &frames::udp(e, b"q"), &tables);
        let (want, left) =
            if room == 1 { ((PASS, Reason::NatFull), 0) } else { ((by(ETH0), Reason::NatNew), 2) };
        assert_eq!((verdict, reasons), (want.0, vec![want.1]));
        assert_eq!(bench.contents().nat.len(), left);
        let other = frames::udp(Ends { sport: 40_001, ..e }, b"q");
        let (verdict, reasons, frame) = run(&bench, true, NET1, &other, &tables);
        assert_eq!((verdict, reasons), (PASS, vec![Reason::NatFull]));
        assert_eq!(frame.bytes, other.bytes);
        let logged = bench.logged();
        assert!(logged.contains("WARN") && logged.contains("coordinator.ebpf.maps.nat"), "{logged}");
    }
}

/// A live translation of another NIC of the pod that has `port` towards the remote side of `e`.
fn occupy(tables: &Tables, e: Ends, port: u16) {
    let (local, remote) = (frames::addr(at(Endpoint::Nic(NET2), Family::V4)), frames::addr(e.dst));
    let cluster = frames::addr(at(Endpoint::Nic(ETH0), Family::V4));
    let key = |tuple: Tuple, local, local_port| FlowKey {
        pod: POD,
        protocol: 17,
        tuple: tuple as u8,
        local_port,
        remote_port: e.dport,
        local,
        remote,
    };
    let entry = |addr, port| NatEntry { last_seen: tables.now, addr, port, state: 0, _pad: [0; 5] };
    let mut nat = tables.nat.borrow_mut();
    nat.insert(key(Tuple::Original, local, port), entry(cluster, port));
    nat.insert(key(Tuple::Translated, cluster, port), entry(local, port));
}

#[test]
fn no_free_port_is_counted() {
    if !can_run() {
        return;
    }
    let tables = pod::tables();
    let e = ends(Endpoint::Nic(NET1), Endpoint::Service);
    occupy(&tables, e, e.sport);
    for attempt in 1..=4 {
        occupy(&tables, e, PORT_FIRST + (pseudo_random(tables.seed, attempt) % PORT_COUNT) as u16);
    }
    let mut bench = Bench::new(&tables, &SIZES);
    bench.reset(&tables);
    let (verdict, reasons, _) = run(&bench, true, NET1, &frames::udp(e, b"q"), &tables);
    assert_eq!((verdict, reasons), (PASS, vec![Reason::NatNoPort]));
    assert_eq!(bench.contents().nat, Contents::of(&tables).nat);
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// A socket that has eth0's address and port 40000 towards `remote`, or only listens there.
fn tcp_socket(local: &str, remote: Option<&str>) -> impl AsRawFd {
    let addr = |s: &str| SockaddrStorage::from(s.parse::<std::net::SocketAddr>().unwrap());
    let family = if local.contains('[') { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    bind(fd.as_raw_fd(), &addr(local)).unwrap();
    match remote {
        Some(remote) => {
            let error = connect(fd.as_raw_fd(), &addr(remote)).unwrap_err();
            assert_eq!(error, nix::errno::Errno::EINPROGRESS);
        }
        None => nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(1).unwrap()).unwrap(),
    }
    fd
}

#[test]
fn ports_of_sockets_are_not_taken() {
    if !can_run() {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for command in [
        "link set lo up",
        "addr add 10.244.1.5/32 dev lo",
        "addr add fd00:244:1::5/128 dev lo nodad",
        "route add default dev lo",
        "-6 route add default dev lo",
    ] {
        ip(command);
    }
    let tables = pod::tables();
    let mut bench = Bench::new(&tables, &SIZES);
    for (family, local, any, remote) in [
        (Family::V4, "10.244.1.5:40000", "0.0.0.0:40000", "10.96.0.10:53"),
        (Family::V6, "[fd00:244:1::5]:40000", "[::]:40000", "[fd00:96::a]:53"),
    ] {
        let e = Ends {
            src: at(Endpoint::Nic(NET1), family),
            sport: 40_000,
            dst: at(Endpoint::Service, family),
            dport: 53,
        };
        let mut reasons = |frame: Frame| {
            bench.reset(&tables);
            run(&bench, true, NET1, &frame, &tables).1
        };
        let syn = || frames::tcp(e, SYN, b"");
        let listener = tcp_socket(any, None);
        assert_eq!(reasons(syn()), [Reason::NatNew, Reason::MssClamped], "a listener has no tuple");
        drop(listener);
        let connecting = tcp_socket(local, Some(remote));
        assert_eq!(reasons(syn()), [Reason::NatPort, Reason::MssClamped]);
        drop(connecting);
        assert_eq!(reasons(syn()), [Reason::NatNew, Reason::MssClamped]);
        let wildcard = UdpSocket::bind(any).unwrap();
        assert_eq!(reasons(frames::udp(e, b"q")), [Reason::NatNew], "most likely the sender itself");
        drop(wildcard);
        let bound = UdpSocket::bind(local).unwrap();
        assert_eq!(reasons(frames::udp(e, b"q")), [Reason::NatPort]);
        bound.connect(remote).unwrap();
        assert_eq!(reasons(frames::udp(e, b"q")), [Reason::NatPort]);
        let elsewhere = Ends { dport: 80, ..e };
        assert_eq!(reasons(frames::udp(elsewhere, b"q")), [Reason::NatNew], "connected to somebody else");
    }
}

/// A namespace of this thread that has net1's addresses.
fn enter_namespace_with_net1() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for command in [
        "link set lo up",
        "addr add 172.18.55.180/32 dev lo",
        "addr add fd00:18::b4/128 dev lo nodad",
        "route add default dev lo",
        "-6 route add default dev lo",
    ] {
        ip(command);
    }
}

/// Who sends in the name of whom the pod talks to diverts nothing; servers are called as ever.
#[test]
fn flows_of_connected_sockets_are_not_recorded() {
    if !can_run() {
        return;
    }
    enter_namespace_with_net1();
    let tables = pod::tables();
    let mut bench = Bench::new(&tables, &SIZES);
    for (family, local, any, remote, other) in [
        (Family::V4, "172.18.55.180:8040", "0.0.0.0:8040", "10.244.2.9:53", "10.244.2.9:54"),
        (Family::V6, "[fd00:18::b4]:8040", "[::]:8040", "[fd00:244:2::9]:53", "[fd00:244:2::9]:54"),
    ] {
        let e = Ends {
            src: at(Endpoint::OverlayPod, family),
            sport: 53,
            dst: at(Endpoint::Nic(NET1), family),
            dport: 8040,
        };
        let mut reasons = |frame: Frame| {
            [NET1, SP0].map(|nic| {
                bench.reset(&tables);
                if nic == SP0 {
                    run_program(&bench, Program::HostEgress, nic, &frame, &tables);
                }
                let counted = run(&bench, false, nic, &frame, &tables).1;
                *counted.iter().find(|reason| **reason != Reason::MssClamped).unwrap()
            })
        };
        let (syn, datagram) = (|| frames::tcp(e, SYN, b""), || frames::udp(e, b"x"));
        let recorded = |reasons: [Reason; 2]| {
            reasons.iter().all(|reason| matches!(reason, Reason::ArrivalNew | Reason::ArrivalSeen))
        };
        let listener = tcp_socket(any, None);
        assert!(recorded(reasons(syn())));
        drop(listener);
        let connecting = tcp_socket(local, Some(remote));
        assert_eq!(reasons(syn()), [Reason::OwnFlow; 2]);
        drop(connecting);
        assert!(recorded(reasons(syn())));
        for address in [any, local] {
            let server = UdpSocket::bind(address).unwrap();
            assert!(recorded(reasons(datagram())), "{address}");
            server.connect(other).unwrap();
            assert!(recorded(reasons(datagram())), "{address} to somebody else");
            server.connect(remote).unwrap();
            assert_eq!(reasons(datagram()), [Reason::OwnFlow; 2], "{address}");
        }
    }
}

/// The sequence number that a TCP socket expects next (`TCP_REPAIR`, Documentation of CRIU).
fn expected_sequence(socket: &impl AsRawFd) -> u32 {
    const RECEIVE_QUEUE: libc::c_int = 1;
    let set = |option, value: libc::c_int| {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: an option that takes an integer.
        let ret = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), size)
        };
        assert_eq!(ret, 0);
    };
    set(libc::TCP_REPAIR, 1);
    set(libc::TCP_REPAIR_QUEUE, RECEIVE_QUEUE);
    let (mut sequence, mut size) = (0u32, size_of::<u32>() as libc::socklen_t);
    // SAFETY: an option that gives an integer, and a place for it.
    let ret = unsafe {
        let place = (&raw mut sequence).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ, place, &raw mut size)
    };
    assert_eq!(ret, 0);
    set(libc::TCP_REPAIR, 0);
    sequence
}

/// A RST ends what is recorded of a connection only if the pod's socket takes it (RFC 5961).
#[test]
fn a_reset_counts_if_the_socket_takes_it() {
    if !can_run() {
        return;
    }
    enter_namespace_with_net1();
    // Addresses of hosts behind net1 that are steered.
    for address in ["172.20.0.9/32", "fd00:18:1::9/128"] {
        ip(&format!("addr add {address} dev lo"));
    }
    let tables = pod::tables();
    let mut bench = Bench::new(&tables, &SIZES);
    for (family, remote) in
        [(AddressFamily::Inet, "172.20.0.9:0"), (AddressFamily::Inet6, "[fd00:18:1::9]:0")]
    {
        let local =
            at(Endpoint::Nic(NET1), if family == AddressFamily::Inet { Family::V4 } else { Family::V6 });
        let listener = std::net::TcpListener::bind((local, 0)).unwrap();
        let client = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
        let address = |addr: std::net::SocketAddr| SockaddrStorage::from(addr);
        bind(client.as_raw_fd(), &address(remote.parse().unwrap())).unwrap();
        connect(client.as_raw_fd(), &address(listener.local_addr().unwrap())).unwrap();
        let (server, from) = listener.accept().unwrap();
        let e = Ends {
            src: from.ip(),
            sport: from.port(),
            dst: local,
            dport: server.local_addr().unwrap().port(),
        };
        let key = FlowKey {
            pod: POD,
            protocol: 6,
            tuple: Tuple::Original as u8,
            local_port: e.dport,
            remote_port: e.sport,
            local: frames::addr(e.dst),
            remote: frames::addr(e.src),
        };
        let state_after = |bench: &mut Bench, sequence: u32| {
            let tables = tables.clone();
            let entry = ArrivalEntry {
                last_seen: tables.now,
                local: key.local,
                heard: 0,
                nic: NET1,
                mac: [0; 6],
                state: flow_state::ESTABLISHED,
                _pad: [0; 3],
            };
            tables.arrivals.borrow_mut().insert(key, entry);
            bench.reset(&tables);
            run(bench, false, NET1, &frames::with_sequence(frames::tcp(e, RST, b""), sequence), &tables);
            bench.contents().arrivals[&key].state & !flow_state::ESTABLISHED
        };
        let expected = expected_sequence(&server);
        for wrong in [expected.wrapping_add(1 << 24), expected.wrapping_sub(1), expected.wrapping_add(1)] {
            assert_eq!(state_after(&mut bench, wrong), flow_state::DOUBTFUL_RESET);
        }
        assert_eq!(state_after(&mut bench, expected), flow_state::RESET);
        drop((listener, server, client));
        assert_eq!(state_after(&mut bench, 1), flow_state::RESET, "there is no socket any more");
    }
}
