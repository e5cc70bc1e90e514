//! On a node whose programs cannot be loaded: the object file does not exist.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use prometheus_client::metrics::counter::Counter;
use spiderpool_api::agent::NetnsIdentity;
use spiderpool_api::agent::dataplane::{DefaultRoutes, Nic, NicRole, NodeLinkCallers, RouteHints};
use spiderpool_core::coordinator::{NODE_LINK_V4, NodeLink};
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::PodName;
use spiderpool_core::net::Route;
use spiderpool_dataplane::Sizes;
use spiderpool_net::block_on;
use spiderpool_net::netlink::{Netlink, NetlinkError, NewVeth};
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_runtime::health::{Health, Scope};

use super::*;
use crate::dataplane::{DataplaneMetrics, DataplaneSettings};
use crate::fallback::Fallback;
use crate::pod_network::{PodNetworks, ReservedId, StateFileError, state_file};

const UNDERLAY: &str = "10.6.0.9";

/// With these pods in the state file.
fn without_maps(folder: &Path, pods: &[(RegisterNics, NetnsIdentity)]) -> Reconciler {
    let mut inventory = Inventory::default();
    for (request, identity) in pods {
        inventory.register(request, *identity, 100).unwrap();
    }
    state_file::write(&state(folder), &inventory).unwrap();
    let settings = DataplaneSettings {
        object: folder.join("none.o"),
        pin_dir: folder.join("pins"),
        sizes: Sizes::default(),
        mount_namespace: None,
    };
    let condition = Health::default().condition("dataplane", Scope::Readiness);
    let fallback = Fallback::new(condition, DataplaneMetrics::default().fallback, NodeEvents::new().0);
    Reconciler::new(
        PodNetworks::new(state(folder)),
        EbpfDataplane::new(settings, DataplaneMetrics::default(), fallback),
        NodeEvents::new().0,
        Reported::default(),
    )
}

fn state(folder: &Path) -> PathBuf {
    folder.join("dataplane.json")
}

fn on_disk(folder: &Path) -> Inventory {
    state_file::read(&state(folder)).unwrap().unwrap()
}

fn nic(name: &str, role: NicRole, addresses: &[&str]) -> Nic {
    Nic {
        name: name.parse().unwrap(),
        role,
        ifindex: 2,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        peer_mac: None,
        mtu: 1500,
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        default_routes: DefaultRoutes::default(),
    }
}

fn request(container: &str) -> RegisterNics {
    RegisterNics {
        attachment: attachment(container),
        pod: PodName::new("ns", "pod").unwrap(),
        pod_uid: None,
        netns: "/run/netns/none".into(),
        open_netns: None,
        nics: vec![
            nic("eth0", NicRole::Cluster, &[]),
            nic("net1", NicRole::Underlay, &[&format!("{UNDERLAY}/16")]),
        ],
        stay: vec![],
        gateways: std::collections::BTreeSet::new(),
        own_cidrs: OwnCidrs::default(),
        route_hints: RouteHints::Auto,
        node_link: NodeLinkCallers::All,
    }
}

fn attachment(container: &str) -> Attachment {
    Attachment {
        container_id: container.parse().unwrap(),
        network: "macvlan".into(),
        if_name: "net1".parse().unwrap(),
    }
}

const NETNS: NetnsIdentity = NetnsIdentity { dev: 4, inode: 1 };

#[test]
fn a_removal_before_the_maps_are_loaded_keeps_ids_reserved_and_other_pods_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let pods = [(request("goes"), NETNS), (request("stays"), NETNS)];
    let mut reconciler = without_maps(folder.path(), &pods);
    let before = on_disk(folder.path());
    assert!(!reconciler.load());
    reconciler.unregister(&attachment("unknown")).unwrap();
    assert_eq!(on_disk(folder.path()), before);
    reconciler.unregister(&attachment("goes")).unwrap();
    let after = on_disk(folder.path());
    assert_eq!(after.retiring(), [(1, ReservedId::RetiringPod), (2, ReservedId::RetiringNic)]);
    let stays: Vec<_> = before.pods().filter(|pod| pod.container_id.as_str() == "stays").collect();
    assert_eq!(after.pods().collect::<Vec<_>>(), stays);
}

