//! Maps that another version has pinned with another layout: what they have goes on where it can be had, and where it cannot
//! that is said.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE};
use spiderpool_dataplane::{CidrAction, CidrKind, Dataplane, LoadError, Sizes};
use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::flow_state::ESTABLISHED;
use spiderpool_ebpf_common::maps::{ArrivalEntry, CidrKey, FlowKey, LinkFlow, NatEntry, PodFlags, Tuple};
use spiderpool_ebpf_common::protocol;
use support::older::{self, Member, Members, bytes, concat};
use support::{BpfFs, SIZES, can_run, object};

const UNDERLAY: Addr = Addr::v4([172, 18, 55, 180]);
const CLUSTER: Addr = Addr::v4([10, 244, 1, 5]);
const REMOTE: Addr = Addr::v4([10, 96, 0, 10]);

/// Today's layouts.
const KEY: Members<'_> = &[
    ("pod", Member::Int(2)),
    ("protocol", Member::Int(1)),
    ("tuple", Member::Int(1)),
    ("local_port", Member::Int(2)),
    ("remote_port", Member::Int(2)),
    ("local", Member::Addr),
    ("remote", Member::Addr),
];

const NAT: Members<'_> = &[
    ("last_seen", Member::Int(8)),
    ("addr", Member::Addr),
    ("port", Member::Int(2)),
    ("state", Member::Int(1)),
    ("_pad", Member::Bytes(5)),
];
const ARRIVALS: Members<'_> = &[
    ("last_seen", Member::Int(8)),
    ("local", Member::Addr),
    ("heard", Member::Int(4)),
    ("nic", Member::Int(2)),
    ("mac", Member::Bytes(6)),
    ("state", Member::Int(1)),
    ("_pad", Member::Bytes(3)),
];

fn key(port: u16) -> FlowKey {
    FlowKey {
        pod: 3,
        protocol: protocol::TCP,
        tuple: Tuple::Original as u8,
        local_port: port,
        remote_port: 53,
        local: UNDERLAY,
        remote: REMOTE,
    }
}

/// The same in a map of today's layout.
fn key_bytes(port: u16) -> [u8; 40] {
    let key = key(port);
    concat(&[
        &key.pod.to_ne_bytes(),
        &[key.protocol, key.tuple],
        &key.local_port.to_ne_bytes(),
        &key.remote_port.to_ne_bytes(),
        &key.local.bytes,
        &key.remote.bytes,
    ])
}

fn map(fs: &BpfFs, name: &str) -> Map {
    Map::from_map_data(MapData::from_pin(fs.pins().join(name)).unwrap()).unwrap()
}

/// Pins a map of flows with one of today's layouts.
fn pin_flows<V: Pod>(fs: &BpfFs, name: &str, value: Members<'_>) -> HashMap<MapData, FlowKey, V> {
    let map = older::pin(&fs.pins().join(name), BPF_MAP_TYPE_HASH, KEY, value);
    Map::HashMap(map).try_into().unwrap()
}

/// Of the pinned map, by their local ports.
fn entries<V: Pod>(fs: &BpfFs, name: &str) -> BTreeMap<u16, (FlowKey, V)> {
    let map: HashMap<MapData, FlowKey, V> = map(fs, name).try_into().unwrap();
    map.iter().map(|entry| entry.unwrap()).map(|(key, value)| (key.local_port, (key, value))).collect()
}

fn replaced(dataplane: &Dataplane) -> Vec<&'static str> {
    dataplane.replaced().iter().map(|replaced| replaced.0).collect()
}

