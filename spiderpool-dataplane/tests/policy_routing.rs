//! The programs against the kernel's own policy routing. Two pods are alike; for one the programs decide, for the other ip rules,
//! routing tables, connection marks and nftables that know nothing of the programs. The same happens to both, at random: what
//! leaves them must leave by the same NIC, to the same next hop, with the same addresses and ports.
//!
//! Sockets in the pods are real, and so is the kernel that answers; the other side is this test, which sends frames at the far ends
//! of the pods' NICs in anybody's name. Where the programs differ on purpose says `policy_routing/difference.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "policy_routing/difference.rs"]
mod difference;
#[path = "policy_routing/pair.rs"]
mod pair;
#[path = "policy_routing/step.rs"]
mod step;
#[path = "policy_routing/topology.rs"]
mod topology;
#[path = "policy_routing/wire.rs"]
mod wire;
#[path = "policy_routing/world.rs"]
mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use spiderpool_dataplane::{Dataplane, PodUsage, Sizes};

use pair::Pair;
use step::Step;
use support::{BpfFs, SIZES, can_run, inputs, object, wait_until_up};
use topology::Setting;
use world::World;

/// Sequences of steps in each setting; the second number in the long form.
const SEQUENCES: [u32; 2] = [60, 2000];
/// What leaves by every NIC.
const KINDS: [&str; 3] = ["tcp", "udp", "echo reply"];
/// Set by `cargo xtask test --long`.
const LONG: &str = "SPIDERPOOL_LONG_TESTS";
/// An entry that was never seen is older than any timeout but TCP's.
const UP_FOR: Duration = Duration::from_secs(200);

/// Queues of packets belong to processors: on one of them nothing overtakes.
fn stay_on_one_cpu() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(first).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// One at a time: a program that is just being started has the sockets of all threads open, and what is closed meanwhile stays so.
static ALONE: Mutex<()> = Mutex::new(());

fn check(setting: Setting) {
    if !can_run() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    wait_until_up(UP_FOR);
    stay_on_one_cpu();
    let fs = BpfFs::mount();
    // The private mount namespace keeps the names of the namespaces to this thread.
    topology::sh("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns");
    let per_pod = PodUsage { link_flows: 512, arrivals: 512, nat: 512 };
    let mut dataplane = Dataplane::load(&object(), &fs.pins(), &Sizes { per_pod, ..SIZES }).unwrap();
    for name in ["ours", "kernels"] {
        topology::links_and_addresses(name);
    }
    topology::attach_programs("ours", setting, &mut dataplane, fs.pins().to_str().unwrap());
    topology::set_up_policy_routing("kernels", setting);
    let pair = Pair::new(World::open("ours"), World::open("kernels"), dataplane, &fs.pins(), setting);
    let pair = RefCell::new(pair);
    let is_long = std::env::var_os(LONG).is_some_and(|value| !value.is_empty());
    let cases = inputs(SEQUENCES[usize::from(is_long)]);
    // Always the same ones, unless the long form was asked for: what a change has broken should fail with that change.
    let rng_seed = if is_long { RngSeed::Random } else { RngSeed::Fixed(0x53) };
    let config =
        Config { cases, rng_seed, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let numbers = (any::<u64>(), prop::collection::vec(any::<u64>(), 1..40));
    let result = TestRunner::new(config).run(&numbers, |(theme, numbers)| {
        let steps: Vec<_> = numbers.iter().map(|number| Step::from_number(theme, *number)).collect();
        pair.borrow_mut().run(&steps)
    });
    let tally = &pair.borrow().tally;
    eprintln!("{setting:?}: {tally:?}");
    if let Err(error) = result {
        panic!("{setting:?}: {error}");
    }
    // Otherwise little was compared.
    for (nic, kind) in ["eth0", "net1", "sp0"].into_iter().flat_map(|nic| KINDS.map(|kind| (nic, kind))) {
        assert!(
            cases < SEQUENCES[0] || tally.packets.contains_key(&(nic, kind)),
            "no {kind} has left by {nic}"
        );
    }
}

#[test]
fn default_route_on_eth0() {
    check(Setting { default_on: "eth0", hints: true });
}

#[test]
fn default_route_on_eth0_without_hints() {
    check(Setting { default_on: "eth0", hints: false });
}

#[test]
fn default_route_on_net1() {
    check(Setting { default_on: "net1", hints: true });
}

#[test]
fn default_route_on_net1_without_hints() {
    check(Setting { default_on: "net1", hints: false });
}

#[test]
fn each_difference_is_named_once_with_its_reason() {
    let names: BTreeSet<_> = difference::DIFFERENCES.iter().map(|difference| difference.name).collect();
    assert_eq!(names.len(), difference::DIFFERENCES.len());
    assert!(difference::DIFFERENCES.iter().all(|d| !d.why.is_empty() && !d.encoded_as.is_empty()));
}
