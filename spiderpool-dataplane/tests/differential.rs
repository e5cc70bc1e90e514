//! The compiled programs in the kernel against the same logic on the host: equal verdict, equal bytes, equal
//! changes of the maps.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use spiderpool_ebpf_common::model::traffic::{Program, TrafficStep};
use spiderpool_ebpf_common::model::{Frame, Tables, pod};
use spiderpool_ebpf_common::verdict::Verdict;
use support::run::{Bench, Contents};
use support::{SIZES, can_run, inputs};

const PROGRAMS: [Program; 4] = [Program::Egress, Program::Ingress, Program::HostEgress, Program::HostIngress];

fn on_host(tables: &Tables, program: Program, nic: u16, frame: &Frame) -> (Verdict, Frame) {
    let mut frame = frame.clone();
    let verdict = program.run(&mut frame, nic, tables);
    (verdict, Frame { decided: frame.decided, ..Frame::new(frame.bytes) })
}

fn config(cases: u32) -> Config {
    Config { cases: inputs(cases), failure_persistence: None, ..Config::default() }
}

#[test]
fn sequences_of_packets() {
    if !can_run() {
        return;
    }
    for base in [pod::tables(), pod::underlay_tables()] {
        check_sequences(&base);
    }
}

fn check_sequences(base: &Tables) {
    let bench = std::cell::RefCell::new(Bench::new(base, &SIZES));
    let numbers = (any::<u64>(), prop::collection::vec(any::<u64>(), 1..25));
    let result = TestRunner::new(config(250)).run(&numbers, |(theme, numbers)| {
        let mut tables = base.clone();
        bench.borrow_mut().reset(&tables);
        for step in TrafficStep::sequence(theme, &numbers) {
            step.begin(&mut tables);
            let kernel = bench.borrow().run_program(step.program(), step.nic, &step.frame, &tables);
            let Some(kernel) = kernel else { continue };
            let host = on_host(&tables, step.program(), step.nic, &step.frame);
            prop_assert_eq!(&kernel, &host, "verdict and bytes of {:?}", step);
            prop_assert_eq!(bench.borrow().contents(), Contents::of(&tables), "maps after {:?}", step);
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn any_bytes() {
    if !can_run() {
        return;
    }
    let base = pod::tables();
    let bench = std::cell::RefCell::new(Bench::new(&base, &SIZES));
    let inputs = (
        prop::collection::vec(any::<u8>(), 14..160),
        prop::sample::select(&[[8, 0], [0x86, 0xdd], [8, 6], [0x88, 0xa8]][..]),
        // Version, header length and protocol that let a random packet get further.
        prop::sample::select(&[0x45, 0x46, 0x60, 0x40][..]),
        prop::sample::select(&[1, 6, 17, 58, 0, 44, 60][..]),
        (prop::sample::select(&PROGRAMS[..]), 0..6u16, any::<bool>()),
    );
    let result = TestRunner::new(config(2000)).run(&inputs, |input| {
        let (mut bytes, ethertype, version, protocol, (program, nic, gso)) = input;
        bytes[12..14].copy_from_slice(&ethertype);
        if bytes.len() > 24 {
            bytes[14] = version;
            bytes[if ethertype == [8, 0] { 23 } else { 20 }] = protocol;
        }
        let frame = Frame { gso_size: if gso { 100 } else { 0 }, ..Frame::new(bytes) };
        let tables = base.clone();
        bench.borrow_mut().reset(&tables);
        let kernel = bench.borrow().run_program(program, nic, &frame, &tables);
        let Some(kernel) = kernel else { return Ok(()) };
        prop_assert_eq!(&kernel, &on_host(&tables, program, nic, &frame));
        prop_assert_eq!(bench.borrow().contents(), Contents::of(&tables));
        Ok(())
    });
    result.unwrap();
}

/// Real packets of which a few bytes are others, as noise and attackers send them: lengths that promise more than there is,
/// options, extension headers, fragments. By every program, whoever it is meant for.
#[test]
fn mutated_packets() {
    if !can_run() {
        return;
    }
    for base in [pod::tables(), pod::underlay_tables()] {
        check_mutated(&base);
    }
}

fn check_mutated(base: &Tables) {
    let bench = std::cell::RefCell::new(Bench::new(base, &SIZES));
    let inputs = (
        (any::<u64>(), any::<u64>()),
        // Headers are in the first bytes; a quoted packet has its own there, too.
        prop::collection::vec((12..100usize, any::<u8>()), 1..5),
        prop::option::of(14..200usize),
        prop::sample::select(&PROGRAMS[..]),
    );
    let result = TestRunner::new(config(1200)).run(&inputs, |((theme, number), changes, len, program)| {
        let step = TrafficStep::from_number(theme, number);
        let mut frame = step.frame.clone();
        for (at, byte) in changes {
            if let Some(old) = frame.bytes.get_mut(at) {
                *old = byte;
            }
        }
        frame.bytes.truncate(len.unwrap_or(usize::MAX));
        let tables = base.clone();
        bench.borrow_mut().reset(&tables);
        let Some(kernel) = bench.borrow().run_program(program, step.nic, &frame, &tables) else {
            return Ok(());
        };
        prop_assert_eq!(&kernel, &on_host(&tables, program, step.nic, &frame), "{:?}", frame);
        prop_assert_eq!(bench.borrow().contents(), Contents::of(&tables), "{:?}", frame);
        Ok(())
    });
    result.unwrap();
}

/// A packet of each length from nothing to whole: what is cut short is seen alike by both.
#[test]
fn truncated_packets() {
    if !can_run() {
        return;
    }
    let base = pod::tables();
    let mut bench = Bench::new(&base, &SIZES);
    for number in 0..u64::from(inputs(4000)) {
        let step = TrafficStep::from_number(number, number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for len in (14..step.frame.bytes.len().min(100)).step_by(7) {
            let tables = base.clone();
            bench.reset(&tables);
            let frame = Frame::new(step.frame.bytes[..len].to_vec());
            let Some(kernel) = bench.run_program(step.program(), step.nic, &frame, &tables) else { continue };
            assert_eq!(kernel, on_host(&tables, step.program(), step.nic, &frame), "{len} bytes of {step:?}");
            assert_eq!(bench.contents(), Contents::of(&tables), "{len} bytes of {step:?}");
        }
    }
}
