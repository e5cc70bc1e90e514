use spiderpool_api::agent::dataplane::{DefaultRoutes, NodeLinkCallers, RouteHints};
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_core::names::PodName;

use super::*;

const NETNS: NetnsIdentity = NetnsIdentity { dev: 4, inode: 1 };

fn id(container: &str) -> ContainerId {
    container.parse().unwrap()
}

fn nic(name: &str, role: NicRole, address: &str) -> Nic {
    Nic {
        name: name.parse().unwrap(),
        role,
        ifindex: 2,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        peer_mac: None,
        mtu: 1500,
        addresses: vec![address.parse().unwrap()],
        default_routes: DefaultRoutes::default(),
    }
}

/// eth0, sp0 and one underlay NIC of this name.
fn request(container: &str, underlay: &str, host: u8) -> RegisterNics {
    RegisterNics {
        attachment: attachment(container, underlay),
        pod: PodName::new("ns", "pod").unwrap(),
        pod_uid: Some("u".parse().unwrap()),
        netns: "/run/netns/x".into(),
        open_netns: None,
        nics: vec![
            nic("eth0", NicRole::Cluster, &format!("10.244.0.{host}/32")),
            nic("sp0", NicRole::NodeLink, "169.254.77.2/32"),
            nic(underlay, NicRole::Underlay, &format!("10.6.0.{host}/16")),
        ],
        stay: vec!["10.6.0.0/16".parse().unwrap()],
        gateways: BTreeSet::new(),
        own_cidrs: OwnCidrs::default(),
        route_hints: RouteHints::Auto,
        node_link: NodeLinkCallers::All,
    }
}

fn attachment(container: &str, underlay: &str) -> Attachment {
    Attachment { container_id: id(container), network: "macvlan".into(), if_name: underlay.parse().unwrap() }
}

fn register(inventory: &mut Inventory, request: &RegisterNics) {
    inventory.register(request, NETNS, 100).unwrap();
}

fn retiring_pod(pod: u16, nics: &[u16]) -> Vec<(u16, ReservedId)> {
    let nics = nics.iter().map(|id| (*id, ReservedId::RetiringNic));
    [(pod, ReservedId::RetiringPod)].into_iter().chain(nics).collect()
}

fn flush(inventory: &mut Inventory) {
    inventory.retiring().iter().for_each(|(id, _)| inventory.free(*id));
}

fn ids(inventory: &Inventory, container: &str) -> Vec<(String, u16)> {
    let nics = &inventory.pod(&id(container)).unwrap().nics;
    nics.iter().map(|record| (record.nic.name.to_string(), record.id)).collect()
}

#[test]
fn registering_again_gives_the_same_ids() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    let before = inventory.clone();
    register(&mut inventory, &request("a", "net1", 1));
    assert_eq!(inventory, before);
    assert_eq!(inventory.retiring(), []);
}

#[test]
fn a_second_nic_joins_the_first_ones() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    register(&mut inventory, &request("a", "net2", 2));
    let names: Vec<_> = ids(&inventory, "a").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["eth0", "sp0", "net1", "net2"]);
    assert_eq!(inventory.unregister(&attachment("a", "net1")), Removed::Nic);
    assert_eq!(inventory.retiring(), [(3, ReservedId::RetiringNic)]);
    assert_eq!(inventory.unregister(&attachment("a", "net2")), Removed::Pod);
    assert_eq!(inventory.retiring(), retiring_pod(1, &[2, 3, 4]));
    assert!(inventory.pod(&id("a")).is_none());
}

/// The kernel lists the newest first for IPv6; net2's registration knows nothing of net1's IPAM.
#[test]
fn the_order_of_addresses_is_the_one_of_the_nics_own_registration() {
    let mut inventory = Inventory::default();
    let [ipam, advertised] = ["fd00:6::5/64", "fd00:6::ff:fe00:1/64"].map(|net| net.parse().unwrap());
    let mut first = request("a", "net1", 1);
    first.nics[2].addresses = vec![ipam];
    register(&mut inventory, &first);
    let mut second = request("a", "net2", 2);
    second.nics.push(Nic { addresses: vec![advertised, ipam], ..first.nics[2].clone() });
    register(&mut inventory, &second);
    let net1 = |inventory: &Inventory| inventory.pod(&id("a")).unwrap().nics[2].nic.addresses.clone();
    assert_eq!(net1(&inventory), [ipam, advertised]);
    first.nics[2].addresses = vec![advertised];
    register(&mut inventory, &first);
    assert_eq!(net1(&inventory), [advertised]);
}

#[test]
fn an_underlay_pods_id_is_veth0s_and_its_flows_end_with_it() {
    let mut inventory = Inventory::default();
    let mut request = request("a", "eth0", 1);
    request.nics = vec![
        nic("veth0", NicRole::NodeLink, "169.254.100.1/32"),
        nic("eth0", NicRole::Underlay, "10.6.0.1/16"),
    ];
    register(&mut inventory, &request);
    assert_eq!(ids(&inventory, "a"), [("veth0".to_owned(), 1), ("eth0".to_owned(), 2)]);
    assert_eq!(inventory.pod(&id("a")).map(PodRecord::id), Some(1));
    assert_eq!(inventory.unregister(&attachment("a", "eth0")), Removed::Pod);
    assert_eq!(inventory.retiring(), retiring_pod(1, &[2]));
}