#[test]
fn a_registration_before_the_maps_are_loaded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut reconciler = without_maps(folder.path(), &[]);
    reconciler.resync();
    let before = on_disk(folder.path());
    let refused = reconciler.register(&request("new"));
    assert!(matches!(refused, Err(RegistrationError::NotLoaded(_))), "{refused:?}");
    assert_eq!(on_disk(folder.path()), before);
}

/// A static IPAM plugin gives what its user writes.
#[test]
fn a_nic_with_an_address_of_the_node_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut reconciler = without_maps(folder.path(), &[]);
    let mut refusal = |node: &str| {
        reconciler.destinations.nodes = vec![node.parse().unwrap()];
        reconciler.register(&request("new")).unwrap_err().to_string()
    };
    assert!(!refusal("10.6.0.1").contains(UNDERLAY));
    let refusal = refusal(UNDERLAY);
    assert!(refusal.contains("net1") && refusal.contains(UNDERLAY), "{refusal}");
}

#[test]
fn a_state_file_that_cannot_be_read_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut reconciler = without_maps(folder.path(), &[]);
    fs::remove_file(state(folder.path())).unwrap();
    fs::create_dir(state(folder.path())).unwrap();
    reconciler.resync();
    let refused = reconciler.unregister(&attachment("known"));
    assert!(matches!(refused, Err(RegistrationError::State(StateFileError::Io { .. }))), "{refused:?}");
    fs::remove_dir(state(folder.path())).unwrap();
    state_file::write(&state(folder.path()), &Inventory::default()).unwrap();
    reconciler.unregister(&attachment("known")).unwrap();
}

#[test]
fn without_maps_pods_that_are_gone_are_taken_out_and_node_links_follow_the_nodes_addresses() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let in_a_node = || {
        let folder = tempfile::tempdir().unwrap();
        let pod = NetNs::create().unwrap();
        let runs = block_on(pod_with_node_link(&pod)).unwrap();
        let identity = netns::identity(&pod).unwrap();
        let mut reconciler = without_maps(folder.path(), &[(runs, identity), (request("gone"), NETNS)]);
        reconciler.resync();
        let pods = on_disk(folder.path());
        assert_eq!(pods.pods().map(|pod| pod.container_id.as_str()).collect::<Vec<_>>(), ["runs"]);
        reconciler.update(Update { cluster: None, nodes: Some(vec!["10.6.0.1".parse().unwrap()]) });
        let host = NodeLink::new("runs").unwrap().host;
        let contents = Contents { routes: true, ..Contents::default() };
        let present = block_on(async { Netlink::open()?.snapshot_of(&[&host], contents).await }).unwrap();
        let ours: Vec<_> = present.routes.iter().filter(|route| route.is_ours()).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(
            (ours[0].dst.addr().to_string().as_str(), ours[0].source),
            (UNDERLAY, "10.6.0.1".parse().ok())
        );
    };
    NetNs::create().unwrap().run(in_a_node).unwrap();
}

