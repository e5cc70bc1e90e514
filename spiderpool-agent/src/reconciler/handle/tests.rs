use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use spiderpool_api::agent::NetnsIdentity;
use spiderpool_api::agent::dataplane::{DefaultRoutes, Nic, NicRole, NodeLinkCallers, RouteHints};
use spiderpool_core::coordinator::host_end_name;
use spiderpool_core::names::PodName;

use super::*;
use crate::pod_network::Inventory;

fn request(container: &str) -> RegisterNics {
    let nic = |name: &str, role, address: &str| Nic {
        name: name.parse().unwrap(),
        role,
        ifindex: 2,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        peer_mac: None,
        mtu: 1500,
        addresses: vec![address.parse().unwrap()],
        default_routes: DefaultRoutes::default(),
    };
    RegisterNics {
        attachment: attachment(container),
        pod: PodName::new("ns", "pod").unwrap(),
        pod_uid: None,
        netns: "/run/netns/none".into(),
        open_netns: None,
        nics: vec![
            nic("eth0", NicRole::Cluster, "10.1.0.9/32"),
            nic("net1", NicRole::Underlay, "10.6.0.9/16"),
        ],
        stay: vec![],
        gateways: BTreeSet::new(),
        own_cidrs: spiderpool_core::dataplane::OwnCidrs::default(),
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

/// A pod makes neighbor entries on its host end by sending ARP in any address's name, and other programs events of any
/// number.
#[tokio::test]
async fn a_flood_of_events_is_one_command_by_pod_and_requests_wait_for_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut pods = PodNetworks::new(folder.path().join("dataplane.json"));
    let mut inventory = Inventory::default();
    for container in ["a", "b"] {
        inventory.register(&request(container), NetnsIdentity { dev: 4, inode: 1 }, 100).unwrap();
    }
    pods.commit(inventory).unwrap();
    let (commands, received) = channel();
    let handle = Handle::new(commands, &pods);
    let [a, b] = ["a", "b"].map(|container| host_end_name(container).unwrap());
    for source in 0..100_000 {
        handle.check(&a, Change::Neighbor(Ipv4Addr::from_bits(source).into()));
    }
    assert!(received.try_recv().is_err(), "none of them is an entry that the agent keeps");
    for _ in 0..100_000 {
        handle.check(&a, Change::Neighbor("10.6.0.9".parse().unwrap()));
        handle.check(&b, Change::LinkOrRoute);
        handle.check(&"sp0000000000000".parse().unwrap(), Change::LinkOrRoute);
    }
    let unregister = handle.unregister(attachment("a"));
    assert!(tokio::time::timeout(Duration::ZERO, unregister).await.is_err(), "nobody answers here");
    let kinds = received.try_iter().map(|command| match command {
        Command::Check(pod) => pod.to_string(),
        Command::Unregister(..) => "unregister".to_owned(),
        _ => "other".to_owned(),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["a", "b", "unregister"]);
    handle.reported.remove(&"a".parse().unwrap());
    handle.check(&a, Change::LinkOrRoute);
    assert!(matches!(received.try_recv(), Ok(Command::Check(_))), "it has been looked at since");
}
