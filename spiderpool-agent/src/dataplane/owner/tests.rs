use spiderpool_api::agent::dataplane::{Nic, NicRole};
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_core::names::PodName;
use spiderpool_runtime::health::{Health, Scope};

use super::*;
use crate::pod_network::NetnsIdentity;

/// An owner on a node whose BPF file system is not mounted, with a pod in its inventory.
fn owner_without_maps(folder: &std::path::Path) -> Owner {
    let state = folder.join("dataplane.json");
    let mut inventory = Inventory::default();
    let identity = NetnsIdentity { dev: 4, inode: 1 };
    inventory.register(&request(), identity, &BTreeSet::new(), 100).unwrap();
    state_file::write(&state, &inventory).unwrap();
    let settings = Settings {
        object: folder.join("none.o"),
        pin_dir: folder.join("pins"),
        state,
        sizes: Sizes::default(),
    };
    let loaded = Health::default().condition("dataplane", Scope::Readiness);
    Owner::new(settings, DataplaneMetrics::default(), loaded)
}

fn request() -> RegisterNics {
    let nic = |name: &str, role| Nic {
        name: name.parse().unwrap(),
        role,
        ifindex: 2,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        peer_mac: None,
        mtu: 1500,
        addresses: vec![],
    };
    RegisterNics {
        attachment: attachment("lives"),
        pod: PodName::new("ns", "pod").unwrap(),
        pod_uid: None,
        netns: "/run/netns/x".into(),
        nics: vec![nic("eth0", NicRole::Cluster), nic("net1", NicRole::Underlay)],
        stay: vec![],
        own_cidrs: OwnCidrs::default(),
        route_hints: RouteHints::Auto,
    }
}

fn attachment(container: &str) -> Attachment {
    Attachment {
        container_id: container.parse().unwrap(),
        network: "macvlan".into(),
        if_name: "net1".parse().unwrap(),
    }
}

#[test]
fn a_removal_before_the_maps_are_loaded_leaves_the_inventory_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = owner_without_maps(folder.path());
    let before = state_file::read(&owner.settings.state).unwrap();
    owner.sweep();
    owner.unregister(&attachment("unknown")).unwrap();
    let refused = owner.unregister(&attachment("lives"));
    assert!(matches!(refused, Err(DataplaneError::NotLoaded(_))), "{refused:?}");
    assert_eq!(state_file::read(&owner.settings.state).unwrap(), before);
}
