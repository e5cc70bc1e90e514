//! Loading and pinning: what is kept, what is replaced, and what a failure says.

mod support;

use std::os::fd::AsRawFd;
use std::path::Path;

use spiderpool_dataplane::{
    CidrAction, CidrKind, Dataplane, DeviceKind, LoadError, MapError, NicEntry, NicsOrigin, Programs,
    ROLE_CLUSTER, Sizes,
};
use support::{BpfFs, SIZES, can_run, object};

fn nic() -> NicEntry {
    NicEntry { role: ROLE_CLUSTER, pod: 3, ifindex: 2, addr4: [10, 1, 2, 3], ..NicEntry::default() }
}

#[test]
fn maps_and_programs_are_pinned_and_kept_over_a_restart() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let net = "10.96.0.0/12".parse().unwrap();
    {
        let mut first = fs.load();
        first.nic_put(3, &nic()).unwrap();
        first.cidrs_set(7, &[(net, CidrAction::Steer, CidrKind::Service)]).unwrap();
    }
    for pin in ["nics", "cluster_cidrs", "arrivals", "nat", "stats", "events", "egress", "ingress"] {
        assert!(fs.pins().join(pin).exists(), "{pin} is not pinned");
    }
    let second = fs.load();
    assert_eq!(second.replaced(), &[]);
    assert_eq!(second.nics().unwrap(), [(3, nic())]);
    assert_eq!(second.cidrs(7).unwrap(), [(net, CidrAction::Steer, CidrKind::Service)]);
    assert_eq!(second.cidrs(8).unwrap(), []);
    let programs = Programs::open(&fs.pins()).unwrap();
    assert_ne!(programs.nic.egress_fd().as_raw_fd(), programs.nic.ingress_fd().as_raw_fd());
}

#[test]
fn a_map_of_another_size_is_replaced_and_the_others_are_kept() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    fs.load().nic_put(3, &nic()).unwrap();
    let larger = Sizes { nat: 2048, ..SIZES };
    let second = Dataplane::load(&object(), &fs.pins(), &larger).unwrap();
    let names: Vec<_> = second.replaced().iter().map(|r| r.0).collect();
    assert_eq!(names, ["nat"]);
    assert_eq!(second.nics().unwrap(), [(3, nic())]);
}

#[test]
fn nic_ids_beyond_a_smaller_map_have_nothing_to_remove() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut first = fs.load();
    assert_eq!(first.nics_origin(), NicsOrigin::New);
    let last = first.max_id();
    first.addresses_set(last, 3, &["10.1.2.3".parse().unwrap()]).unwrap();
    drop(first);
    assert_eq!(fs.load().nics_origin(), NicsOrigin::Kept);
    let smaller = Sizes { nics: SIZES.nics / 2, ..SIZES };
    let mut second = Dataplane::load(&object(), &fs.pins(), &smaller).unwrap();
    assert_eq!(second.nics_origin(), NicsOrigin::Replaced);
    assert!(second.max_id() < last);
    second.nic_remove(last).unwrap();
    assert!(matches!(second.nic_put(last, &nic()), Err(MapError::NicId { .. })));
}

#[test]
fn something_else_under_a_maps_name_is_replaced() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    drop(fs.load());
    // A program where a map is expected.
    std::fs::remove_file(fs.pins().join("nics")).unwrap();
    std::fs::rename(fs.pins().join("egress"), fs.pins().join("nics")).unwrap();
    let second = fs.load();
    let names: Vec<_> = second.replaced().iter().map(|r| r.0).collect();
    assert_eq!(names, ["nics"]);
    assert_eq!(second.nics().unwrap(), []);
}

