//! Many packets in a row: what they leave in the maps is what is counted, and ends.

use std::collections::HashMap;
use std::hash::Hash;

use crate::flow_state::{self, SECOND};
use crate::maps::{FlowKey, NatEntry, PodUsage, Tuple};
use crate::model::Tables;
use crate::model::pod::{POD, SHARE, tables};
use crate::model::traffic::TrafficStep;

/// In the long form, which `cargo xtask test --long` asks for, and otherwise.
const PACKETS: [u64; 2] = [10_000_000, 200_000];
/// Packets of one pair of addresses in a row.
const OF_A_THEME: u64 = 200;
/// So many packets come between two sweeps of the agent.
const SWEEP_EVERY: u64 = 20_000;
/// Longer than any entry lives.
const END: u64 = 200_000 * SECOND;

/// The next number (Knuth's MMIX), mixed, so that its remainders are random too.
const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mixed = (*state ^ (*state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}

fn remove<K: Copy + Eq + Hash, V>(map: &mut HashMap<K, V>, is_over: impl Fn(&K, &V) -> bool) -> u32 {
    let before = map.len();
    map.retain(|key, value| !is_over(key, value));
    (before - map.len()) as u32
}

/// What the agent does every few seconds: `Dataplane::expire`.
fn sweep(tables: &Tables) {
    let now = tables.now;
    let mut usage = tables.usage.borrow_mut();
    let usage = usage.entry(POD).or_default();
    let arrivals = &mut *tables.arrivals.borrow_mut();
    usage.arrivals -=
        remove(arrivals, |key, e| flow_state::is_expired(key.protocol, e.state, e.last_seen, now));
    usage.link_flows -= remove(&mut tables.link_flows.borrow_mut(), |key, e| e.is_expired(key.protocol, now));
    let nat = &mut *tables.nat.borrow_mut();
    usage.nat -= remove(nat, |key, e| {
        key.is(Tuple::Original) && flow_state::is_expired(key.protocol, e.state, e.last_seen, now)
    });
    let originals = nat.clone();
    usage.nat -= remove(nat, |key, e| {
        key.is(Tuple::Translated) && !is_named(&originals, key, e) && now - e.last_seen > SECOND
    });
}

fn is_named(nat: &HashMap<FlowKey, NatEntry>, translated: &FlowKey, entry: &NatEntry) -> bool {
    nat.get(&translated.counterpart(entry.addr, entry.port))
        .is_some_and(|original| original.leads_to(translated))
}

fn counted(tables: &Tables) -> PodUsage {
    tables.usage.borrow().get(&POD).copied().unwrap_or_default()
}

fn held(tables: &Tables) -> PodUsage {
    PodUsage {
        link_flows: tables.link_flows.borrow().len() as u32,
        arrivals: tables.arrivals.borrow().len() as u32,
        nat: tables.nat.borrow().len() as u32,
    }
}

#[test]
fn nothing_stale_is_left() {
    let is_long = std::env::var_os("SPIDERPOOL_LONG_TESTS").is_some_and(|value| !value.is_empty());
    let packets = PACKETS[usize::from(!is_long)];
    let (mut tables, mut state, mut theme) = (tables(), 1, 0);
    let mut most = PodUsage::default();
    for number in 0..packets {
        if number % OF_A_THEME == 0 {
            theme = next(&mut state);
        }
        let mut step = TrafficStep::from_number(theme, next(&mut state));
        // Long pauses would end whatever there is: one in a hundred.
        if !next(&mut state).is_multiple_of(100) {
            step.pause = 0;
        }
        tables.now += 1000;
        step.begin(&mut tables);
        step.program().run(&mut step.frame.clone(), step.nic, &tables);
        tables.stats.borrow_mut().clear();
        tables.events.borrow_mut().clear();
        if number % SWEEP_EVERY == 0 {
            assert_eq!(counted(&tables), held(&tables), "after {number} packets");
            sweep(&tables);
        }
        let now = counted(&tables);
        most = PodUsage {
            link_flows: most.link_flows.max(now.link_flows),
            arrivals: most.arrivals.max(now.arrivals),
            nat: most.nat.max(now.nat),
        };
    }
    let is_within =
        most.link_flows <= SHARE.link_flows && most.arrivals <= SHARE.arrivals && most.nat <= SHARE.nat;
    assert!(is_within && most.link_flows > 1 && most.arrivals > 1 && most.nat > 1, "{most:?}");
    assert_eq!(counted(&tables), held(&tables));
    tables.now += END;
    sweep(&tables);
    assert_eq!((held(&tables), counted(&tables)), (PodUsage::default(), PodUsage::default()));
}