#[test]
fn a_late_removal_of_an_old_sandbox_hits_nothing() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("old", "net1", 1));
    register(&mut inventory, &request("new", "net1", 1));
    assert_eq!(inventory.unregister(&attachment("old", "net1")), Removed::Pod);
    let before = inventory.clone();
    assert_eq!(inventory.unregister(&attachment("old", "net1")), Removed::Nothing);
    assert_eq!(inventory, before);
    assert_eq!(ids(&inventory, "new").len(), 3);
}

#[test]
fn another_namespace_under_the_same_container_is_another_pod() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    let other = NetnsIdentity { inode: 2, ..NETNS };
    inventory.register(&request("a", "net1", 1), other, 100).unwrap();
    assert_eq!(inventory.retiring(), retiring_pod(1, &[2, 3]));
    assert_eq!(inventory.ids(), [4, 5, 6].into());
}

#[test]
fn ids_come_again_as_late_as_possible_and_run_out() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    inventory.remove(&id("a"));
    inventory.free(2);
    inventory.free(3);
    register(&mut inventory, &request("b", "net1", 1));
    assert_eq!(inventory.ids(), [4, 5, 6].into());
    let full = inventory.clone();
    assert_eq!(inventory.register(&request("c", "net1", 1), NETNS, 6), Err(InventoryError::Full(6)));
    assert_eq!(inventory, full, "a refused registration changes nothing");
    inventory.register(&request("c", "net1", 1), NETNS, 8).unwrap();
    assert_eq!(inventory.ids(), (2..=8).filter(|id| *id != 3).collect::<BTreeSet<_>>());
}

/// A later NIC would inherit counters, addresses and flows.
#[test]
fn an_id_is_not_given_out_before_its_entries_are_flushed() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    inventory.remove(&id("a"));
    let refused = inventory.register(&request("b", "net1", 1), NETNS, 3);
    assert_eq!(refused, Err(InventoryError::Full(3)));
    let text = serde_json::to_string(&inventory).unwrap();
    let mut restarted: Inventory = serde_json::from_str(&text).unwrap();
    restarted.compare(&[], NicsOrigin::Kept);
    assert_eq!(restarted.retiring(), retiring_pod(1, &[2, 3]), "nor after a restart");
    flush(&mut restarted);
    restarted.register(&request("b", "net1", 1), NETNS, 3).unwrap();
    assert_eq!(restarted.ids(), [1, 2, 3].into());
}

#[test]
fn a_registration_proves_that_the_pod_runs() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    assert_eq!(inventory.pod(&id("a")).unwrap().state, PodState::Attached);
    inventory.set_state(&id("a"), PodState::Unverified);
    register(&mut inventory, &request("a", "net2", 2));
    let running = inventory.pods_in(PodState::Verified);
    assert_eq!(running.len(), 1, "net1 still has the programs of the agent before");
}

#[test]
fn pods_that_want_the_same_share_a_profile() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    let mut own_address = request("b", "net1", 2);
    own_address.stay.push("10.6.0.2/32".parse().unwrap());
    register(&mut inventory, &own_address);
    let mut different = request("c", "net1", 3);
    different.stay.push("192.0.2.0/24".parse().unwrap());
    register(&mut inventory, &different);
    let profile = |container: &str| inventory.pod(&id(container)).unwrap().profile;
    assert_eq!((profile("a"), profile("b"), profile("c")), (1, 1, 2));
    inventory.remove(&id("a"));
    inventory.remove(&id("b"));
    register(&mut inventory, &request("d", "net1", 4));
    assert_eq!(inventory.pod(&id("d")).unwrap().profile, 1);
}

#[test]
fn without_a_cluster_nic_nothing_is_registered() {
    let mut inventory = Inventory::default();
    let mut request = request("a", "net1", 1);
    request.nics.remove(0);
    let refused = inventory.register(&request, NETNS, 100);
    assert_eq!(refused, Err(InventoryError::NoClusterNic(id("a"))));
    assert_eq!(inventory, Inventory::default());
}

/// What an agent whose inventory was lost finds in the maps belongs to pods that may still run.
#[test]
fn orphaned_ids_and_profiles_are_not_given_out() {
    let mut inventory = Inventory::lost();
    inventory.compare(
        &[FoundNic { id: 1, pod: 1, profile: 1 }, FoundNic { id: 3, pod: 1, profile: 2 }],
        NicsOrigin::Kept,
    );
    inventory.free(1);
    register(&mut inventory, &request("a", "net1", 1));
    assert_eq!(inventory.ids(), [2, 4, 5].into());
    assert_eq!(inventory.pod(&id("a")).unwrap().profile, 3);
    assert_eq!((inventory.orphaned(), inventory.profiles_in_use()), (2, [1, 2, 3].into()));
    let text = serde_json::to_string(&inventory).unwrap();
    let restarted: Inventory = serde_json::from_str(&text).unwrap();
    assert_eq!((restarted.orphaned(), restarted.profiles_in_use()), (2, [1, 2, 3].into()));
}