/// Of a version that knows less: some members are missing, one is narrower, others have other places.
#[test]
fn flows_of_an_earlier_layout_go_on() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let arrivals = older::pin(
        &fs.pins().join("arrivals"),
        BPF_MAP_TYPE_HASH,
        KEY,
        &[
            ("nic", Member::Int(2)),
            ("mac", Member::Bytes(6)),
            ("local", Member::Addr),
            ("last_seen", Member::Int(8)),
            ("state", Member::Int(1)),
            ("_pad", Member::Bytes(7)),
        ],
    );
    let mut arrivals = bytes::<40, 40>(arrivals);
    let links = older::pin(
        &fs.pins().join("link_flows"),
        BPF_MAP_TYPE_HASH,
        KEY,
        &[("last_seen", Member::Int(8)), ("state", Member::Int(1)), ("_pad", Member::Bytes(7))],
    );
    let mut links = bytes::<40, 16>(links);
    let seen = 0x1234_5678_9abc_u64;
    let arrival = |nic: u16| {
        let nic = nic.to_ne_bytes();
        concat(&[&nic, &[2, 4, 6, 8, 10, 12], &UNDERLAY.bytes, &seen.to_ne_bytes(), &[ESTABLISHED], &[0; 7]])
    };
    arrivals.insert(key_bytes(1), arrival(7), 0).unwrap();
    links.insert(key_bytes(2), concat(&[&seen.to_ne_bytes(), &[ESTABLISHED], &[0; 7]]), 0).unwrap();

    let mut dataplane = fs.load();
    assert_eq!(replaced(&dataplane), ["arrivals", "link_flows"]);
    assert_eq!(dataplane.discarded(), []);
    assert_eq!(dataplane.carry_flows().unwrap(), 2);
    let arrival_of = |nic| ArrivalEntry {
        last_seen: seen,
        local: UNDERLAY,
        heard: 0,
        nic,
        mac: [2, 4, 6, 8, 10, 12],
        state: ESTABLISHED,
        _pad: [0; 3],
    };
    assert_eq!(entries(&fs, "arrivals"), [(1, (key(1), arrival_of(7)))].into());
    let link = LinkFlow { last_seen: seen, opened: 0, state: ESTABLISHED, _pad: [0; 3] };
    assert_eq!(entries(&fs, "link_flows"), [(2, (key(2), link))].into());
    let flags: Array<MapData, PodFlags> = map(&fs, "pod_flags").try_into().unwrap();
    assert_eq!((flags.get(&3, 0).unwrap(), flags.get(&4, 0).unwrap()), (PodFlags::ALL, PodFlags::default()));
    // Its programs are still attached.
    arrivals.insert(key_bytes(5), arrival(8), 0).unwrap();
    arrivals.insert(key_bytes(1), arrival(8), 0).unwrap();
    assert_eq!(dataplane.carry_flows().unwrap(), 1);
    let want = [(1, (key(1), arrival_of(7))), (5, (key(5), arrival_of(8)))];
    assert_eq!(entries(&fs, "arrivals"), want.into());
}

/// A rollback, from a version that knows more.
#[test]
fn flows_of_a_later_layout_go_on() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut with_zone = KEY.to_vec();
    with_zone.insert(0, ("zone", Member::Int(4)));
    with_zone.push(("_pad", Member::Int(4)));
    let nat = older::pin(
        &fs.pins().join("nat"),
        BPF_MAP_TYPE_HASH,
        &with_zone,
        &[
            ("last_seen", Member::Int(8)),
            ("packets", Member::Int(8)),
            ("state", Member::Int(1)),
            ("_pad", Member::Int(1)),
            ("port", Member::Int(2)),
            ("addr", Member::Addr),
            ("_pad2", Member::Int(4)),
        ],
    );
    let mut nat = bytes::<48, 40>(nat);
    let mut insert = |zone: u32, port: u16| {
        let key = concat(&[&zone.to_ne_bytes(), &key_bytes(port), &[0; 4]]);
        let (seen, port) = (9_u64.to_ne_bytes(), (port + 1000).to_ne_bytes());
        let value = concat(&[&seen, &[1; 8], &[ESTABLISHED, 0], &port, &CLUSTER.bytes, &[0; 4]]);
        nat.insert(key, value, 0).unwrap();
    };
    // More than one batch.
    (0..500).for_each(|port| insert(0, port));
    // What this version would take for another flow.
    insert(5, 1);
    insert(5, 501);
    let mut dataplane = fs.load();
    assert_eq!(dataplane.discarded(), []);
    assert_eq!(dataplane.carry_flows().unwrap(), 500);
    let entry =
        |port| NatEntry { last_seen: 9, addr: CLUSTER, port: port + 1000, state: ESTABLISHED, _pad: [0; 5] };
    let want: BTreeMap<_, _> = (0..500).map(|port| (port, (key(port), entry(port)))).collect();
    assert_eq!(entries(&fs, "nat"), want);
}

/// Without a port nobody knows what to translate to: zero would be wrong.
#[test]
fn what_cannot_be_had_is_discarded_and_said() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let nat = older::pin(
        &fs.pins().join("nat"),
        BPF_MAP_TYPE_HASH,
        KEY,
        &[
            ("last_seen", Member::Int(8)),
            ("addr", Member::Addr),
            ("state", Member::Int(1)),
            ("_pad", Member::Bytes(7)),
        ],
    );
    bytes::<40, 32>(nat).insert(key_bytes(1), [0; 32], 0).unwrap();
    let mut dataplane = fs.load();
    assert_eq!(replaced(&dataplane), ["nat"]);
    let said: Vec<_> = dataplane.discarded().iter().map(|map| (map.map, map.why.as_str())).collect();
    assert_eq!(said, [("nat", "nat.value.port is missing in the pinned map")]);
    assert_eq!(dataplane.carry_flows().unwrap(), 0);
    assert_eq!(entries::<NatEntry>(&fs, "nat").len(), 0);
}