/// A bridge of the node that is the pod's gateway resolves itself: the programs must not answer for it.
#[test]
fn gateways_of_a_pod_that_an_older_agent_has_registered_are_those_of_its_routes() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let in_a_node = || {
        let folder = tempfile::tempdir().unwrap();
        let pod = NetNs::create().unwrap();
        let runs = block_on(pod_with_node_link(&pod)).unwrap();
        block_on(async {
            let mut netlink = pod.netlink()?;
            for (nic, dst, gateway) in
                [("net1", "192.0.2.0/24", "10.6.0.1"), ("sp0", "198.51.100.0/24", "169.254.77.1")]
            {
                let dev = netlink.link_by_name(&nic.parse().unwrap()).await?.unwrap().index;
                let route = Route::new(dst.parse().unwrap(), dev);
                netlink.add_route(&Route { gateway: gateway.parse().ok(), onlink: true, ..route }).await?;
            }
            Ok::<_, NetlinkError>(())
        })
        .unwrap();
        let mut reconciler = without_maps(folder.path(), &[(runs, netns::identity(&pod).unwrap())]);
        let written = fs::read_to_string(state(folder.path())).unwrap();
        fs::write(state(folder.path()), written.replace(r#""gateways":[],"#, "")).unwrap();
        reconciler.resync();
        let gateways = |inventory: &Inventory| inventory.pods().next().unwrap().profile_key().gateways;
        assert_eq!(gateways(&on_disk(folder.path())), ["10.6.0.1".parse().unwrap()].into());
    };
    NetNs::create().unwrap().run(in_a_node).unwrap();
}

/// The namespace of the sandbox is still there, as where a runtime lost its own state.
#[test]
fn gc_removes_node_links_of_sandboxes_that_the_runtime_does_not_list() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let in_a_node = || {
        let folder = tempfile::tempdir().unwrap();
        let pod = NetNs::create().unwrap();
        let runs = block_on(pod_with_node_link(&pod)).unwrap();
        let identity = netns::identity(&pod).unwrap();
        let mut other = request("other");
        other.attachment.network = "red".into();
        let pods = [(runs, identity), (request("listed"), NETNS), (other, NETNS)];
        let mut reconciler = without_maps(folder.path(), &pods);
        let nics = |containers: &[&str]| {
            containers
                .iter()
                .map(|container| SandboxNic {
                    container_id: container.parse().unwrap(),
                    nic: "net1".parse().unwrap(),
                })
                .collect()
        };
        let host = NodeLink::new("runs").unwrap().host;
        let has_link = || block_on(async { Netlink::open()?.link_by_name(&host).await }).unwrap().is_some();
        let left = || {
            let pods = on_disk(folder.path());
            pods.pods().map(|pod| pod.container_id.to_string()).collect::<Vec<_>>()
        };
        let listed = ValidAttachments { network: "macvlan".into(), nics: nics(&["listed", "runs"]) };
        reconciler.collect_garbage(&listed).unwrap();
        assert_eq!(left(), ["listed", "other", "runs"]);
        let listed = ValidAttachments { network: "macvlan".into(), nics: nics(&["listed"]) };
        reconciler.collect_garbage(&listed).unwrap();
        assert_eq!(left(), ["listed", "other"]);
        let deadline = Instant::now() + std::time::Duration::from_secs(10);
        while has_link() {
            assert!(Instant::now() < deadline, "the node link is left");
            std::thread::yield_now();
        }
    };
    NetNs::create().unwrap().run(in_a_node).unwrap();
}

