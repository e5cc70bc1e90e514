//! The agent's side of flows: sweep, flush, counters, and maps that do not fit.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use spiderpool_dataplane::{Dataplane, Expired, LoadError, MapError, NicEntry, ROLE_CLUSTER, Reason, Sizes};
use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::flow_state::{ESTABLISHED, FIN_RECEIVED, FIN_SENT, SECOND};
use spiderpool_ebpf_common::maps::{
    AddressEntry, AddressKey, ArrivalEntry, FlowKey, LinkFlow, NatEntry, PodFlags, PodUsage, Tuple,
};
use spiderpool_ebpf_common::model::frames;
use spiderpool_ebpf_common::protocol;
use spiderpool_ebpf_common::reason::{Counter, Counters};
use support::{BpfFs, SIZES, can_run, object, uptime, wait_until_up};

type Nat = HashMap<MapData, FlowKey, NatEntry>;

const UNDERLAY: Addr = Addr::v4([172, 18, 55, 180]);
const CLUSTER: Addr = Addr::v4([10, 244, 1, 5]);
const REMOTE: Addr = Addr::v4([10, 96, 0, 10]);

fn map(fs: &BpfFs, name: &str) -> Map {
    Map::from_map_data(MapData::from_pin(fs.pins().join(name)).unwrap()).unwrap()
}

fn now() -> u64 {
    u64::try_from(uptime().as_nanos()).unwrap()
}

fn keys(pod: u16, protocol: u8, port: u16) -> (FlowKey, FlowKey) {
    let key = |tuple: Tuple, local| FlowKey {
        pod,
        protocol,
        tuple: tuple as u8,
        local_port: port,
        remote_port: 53,
        local,
        remote: REMOTE,
    };
    (key(Tuple::Original, UNDERLAY), key(Tuple::Translated, CLUSTER))
}

fn entry(addr: Addr, port: u16, state: u8, last_seen: u64) -> NatEntry {
    NatEntry { last_seen, addr, port, state, _pad: [0; 5] }
}

fn pair(nat: &mut Nat, pod: u16, protocol: u8, port: u16, state: u8, idle: u64) {
    let (out, back) = keys(pod, protocol, port);
    let seen = now().saturating_sub(idle * SECOND);
    nat.insert(out, entry(CLUSTER, port, state, seen), 0).unwrap();
    nat.insert(back, entry(UNDERLAY, port, 0, seen), 0).unwrap();
}

#[test]
fn the_sweep_removes_expired_flows_and_halves() {
    if !can_run() {
        return;
    }
    // The oldest of the flows below was last seen 90 s ago.
    wait_until_up(Duration::from_secs(91));
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let mut nat: Nat = map(&fs, "nat").try_into().unwrap();
    let closed = ESTABLISHED | FIN_SENT | FIN_RECEIVED;
    pair(&mut nat, 1, protocol::TCP, 1, ESTABLISHED, 90);
    pair(&mut nat, 1, protocol::TCP, 2, closed, 11);
    pair(&mut nat, 1, protocol::TCP, 3, closed, 5);
    pair(&mut nat, 1, protocol::UDP, 4, 0, 61);
    pair(&mut nat, 1, protocol::UDP, 5, ESTABLISHED, 61);
    pair(&mut nat, 1, protocol::ICMP, 6, ESTABLISHED, 31);
    // Halves: without the other, named by one of another port, and one that was made just now.
    let (_, lonely) = keys(1, protocol::UDP, 7);
    nat.insert(lonely, entry(UNDERLAY, 7, 0, now() - 2 * SECOND), 0).unwrap();
    let (_, other) = keys(1, protocol::UDP, 8);
    nat.insert(other, entry(UNDERLAY, 5, 0, now() - 2 * SECOND), 0).unwrap();
    let (_, young) = keys(1, protocol::UDP, 9);
    nat.insert(young, entry(UNDERLAY, 9, 0, now()), 0).unwrap();
    // And the first half of a flow that has expired.
    let (first, _) = keys(1, protocol::UDP, 10);
    nat.insert(first, entry(CLUSTER, 10, 0, now() - 61 * SECOND), 0).unwrap();
    // A pod's other maps are expired with it, and what it is counted to have is set right.
    let mut arrivals: HashMap<MapData, FlowKey, ArrivalEntry> = map(&fs, "arrivals").try_into().unwrap();
    let arrival = |idle| ArrivalEntry {
        last_seen: now() - idle * SECOND,
        local: UNDERLAY,
        heard: 0,
        nic: 1,
        mac: [0; 6],
        state: 0,
        _pad: [0; 3],
    };
    arrivals.insert(keys(1, protocol::TCP, 1).0, arrival(61), 0).unwrap();
    arrivals.insert(keys(1, protocol::TCP, 2).0, arrival(5), 0).unwrap();
    arrivals.insert(keys(2, protocol::TCP, 2).0, arrival(5), 0).unwrap();
    let found = dataplane.expire().unwrap();
    assert_eq!(found.nat, Expired { removed: 9, left: 7, most: 7 });
    assert_eq!(found.arrivals, Expired { removed: 1, left: 2, most: 1 });
    assert_eq!((found.link_flows, found.translating), (Expired::default(), vec![1]));
    let removed: Array<MapData, PodUsage> = map(&fs, "removed").try_into().unwrap();
    let usage = removed.get(&1, 0).unwrap();
    assert_eq!((usage.nat.wrapping_neg(), usage.arrivals.wrapping_neg(), usage.link_flows), (7, 1, 0));
    let mut left: Vec<_> = nat.keys().map(|key| key.unwrap().local_port).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 1, 3, 3, 5, 5, 9]);
}