/// The agent may have to wait for the API server before it can write them again, and its programs run by then.
#[test]
fn destinations_outlive_their_map() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let path = fs.pins().join("cluster_cidrs");
    let pin = |key: Members<'_>| {
        older::pin(&path, BPF_MAP_TYPE_LPM_TRIE, key, &[("kind", Member::Int(1)), ("action", Member::Int(1))])
    };
    let cidrs = pin(&[("prefix_len", Member::Int(4)), ("data", Member::Cidr)]);
    let mut cidrs = LpmTrie::<_, CidrKey, [u8; 2]>::try_from(Map::LpmTrie(cidrs)).unwrap();
    for (net, kind) in [([10, 96, 0, 0], CidrKind::Service), ([10, 112, 0, 0], CidrKind::Pod)] {
        let net = CidrKey::new(7, Addr::v4(net));
        let key = lpm_trie::Key::new(CidrKey::prefix_len(net.addr, 12), net);
        cidrs.insert(&key, [kind as u8, CidrAction::Steer as u8], 0).unwrap();
    }
    let want = [("10.96.0.0/12", CidrKind::Service), ("10.112.0.0/12", CidrKind::Pod)];
    let want = want.map(|(net, kind)| (net.parse().unwrap(), CidrAction::Steer, kind));
    let second = fs.load();
    assert_eq!((replaced(&second), second.discarded()), (vec!["cluster_cidrs"], &[][..]));
    assert_eq!(second.cidrs(7).unwrap(), want);
    drop(second);
    let larger = Sizes { cidrs: SIZES.cidrs * 2, ..SIZES };
    let third = Dataplane::load(&object(), &fs.pins(), &larger).unwrap();
    assert_eq!((replaced(&third), third.discarded()), (vec!["cluster_cidrs"], &[][..]));
    assert_eq!(third.cidrs(7).unwrap(), want);
    drop(third);
    // A prefix would end elsewhere.
    drop(pin(&[("data", Member::Cidr), ("prefix_len", Member::Int(4))]));
    let said = "cluster_cidrs.key has members at other places in the pinned map";
    assert_eq!(fs.load().discarded().iter().map(|map| map.why.as_str()).collect::<Vec<_>>(), [said]);
}

/// Its entries are carried over as many as fit, those of other maps all the same, and all are looked for.
#[test]
fn a_map_that_is_too_small_keeps_no_other_from_its_flows() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut arrivals: HashMap<_, FlowKey, ArrivalEntry> = pin_flows(&fs, "arrivals", ARRIVALS);
    let mut nat: HashMap<_, FlowKey, NatEntry> = pin_flows(&fs, "nat", NAT);
    let arrival =
        ArrivalEntry { last_seen: 0, local: UNDERLAY, nic: 3, heard: 0, mac: [0; 6], state: 0, _pad: [0; 3] };
    for port in 0..1000 {
        arrivals.insert(FlowKey { pod: 4, ..key(port) }, arrival, 0).unwrap();
    }
    let translation = NatEntry { last_seen: 0, addr: CLUSTER, port: 7, state: 0, _pad: [0; 5] };
    nat.insert(key(1), translation, 0).unwrap();
    let sizes = Sizes { arrivals: 64, nat: SIZES.nat * 2, nics: SIZES.nics * 2, ..SIZES };
    let mut dataplane = Dataplane::load(&object(), &fs.pins(), &sizes).unwrap();
    let error = dataplane.carry_flows().unwrap_err().to_string();
    assert!(error.starts_with("map arrivals is full"), "{error}");
    assert_eq!(entries(&fs, "nat"), [(1, (key(1), translation))].into());
    assert!(entries::<ArrivalEntry>(&fs, "arrivals").len() >= 64);
    let flags: Array<MapData, PodFlags> = map(&fs, "pod_flags").try_into().unwrap();
    let of = |pod| flags.get(&pod, 0).unwrap();
    assert_eq!((of(3), of(4), of(5)), (PodFlags::ALL, PodFlags::ALL, PodFlags::default()));
}