/// A network manager of the host, or somebody in the pod.
#[test]
fn what_others_take_from_a_running_pods_node_link_is_restored_and_said_when_it_happens_often() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let in_a_node = || {
        let folder = tempfile::tempdir().unwrap();
        let netns = NetNs::create().unwrap();
        let runs = block_on(pod_with_node_link(&netns)).unwrap();
        let identity = netns::identity(&netns).unwrap();
        let (events, mut said) = NodeEvents::new();
        let mut reconciler = without_maps(folder.path(), &[(runs, identity)]);
        reconciler.events = events;
        reconciler.resync();
        reconciler.update(Update { cluster: None, nodes: Some(vec!["10.6.0.1".parse().unwrap()]) });
        let link = NodeLink::new("runs").unwrap();
        let state = async |netlink: &mut Netlink, name| {
            let state = netlink.snapshot_of(&[name], Contents::PLAIN).await.unwrap();
            let up = state.links[0].up;
            let ours = state.routes.into_iter().filter(Route::is_ours).collect::<Vec<_>>();
            let sp0 = state.addresses.iter().any(|a| a.net == NODE_LINK_V4);
            (up, ours, state.neighbors, sp0)
        };
        let both = async || {
            let host = state(&mut Netlink::open()?, &link.host).await;
            Ok::<_, NetlinkError>((host, state(&mut netns.netlink()?, &link.pod).await))
        };
        let mut look = |now| {
            reconciler.begin_sweep(now);
            reconciler.check_next(now);
            reconciler.ebpf.metrics().restored.clone()
        };
        let mut now = Instant::now();
        look(now);
        let before = block_on(both()).unwrap();
        assert!(before.0.0 && before.0.1.len() == 1 && before.0.2.len() == 1 && before.1.3, "{before:?}");
        let count = |restored: &prometheus_client::metrics::family::Family<_, Counter>, kind| {
            restored.get_or_create(&[("kind", kind)]).get()
        };
        let first = look(now);
        let [routes, neighbors] = ["route", "neighbor"].map(|kind| count(&first, kind));
        for round in 1..=3 {
            block_on(async {
                let mut node = Netlink::open()?;
                let host = node.link_by_name(&link.host).await?.unwrap().index;
                node.set_down(host).await?;
                node.set_up(host).await?;
                node.delete_neighbor(host, UNDERLAY.parse().unwrap()).await?;
                let mut pod = netns.netlink()?;
                let sp0 = pod.link_by_name(&link.pod).await?.unwrap().index;
                pod.delete_address(sp0, NODE_LINK_V4).await?;
                pod.set_down(sp0).await?;
                node.set_down(host).await
            })
            .unwrap();
            assert_ne!(block_on(both()).unwrap(), before);
            now += std::time::Duration::from_secs(5);
            let restored = look(now);
            assert_eq!(block_on(both()).unwrap(), before, "round {round}");
            assert_eq!(count(&restored, "route"), routes + round);
            assert!(count(&restored, "neighbor") >= neighbors + round);
            assert_eq!(count(&restored, "link"), 2 * round);
            let notes: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).collect();
            let often =
                notes.iter().filter(|note| format!("{note:?}").contains("PodNetworkRestored")).count();
            assert_eq!(often > 0, round == 3, "{notes:?}");
        }
        // Of a NIC that is gone somebody must hear.
        block_on(async { netns.netlink()?.delete_link(&"net1".parse().unwrap()).await }).unwrap();
        look(now);
        look(now);
        let notes: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).collect();
        let [gone] = &notes[..] else { panic!("{notes:?}") };
        let gone = format!("{gone:?}");
        assert!(gone.contains("PodNICGone") && gone.contains("net1"), "{gone}");
    };
    NetNs::create().unwrap().run(in_a_node).unwrap();
}

/// A pod whose node link is up, and the node's address on its underlay NIC.
async fn pod_with_node_link(pod: &NetNs) -> Result<RegisterNics, NetlinkError> {
    let mut node = Netlink::open()?;
    let link = NodeLink::new("runs").unwrap();
    let names = [
        (&link.host, &link.pod, link.host_mac),
        (&"br0".parse().unwrap(), &"net1".parse().unwrap(), MacAddr([2; 6])),
    ];
    let mut nics = vec![nic("eth0", NicRole::Cluster, &[])];
    for (host, inside, mac) in names {
        let veth = NewVeth {
            name: host,
            mac,
            peer_name: inside,
            peer_mac: link.pod_mac,
            peer_netns: pod,
            mtu: 1500,
        };
        node.add_veth(&veth).await?;
        let index = node.link_by_name(host).await?.unwrap().index;
        node.set_up(index).await?;
        let mut netlink = pod.netlink()?;
        let found = netlink.link_by_name(inside).await?.unwrap();
        netlink.set_up(found.index).await?;
        let own = if inside == &link.pod { NODE_LINK_V4 } else { format!("{UNDERLAY}/16").parse().unwrap() };
        netlink.add_address(found.index, own).await?;
        let known = if inside == &link.pod {
            nic(inside.as_str(), NicRole::NodeLink, &[])
        } else {
            nic(inside.as_str(), NicRole::Underlay, &[&format!("{UNDERLAY}/16")])
        };
        nics.push(Nic { ifindex: found.index, mac: link.pod_mac, ..known });
    }
    let index = node.link_by_name(&"br0".parse().unwrap()).await?.unwrap().index;
    node.add_address(index, "10.6.0.1/16".parse().unwrap()).await?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), pod.as_fd().as_raw_fd());
    Ok(RegisterNics { netns: path, nics, ..request("runs") })
}

mod looks;