#[test]
fn a_pods_flows_go_with_it() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let mut nat: Nat = map(&fs, "nat").try_into().unwrap();
    let mut arrivals: HashMap<MapData, FlowKey, ArrivalEntry> = map(&fs, "arrivals").try_into().unwrap();
    for pod in [3, 4] {
        pair(&mut nat, pod, protocol::UDP, 4, 0, 0);
        let key = FlowKey {
            pod,
            protocol: protocol::TCP,
            tuple: Tuple::Original as u8,
            local_port: 80,
            remote_port: 1,
            local: UNDERLAY,
            remote: REMOTE,
        };
        let entry = ArrivalEntry {
            last_seen: 0,
            local: UNDERLAY,
            nic: pod,
            heard: 0,
            mac: [0; 6],
            state: 0,
            _pad: [0; 3],
        };
        arrivals.insert(key, entry, 0).unwrap();
    }
    dataplane.pod_flush(3).unwrap();
    assert!(nat.keys().all(|key| key.unwrap().pod == 4) && nat.keys().count() == 2);
    assert!(arrivals.keys().all(|key| key.unwrap().pod == 4) && arrivals.keys().count() == 1);
    dataplane.pod_flush(3).unwrap();
}

#[test]
fn addresses_are_replaced_and_end_with_the_nic() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let map: HashMap<MapData, AddressKey, AddressEntry> = map(&fs, "addresses").try_into().unwrap();
    let held = |id| {
        let held = map.iter().map(Result::unwrap).filter(|(_, entry)| entry.nic == id);
        let mut held: Vec<_> = held.map(|(key, _)| (key.pod, frames::ip(key.addr).to_string())).collect();
        held.sort();
        held
    };
    let set = |dataplane: &mut Dataplane, id, ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        dataplane.addresses_set(id, 5, &ips).unwrap();
    };
    set(&mut dataplane, 6, &["172.18.0.9", "fd00:18::9"]);
    set(&mut dataplane, 7, &["172.19.0.9"]);
    assert_eq!(held(6), [(5, "172.18.0.9".into()), (5, "fd00:18::9".into())]);
    set(&mut dataplane, 6, &["172.18.0.10", "fd00:18::9"]);
    assert_eq!(held(6), [(5, "172.18.0.10".into()), (5, "fd00:18::9".into())]);
    dataplane.nic_remove(6).unwrap();
    assert_eq!((held(6), held(7)), (vec![], vec![(5, "172.19.0.9".into())]));
    // One moves to another NIC; the first one's next list does not take it away.
    set(&mut dataplane, 6, &["172.19.0.9", "172.18.0.9"]);
    set(&mut dataplane, 7, &["172.19.0.10"]);
    assert_eq!(held(6), [(5, "172.18.0.9".into()), (5, "172.19.0.9".into())]);
    assert_eq!(held(7), [(5, "172.19.0.10".into())]);
    // What is pinned already counts as well.
    drop(dataplane);
    let mut dataplane = fs.load();
    set(&mut dataplane, 6, &["172.18.0.9"]);
    assert_eq!(held(6), [(5, "172.18.0.9".into())]);
}

