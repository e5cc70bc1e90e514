//! Checksums of packets that are changed, as the kernel itself verifies them: of the whole packet (`CHECKSUM_COMPLETE`, as some
//! NICs report), with the packet's own.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use nix::errno::Errno;
use spiderpool_ebpf_common::headers::{ACK, SYN};
use spiderpool_ebpf_common::model::frames::{self, Ends};
use spiderpool_ebpf_common::model::pod::{ETH0, Endpoint, Family, NET1, at, tables};
use spiderpool_ebpf_common::model::traffic::Program;
use spiderpool_ebpf_common::model::{Frame, Tables};
use support::run::Bench;
use support::{SIZES, can_run};

/// A translated flow: what the pod sends, then what comes back by eth0.
fn packets(family: Family) -> Vec<(&'static str, Program, u16, Frame)> {
    let e = Ends {
        src: at(Endpoint::Nic(NET1), family),
        sport: 40_000,
        dst: at(Endpoint::Service, family),
        dport: 53,
    };
    let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
    let (sent, answered) = (frames::udp(e, &[7; 160]), frames::udp(seen.back(), &[9; 160]));
    let out = |name, frame| (name, Program::Egress, NET1, frame);
    let back = |name, frame| (name, Program::Ingress, ETH0, frame);
    vec![
        out("SYN", frames::tcp(e, SYN, b"")),
        back("SYN-ACK", frames::tcp(seen.back(), SYN | ACK, b"")),
        out("segment", frames::tcp(e, ACK, b"payload")),
        out("datagram", sent.clone()),
        back("answer", answered.clone()),
        out("echo request", frames::echo(e, true, 9, b"payload")),
        back("echo reply", frames::echo(seen.back(), false, 9, b"payload")),
        out("first fragment", frames::part(&sent, 0, 64)),
        out("later fragment", frames::part(&sent, 64, 64)),
        back("first fragment of the answer", frames::part(&answered, 0, 64)),
        back("later fragment of the answer", frames::part(&answered, 64, 64)),
        back("error", frames::icmp_error_about(seen.back(), &frames::udp(seen, b"q"))),
        out("error of the pod", frames::icmp_error_about(e, &frames::udp(e.back(), b"a"))),
    ]
}

#[test]
fn the_whole_packets_checksum_stays_right() {
    if !can_run() {
        return;
    }
    let tables = tables();
    for family in [Family::V4, Family::V6] {
        let mut bench = Bench::new(&tables, &SIZES);
        bench.reset(&tables);
        for (name, program, nic, frame) in packets(family) {
            match bench.run_with_whole_sum(program, nic, &frame, &tables) {
                Err(Errno::EINVAL) => {
                    eprintln!(
                        "skipped: the kernel makes no test runs with CHECKSUM_COMPLETE (since Linux 6.16)"
                    );
                    return;
                }
                result => assert_eq!(result, Ok(()), "{family:?}: {name}"),
            }
            check_changed(&bench, program, nic, &frame, &tables, name);
        }
    }
}

/// The programs have changed an address of it: otherwise nothing is shown.
fn check_changed(bench: &Bench, program: Program, nic: u16, frame: &Frame, tables: &Tables, name: &str) {
    let (_, after) = bench.run_program(program, nic, frame, tables).expect("a whole packet");
    let (before, after) = (frames::ends(frame).expect("ends"), frames::ends(&after).expect("ends"));
    assert_ne!((before.src, before.dst), (after.src, after.dst), "{name}");
}