#[test]
fn cidrs_become_what_is_wanted() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let entry = |net: &str, action, kind| (net.parse().unwrap(), action, kind);
    let first = [
        entry("10.96.0.0/12", CidrAction::Steer, CidrKind::Service),
        entry("10.244.0.0/16", CidrAction::Steer, CidrKind::Pod),
        entry("fd00:96::/112", CidrAction::Steer, CidrKind::Service),
    ];
    let second = [
        entry("10.96.0.0/12", CidrAction::Stay, CidrKind::PoolRoute),
        entry("10.6.0.0/16", CidrAction::Stay, CidrKind::Connected),
        entry("fd00:96::/112", CidrAction::Steer, CidrKind::Service),
    ];
    dataplane.cidrs_set(1, &first).unwrap();
    dataplane.cidrs_set(2, &first).unwrap();
    dataplane.cidrs_set(1, &second).unwrap();
    let sorted = |mut v: Vec<_>| {
        v.sort_unstable();
        v
    };
    assert_eq!(dataplane.cidrs(1).unwrap(), sorted(second.to_vec()));
    assert_eq!(dataplane.cidrs(2).unwrap(), sorted(first.to_vec()));
    dataplane.cidrs_remove_profile(2).unwrap();
    assert_eq!(dataplane.cidrs(2).unwrap(), []);
    assert_eq!(dataplane.cidrs(1).unwrap().len(), 3);
}

#[test]
fn entries_are_counted_as_they_come_and_go() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    let used =
        |dataplane: &mut Dataplane| dataplane.tables().unwrap().map(|table| (table.map, table.entries));
    assert_eq!(used(&mut dataplane), [("cluster_cidrs", 0), ("addresses", 0), ("node_devices", 0)]);
    assert_eq!(dataplane.tables().unwrap()[0].capacity, SIZES.cidrs);
    let net = |i: u32| format!("10.{}.{}.0/24", i / 256, i % 256).parse().unwrap();
    let cidrs: Vec<_> = (0..SIZES.cidrs).map(|i| (net(i), CidrAction::Steer, CidrKind::Pod)).collect();
    dataplane.cidrs_set(1, &cidrs).unwrap();
    let addresses = ["10.1.2.3", "10.1.2.4", "fd00::3"].map(|address| address.parse().unwrap());
    dataplane.addresses_set(3, 3, &addresses).unwrap();
    dataplane.addresses_set(4, 3, &addresses[..1]).unwrap();
    dataplane.addresses_set(3, 3, &addresses[1..]).unwrap();
    dataplane.devices_set(&[(7, DeviceKind::Pods), (8, DeviceKind::Pods)].into()).unwrap();
    let cidrs = cidrs.len();
    assert_eq!(used(&mut dataplane), [("cluster_cidrs", cidrs), ("addresses", 3), ("node_devices", 2)]);
    drop(dataplane);
    let mut dataplane = fs.load();
    dataplane.cidrs_remove_profile(1).unwrap();
    assert_eq!(used(&mut dataplane), [("cluster_cidrs", 0), ("addresses", 3), ("node_devices", 2)]);
}

#[test]
fn bad_ids_and_full_maps_are_named() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let mut dataplane = fs.load();
    for id in [0, 64, u16::MAX] {
        assert!(matches!(dataplane.nic_put(id, &nic()), Err(MapError::NicId { .. })), "{id}");
    }
    let many: Vec<_> = (0..=SIZES.cidrs)
        .map(|i| {
            let net = format!("10.{}.{}.0/24", i / 256, i % 256).parse().unwrap();
            (net, CidrAction::Steer, CidrKind::Pod)
        })
        .collect();
    let error = dataplane.cidrs_set(1, &many).unwrap_err();
    assert!(matches!(error, MapError::Full { map: "cluster_cidrs" }), "{error}");
}

#[test]
fn failures_say_what_to_do() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let error = Dataplane::load(&object(), &dir.path().join("v1"), &SIZES).unwrap_err();
    assert!(matches!(error, LoadError::NotBpffs { .. }), "{error}");
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    let fs = BpfFs::mount();
    let error = Dataplane::load(Path::new("/nowhere/x.o"), &fs.pins(), &SIZES).unwrap_err();
    assert!(matches!(error, LoadError::Object { .. }), "{error}");
    assert!(error.to_string().contains("SPIDERPOOL_BPF_OBJECT"), "{error}");
}