#[test]
fn counters_are_summed_and_end_with_the_nic() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let mut stats: PerCpuArray<MapData, Counters> = map(&fs, "stats").try_into().unwrap();
    dataplane.nic_put(5, &NicEntry { role: ROLE_CLUSTER, pod: 5, ..NicEntry::default() }).unwrap();
    let cpus = stats.get(&5, 0).unwrap().len();
    let each = Counters { steered: Counter { packets: 2, bytes: 120 }, ..Counters::default() };
    stats.set(5, vec![each; cpus].try_into().unwrap(), 0).unwrap();
    let of = |dataplane: &Dataplane, id, reason| {
        let all = dataplane.stats(id).unwrap();
        all.into_iter().find(|s| s.0 == reason).map(|s| (s.1, s.2)).unwrap()
    };
    assert_eq!(of(&dataplane, 5, Reason::Steered), (2 * cpus as u64, 120 * cpus as u64));
    assert_eq!(of(&dataplane, 5, Reason::Translated), (0, 0));
    dataplane.nic_remove(5).unwrap();
    assert_eq!(of(&dataplane, 5, Reason::Steered), (0, 0));
    assert_eq!(dataplane.nic(5).unwrap(), None);
}

#[test]
fn a_map_of_another_layout_is_replaced() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    drop(fs.load());
    std::fs::remove_file(fs.pins().join("nat")).unwrap();
    // Type, sizes and flags are right; only BTF tells that key and value are not.
    let unrelated = HashMap::<MapData, [u64; 5], [u64; 4]>::create(SIZES.nat, 1).unwrap();
    unrelated.pin(fs.pins().join("nat")).unwrap();
    let replaced: Vec<_> = fs.load().replaced().iter().map(|r| r.0).collect();
    assert_eq!(replaced, ["nat"]);
    assert_eq!(fs.load().replaced(), []);
}

/// An object whose first program ends with an unset return value, which no verifier accepts.
fn refused_object() -> tempfile::NamedTempFile {
    let mut elf = std::fs::read(object()).unwrap();
    let number = |elf: &[u8], at: usize, size: usize| {
        elf[at..at + size].iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    // ELF64: e_shoff, e_shentsize, e_shnum, e_shstrndx; of a section sh_name, sh_offset.
    let (table, size) = (number(&elf, 0x28, 8), number(&elf, 0x3a, 2));
    let (count, names) = (number(&elf, 0x3c, 2), number(&elf, 0x3e, 2));
    let offset = |elf: &[u8], section: usize| number(elf, table + section * size + 0x18, 8);
    let names = offset(&elf, names);
    let is_programs = |section: &usize| {
        let name = names + number(&elf, table + section * size, 4);
        elf[name..].starts_with(b"classifier\0")
    };
    let programs = offset(&elf, (0..count).find(is_programs).unwrap());
    elf[programs..programs + 8].copy_from_slice(&[0x95, 0, 0, 0, 0, 0, 0, 0]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), elf).unwrap();
    file
}