/// Before the maps can be read a pod may come and go.
#[test]
fn a_lost_inventory_stays_lost_on_disk_until_it_is_compared() {
    let text = serde_json::to_string(&Inventory::lost()).unwrap();
    let mut restarted: Inventory = serde_json::from_str(&text).unwrap();
    restarted.compare(&[FoundNic { id: 1, pod: 1, profile: 1 }], NicsOrigin::Kept);
    assert_eq!((restarted.orphaned(), restarted.retiring()), (1, vec![]));
}

/// Programs of pods that nobody knows of go on with the map that was replaced.
#[test]
fn a_lost_inventory_stays_lost_while_its_map_is_replaced() {
    let mut inventory = Inventory::lost();
    inventory.compare(&[], NicsOrigin::Replaced);
    assert!(inventory.is_lost());
    inventory.compare(&[], NicsOrigin::New);
    assert!(!inventory.is_lost());
}

#[test]
fn survives_the_disk_and_is_not_verified_then() {
    let mut inventory = Inventory::default();
    register(&mut inventory, &request("a", "net1", 1));
    register(&mut inventory, &request("b", "net1", 2));
    inventory.unregister(&attachment("b", "net1"));
    let text = serde_json::to_string(&inventory).unwrap();
    let restarted: Inventory = serde_json::from_str(&text).unwrap();
    assert_eq!(restarted.pod(&id("a")).unwrap().state, PodState::Unverified);
    inventory.set_state(&id("a"), PodState::Unverified);
    assert_eq!(restarted, inventory);
}

/// Agents before this one kept more of an attachment and of a NIC, and wrote an absent UID as an empty text.
#[test]
fn reads_what_older_agents_wrote() {
    let text = r#"{"pods": {"a": {
        "containerID": "a", "netns": "/run/netns/x", "netnsIdentity": {"dev": 4, "inode": 1},
        "podNamespace": "ns", "podName": "pod", "podUID": "", "profile": 1,
        "attachments": [{"network": "macvlan", "ifName": "net1", "defaultRouteNic": "eth0",
            "stay": ["10.6.0.0/16"], "ownCidrs": {}, "routeHints": "auto"}],
        "nics": [{"id": 1, "nic": {"name": "eth0", "role": "cluster", "ifindex": 2,
            "mac": "02:00:00:00:00:01", "mtu": 1500, "addresses": ["10.244.0.1/32"], "gateways": ["10.244.0.1"]}}]
    }}, "lastId": 3, "strangers": {"7": 2}}"#;
    let inventory: Inventory = serde_json::from_str(text).unwrap();
    let pod = inventory.pod(&id("a")).unwrap();
    assert_eq!((pod.pod.to_string().as_str(), &pod.pod_uid, pod.id()), ("ns/pod", &None, 1));
    assert_eq!((inventory.ids(), inventory.orphaned()), ([1].into(), 1));
    assert_eq!(inventory.profiles_in_use(), [1, 2].into());
}

/// Until the agent has read them, a bridge of the node that is a pod's gateway would be a node address like any other.
#[test]
fn gateways_that_an_older_agent_has_not_written_are_completed_in_the_pods_profile() {
    let mut inventory = Inventory::default();
    for (container, host) in [("a", 1), ("b", 2), ("c", 3)] {
        register(&mut inventory, &request(container, "net1", host));
    }
    let text = serde_json::to_string(&inventory).unwrap().replace(r#""gateways":[],"#, "");
    let mut restarted: Inventory = serde_json::from_str(&text).unwrap();
    let gateways = |last: u8| BTreeSet::from([IpAddr::from([10, 6, 0, last])]);
    let profiles = |inventory: &Inventory| -> Vec<_> {
        inventory.pods().map(|pod| (pod.has_gateways(), pod.profile)).collect()
    };
    assert_eq!(profiles(&restarted), [(false, 1), (false, 1), (false, 1)]);
    restarted.set_gateways(&id("a"), &gateways(1));
    assert_eq!(profiles(&restarted), [(true, 1), (false, 1), (false, 1)], "the map's entries serve it");
    assert_eq!(restarted.profiles()[&1].gateways, gateways(1), "not those of a pod that is not known");
    restarted.set_gateways(&id("b"), &gateways(2));
    assert_eq!(profiles(&restarted), [(true, 1), (true, 2), (false, 1)]);
    restarted.set_gateways(&id("c"), &gateways(1));
    assert_eq!(profiles(&restarted), [(true, 1), (true, 2), (true, 1)]);
    assert_eq!(restarted.profiles()[&2].gateways, gateways(2));
}