/// An agent ends before all filters are its own, and others of any version come after it. Programs go on to record in the maps that they were
/// loaded with.
#[test]
fn flows_outlive_agents_that_end_in_the_middle_of_an_upgrade() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let pins_of_earlier = || {
        let pins = std::fs::read_dir(fs.pins()).unwrap().map(|pin| pin.unwrap().file_name());
        pins.filter(|pin| pin.to_str().unwrap().contains("earlier")).count()
    };
    let of_size = |nat| Dataplane::load(&object(), &fs.pins(), &Sizes { nat, ..SIZES }).unwrap();
    let translation = |port| NatEntry { last_seen: 0, addr: CLUSTER, port, state: 0, _pad: [0; 5] };
    let ports = || entries::<NatEntry>(&fs, "nat").into_iter().map(|(port, entry)| (port, entry.1.port));
    let mut first: HashMap<_, FlowKey, NatEntry> = pin_flows(&fs, "nat", NAT);
    first.insert(key(1), translation(1), 0).unwrap();
    // Killed at once.
    drop(of_size(2048));
    assert_eq!((ports().count(), pins_of_earlier()), (0, 1));
    let mut second: HashMap<MapData, FlowKey, NatEntry> = map(&fs, "nat").try_into().unwrap();
    first.insert(key(2), translation(2), 0).unwrap();
    // The same one again.
    let mut again = of_size(2048);
    assert_eq!((replaced(&again), again.carry_flows().unwrap()), (vec![], 2));
    drop(again);
    // Some filters are its own.
    second.insert(key(2), translation(7), 0).unwrap();
    first.insert(key(3), translation(3), 0).unwrap();
    // Another one, which is killed too, and the first one again, whose map is pinned as an earlier one.
    drop(of_size(4096));
    assert_eq!(pins_of_earlier(), 2);
    let mut last = of_size(1024);
    assert_eq!((last.carry_flows().unwrap(), pins_of_earlier()), (3, 3));
    assert_eq!(ports().collect::<Vec<_>>(), [(1, 1), (2, 7), (3, 3)]);
    last.forget_earlier_flows();
    assert_eq!((last.carry_flows().unwrap(), pins_of_earlier()), (0, 0));
}

/// Agents of changing versions that keep ending before they have replaced all filters.
#[test]
fn few_replaced_maps_stay_pinned_and_what_cannot_be_used_stops_nobody() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    for number in 1..=8 {
        drop(Dataplane::load(&object(), &fs.pins(), &Sizes { nat: 1024 * number, ..SIZES }).unwrap());
    }
    let earlier = || {
        let pins = std::fs::read_dir(fs.pins()).unwrap().map(|pin| pin.unwrap().file_name());
        pins.filter(|pin| pin.to_str().unwrap().starts_with("nat_earlier_")).count()
    };
    // Four that were found, and the one that was replaced then.
    assert_eq!(earlier(), 5);
    std::fs::create_dir(fs.pins().join("nat_earlier_0")).unwrap();
    let mut dataplane = Dataplane::load(&object(), &fs.pins(), &Sizes { nat: 1024 * 8, ..SIZES }).unwrap();
    assert!(dataplane.discarded().iter().any(|discarded| discarded.why.contains("nat_earlier_0")));
    dataplane.forget_earlier_flows();
    assert_eq!(earlier(), 1);
}

/// A pin could not be put in place after others had been: the next agent must find the maps of the programs that run.
#[test]
fn pins_that_cannot_all_be_replaced_are_all_as_they_were() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut nat: HashMap<_, FlowKey, NatEntry> = pin_flows(&fs, "nat", NAT);
    let translation = NatEntry { last_seen: 0, addr: CLUSTER, port: 7, state: 0, _pad: [0; 5] };
    nat.insert(key(1), translation, 0).unwrap();
    // The last one of all.
    std::fs::create_dir(fs.pins().join("ingress")).unwrap();
    let sizes = Sizes { nat: SIZES.nat * 2, ..SIZES };
    let error = Dataplane::load(&object(), &fs.pins(), &sizes).unwrap_err();
    assert!(matches!(&error, LoadError::Pin { path, .. } if path.ends_with("ingress")), "{error}");
    let pins = std::fs::read_dir(fs.pins()).unwrap();
    let mut pins: Vec<_> = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap()).collect();
    pins.sort_unstable();
    assert_eq!(pins, ["ingress", "nat"]);
    assert_eq!(entries(&fs, "nat"), [(1, (key(1), translation))].into());
    std::fs::remove_dir(fs.pins().join("ingress")).unwrap();
    let mut dataplane = Dataplane::load(&object(), &fs.pins(), &sizes).unwrap();
    assert_eq!((replaced(&dataplane), dataplane.carry_flows().unwrap()), (vec!["nat"], 1));
}