/// An upgrade whose programs the kernel refuses is rolled back: meanwhile the earlier programs go on with their flows,
/// and the agent that comes back finds them.
#[test]
fn programs_that_are_refused_leave_pinned_maps_and_flows() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut first = fs.load();
    first.nic_put(3, &NicEntry { role: ROLE_CLUSTER, pod: 3, ..NicEntry::default() }).unwrap();
    pair(&mut map(&fs, "nat").try_into().unwrap(), 3, protocol::TCP, 1, ESTABLISHED, 0);
    drop(first);
    let refused = refused_object();
    let other = Sizes { nics: SIZES.nics * 2, nat: SIZES.nat * 2, ..SIZES };
    let error = Dataplane::load(refused.path(), &fs.pins(), &other).unwrap_err();
    assert!(matches!(error, LoadError::Verifier { .. }), "{error}");
    let second = fs.load();
    assert_eq!(second.replaced(), []);
    assert_eq!(second.nics().unwrap().len(), 1);
    let nat: Nat = map(&fs, "nat").try_into().unwrap();
    assert_eq!(nat.keys().count(), 2);
    // The first installation: no map stays that a later one would take for a running version's.
    let empty = BpfFs::mount();
    Dataplane::load(refused.path(), &empty.pins(), &SIZES).unwrap_err();
    assert_eq!(std::fs::read_dir(empty.pins()).unwrap().count(), 0);
}

/// Established connections were cut by a new `sizes` value of the chart, and again by its roll-back.
#[test]
fn flows_are_carried_over_to_a_map_of_another_size_and_back() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    drop(fs.load());
    let earlier: Nat = map(&fs, "nat").try_into().unwrap();
    let (mut earlier, (original, _)) = (earlier, keys(3, protocol::TCP, 1));
    pair(&mut earlier, 3, protocol::TCP, 1, ESTABLISHED, 0);
    let mut arrivals: HashMap<MapData, FlowKey, ArrivalEntry> = map(&fs, "arrivals").try_into().unwrap();
    let arrival =
        ArrivalEntry { last_seen: 0, local: UNDERLAY, nic: 3, heard: 0, mac: [0; 6], state: 0, _pad: [0; 3] };
    arrivals.insert(original, arrival, 0).unwrap();
    let larger = Sizes { arrivals: SIZES.arrivals * 2, nat: SIZES.nat * 2, ..SIZES };
    let mut second = Dataplane::load(&object(), &fs.pins(), &larger).unwrap();
    assert_eq!(second.carry_flows().unwrap(), 3);
    let flags: Array<MapData, PodFlags> = map(&fs, "pod_flags").try_into().unwrap();
    assert_eq!((flags.get(&3, 0).unwrap(), flags.get(&4, 0).unwrap()), (PodFlags::ALL, PodFlags::default()));
    // Programs that are still attached record in the earlier map; what this version has recorded is newer.
    pair(&mut earlier, 4, protocol::TCP, 2, ESTABLISHED, 0);
    let mut now: Nat = map(&fs, "nat").try_into().unwrap();
    now.insert(original, entry(CLUSTER, 7, ESTABLISHED, self::now() + SECOND), 0).unwrap();
    assert_eq!(second.carry_flows().unwrap(), 2);
    second.forget_earlier_flows();
    assert_eq!(second.carry_flows().unwrap(), 0);
    assert_eq!((now.keys().count(), now.get(&original, 0).unwrap().port), (4, 7));
    let mut third = fs.load();
    assert_eq!(third.carry_flows().unwrap(), 5);
}

/// An earlier map lasts until all filters are replaced: what has ended meanwhile must not come back, and of a flow that is in both maps
/// the copy may be the older one.
#[test]
fn flows_are_carried_over_once_for_each_pod_and_the_latest_counts() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    drop(fs.load());
    let mut earlier: Nat = map(&fs, "nat").try_into().unwrap();
    for pod in [3, 4] {
        pair(&mut earlier, pod, protocol::TCP, 1, ESTABLISHED, 5);
    }
    let larger = Sizes { nat: SIZES.nat * 2, ..SIZES };
    let mut second = Dataplane::load(&object(), &fs.pins(), &larger).unwrap();
    assert_eq!(second.carry_flows().unwrap(), 4);
    let mut now: Nat = map(&fs, "nat").try_into().unwrap();
    let originals = [3, 4].map(|pod| keys(pod, protocol::TCP, 1).0);
    // The earlier programs go on with both; those of this version with the second pod's, which ends.
    let (seen, seen_later) = (self::now() + SECOND, self::now() + 2 * SECOND);
    for original in originals {
        earlier.insert(original, entry(CLUSTER, 1, ESTABLISHED, seen), 0).unwrap();
    }
    second.pod_flush(4).unwrap();
    assert_eq!(second.carry_flows_of(&[3].into()).unwrap(), 1);
    assert_eq!(second.carry_flows_of(&BTreeSet::new()).unwrap(), 0);
    assert_eq!(now.get(&originals[0], 0).unwrap().last_seen, seen);
    assert!(now.get(&originals[1], 0).is_err(), "it has ended");
    now.insert(originals[0], entry(CLUSTER, 1, ESTABLISHED, seen_later), 0).unwrap();
    assert_eq!(second.carry_flows_of(&[3].into()).unwrap(), 0);
    assert_eq!(now.get(&originals[0], 0).unwrap().last_seen, seen_later);
}

/// Half a translation would make a flow that nobody's answers reach, for as long as its packets go on.
#[test]
fn translations_that_fit_by_half_are_not_carried_over() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    drop(fs.load());
    let mut earlier: Nat = map(&fs, "nat").try_into().unwrap();
    let pairs = u16::try_from(SIZES.nat / 2).unwrap();
    for port in 1..=pairs {
        pair(&mut earlier, 3, protocol::TCP, port, ESTABLISHED, 5);
    }
    let smaller = Sizes { nat: SIZES.nat / 4, ..SIZES };
    let mut second = Dataplane::load(&object(), &fs.pins(), &smaller).unwrap();
    assert!(matches!(second.carry_flows(), Err(MapError::Full { map: "nat" })));
    let now: Nat = map(&fs, "nat").try_into().unwrap();
    let lone = |port: &u16| {
        let (original, translated) = keys(3, protocol::TCP, *port);
        now.get(&original, 0).is_ok() && now.get(&translated, 0).is_err()
    };
    assert_eq!((1..=pairs).filter(lone).count(), 0);
}

/// Flows of maps that are kept were not looked up any more after an upgrade that brought `pod_flags`, or changed its size.
#[test]
fn flows_that_are_kept_are_looked_up() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    drop(fs.load());
    pair(&mut map(&fs, "nat").try_into().unwrap(), 3, protocol::TCP, 1, ESTABLISHED, 0);
    let flags_of = |pod| {
        let flags: Array<MapData, PodFlags> = map(&fs, "pod_flags").try_into().unwrap();
        flags.get(&pod, 0).unwrap()
    };
    drop(fs.load());
    assert_eq!(flags_of(3), PodFlags::default(), "the programs set them");
    std::fs::remove_file(fs.pins().join("pod_flags")).unwrap();
    drop(fs.load());
    assert_eq!((flags_of(3), flags_of(4)), (PodFlags::ALL, PodFlags::default()));
    let larger = Sizes { nics: SIZES.nics * 2, ..SIZES };
    drop(Dataplane::load(&object(), &fs.pins(), &larger).unwrap());
    assert_eq!((flags_of(3), flags_of(4)), (PodFlags::ALL, PodFlags::default()));
}

/// All flows of many pods, in one pass, and nothing of the others.
#[test]
fn what_many_pods_have_goes_at_once() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let mut nat: Nat = map(&fs, "nat").try_into().unwrap();
    let mut arrivals: HashMap<MapData, FlowKey, ArrivalEntry> = map(&fs, "arrivals").try_into().unwrap();
    let mut links: HashMap<MapData, FlowKey, LinkFlow> = map(&fs, "link_flows").try_into().unwrap();
    let mut added: Array<MapData, PodUsage> = map(&fs, "added").try_into().unwrap();
    let mut flags: Array<MapData, PodFlags> = map(&fs, "pod_flags").try_into().unwrap();
    let usage = PodUsage { link_flows: 10, arrivals: 10, nat: 10 };
    let arrival = ArrivalEntry {
        last_seen: now(),
        local: UNDERLAY,
        nic: 1,
        heard: 0,
        mac: [0; 6],
        state: 0,
        _pad: [0; 3],
    };
    let link = LinkFlow { last_seen: now(), opened: 0, state: 0, _pad: [0; 3] };
    for pod in 1..=50 {
        for port in 0..10 {
            let (key, _) = keys(pod, protocol::TCP, port);
            arrivals.insert(key, arrival, 0).unwrap();
            links.insert(key, link, 0).unwrap();
            if port < 5 {
                pair(&mut nat, pod, protocol::TCP, port, ESTABLISHED, 0);
            }
        }
        added.set(u32::from(pod), usage, 0).unwrap();
        flags.set(u32::from(pod), PodFlags::ALL, 0).unwrap();
    }
    // While a sweep goes on that has counted some of them already.
    dataplane.begin_sweep().unwrap();
    assert_eq!(dataplane.sweep_until(Instant::now()).unwrap(), None);
    dataplane.begin_flush((1..=49).collect());
    while !dataplane.flush_until(Instant::now()).unwrap() {}
    let found = loop {
        if let Some(found) = dataplane.sweep_until(Instant::now()).unwrap() {
            break found;
        }
    };
    let of_last = Expired { removed: 0, left: 10, most: 10 };
    assert_eq!((found.arrivals, found.link_flows), (of_last, of_last));
    assert_eq!((found.nat.left, found.nat.most, found.translating), (10, 10, vec![50]));
    let pods = |keys: &mut dyn Iterator<Item = FlowKey>| keys.map(|key| key.pod).collect::<Vec<_>>();
    for left in [
        pods(&mut nat.keys().map(Result::unwrap)),
        pods(&mut arrivals.keys().map(Result::unwrap)),
        pods(&mut links.keys().map(Result::unwrap)),
    ] {
        assert_eq!(left, [50; 10]);
    }
    let removed: Array<MapData, PodUsage> = map(&fs, "removed").try_into().unwrap();
    for pod in 1..=49 {
        assert_eq!(
            (removed.get(&pod, 0).unwrap(), flags.get(&pod, 0).unwrap()),
            (usage, PodFlags::default())
        );
    }
    assert_eq!(
        (removed.get(&50, 0).unwrap(), flags.get(&50, 0).unwrap()),
        (PodUsage::default(), PodFlags::ALL)
    );
}

/// What a program has used between the look and the removal is a live flow.
#[test]
fn flows_that_are_used_during_a_sweep_stay() {
    if !can_run() {
        return;
    }
    wait_until_up(Duration::from_secs(91));
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let mut nat: Nat = map(&fs, "nat").try_into().unwrap();
    let mut links: HashMap<MapData, FlowKey, LinkFlow> = map(&fs, "link_flows").try_into().unwrap();
    let flow = |idle: u64| LinkFlow { last_seen: now() - idle * SECOND, opened: 0, state: 0, _pad: [0; 3] };
    for port in 0..200 {
        pair(&mut nat, 1, protocol::UDP, port, 0, 90);
        links.insert(keys(1, protocol::UDP, port).0, flow(90), 0).unwrap();
    }
    dataplane.begin_sweep().unwrap();
    // It has seen that flows of `nat` have expired, and removed none.
    assert_eq!(dataplane.sweep_until(Instant::now()).unwrap(), None);
    assert_eq!(nat.keys().count(), 400);
    for port in (0..200).step_by(2) {
        pair(&mut nat, 1, protocol::UDP, port, ESTABLISHED, 0);
        links.insert(keys(1, protocol::UDP, port).0, flow(0), 0).unwrap();
    }
    let found = dataplane.expire().unwrap();
    assert_eq!(found.nat, Expired { removed: 200, left: 200, most: 200 });
    assert_eq!(found.link_flows, Expired { removed: 100, left: 100, most: 100 });
    assert!(nat.keys().chain(links.keys()).all(|key| key.unwrap().local_port % 2 == 0));
    let removed: Array<MapData, PodUsage> = map(&fs, "removed").try_into().unwrap();
    let usage = removed.get(&1, 0).unwrap();
    assert_eq!((usage.nat.wrapping_neg(), usage.link_flows.wrapping_neg()), (200, 100));
}
