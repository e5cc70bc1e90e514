use std::sync::Arc;

use serde_json::json;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::{
    Allocated, DefaultRoute, Holding, Owner, PodAnnotations, Pool, PoolFields, Workload, build_response,
};
use spiderpool_core::names::{PodIdentity, PodName, PodUid};

use super::*;
use crate::annotations::KEPT_ADDRESSES;
use crate::crd::{EndpointIp, SpiderEndpoint, SpiderEndpointStatus, SpiderIPAddress};
use crate::pod::{Pod, PodObject};

fn allocated(nic: &str, address: &str, gateway: Option<&str>, default_route: DefaultRoute) -> Allocated {
    Allocated {
        nic: nic.parse().unwrap(),
        address: address.parse().unwrap(),
        pool: "p".parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        routes: vec![],
        default_route,
    }
}

#[test]
fn both_families_of_a_nic_share_an_entry() {
    let addresses = vec![
        allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep),
        allocated("net1", "10.7.0.9/16", None, DefaultRoute::Keep),
        allocated("eth0", "fd00::9/64", Some("fd00::1"), DefaultRoute::Keep),
    ];
    let entries = endpoint_ips(&build_response(addresses, &[]));
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].ipv4.as_deref(), Some("10.6.0.9/16"));
    assert_eq!(entries[0].ipv6_gateway.as_deref(), Some("fd00::1"));
    assert_eq!((entries[0].clean_gateway, entries[1].clean_gateway), (Some(false), None));
}

#[test]
fn a_later_nic_joins_the_entry_of_the_first() {
    let entries = |nic: &str, address: &str| {
        endpoint_ips(&build_response(vec![allocated(nic, address, None, DefaultRoute::Keep)], &[]))
    };
    let (first, second) = (entries("eth0", "10.6.0.9/16"), entries("net1", "10.7.0.9/16"));
    let both = merge(first, &second);
    assert_eq!(both.len(), 2);
    assert_eq!(merge(both.clone(), &second), both);
}

fn record(uid: &str, nics: &[&str]) -> Record {
    let ips = nics.iter().map(|nic| EndpointIp { interface: (*nic).to_owned(), ..EndpointIp::default() });
    let object = json!({"metadata": {"namespace": "n", "name": "p", "uid": uid}});
    let pod = Pod::try_from(serde_json::from_value::<PodObject>(object).unwrap()).unwrap();
    let workload = Some(Workload { kind: "Pod".into(), name: "p".into() });
    let owner = Owner { pod: pod.identity.clone(), workload, virtual_machine: None };
    Record::new(&pod, &owner, ips.collect(), Lifetime::Pod)
}

#[test]
fn a_pod_and_a_virtual_machine_of_one_name_do_not_share_an_endpoint() {
    let pods = record("u", &["eth0"]);
    let name = PodName::new("n", "virt-launcher-p-x").unwrap();
    let pod = PodIdentity { name, uid: "v".parse().unwrap() };
    let workload = Some(Workload { kind: "VirtualMachineInstance".into(), name: "p".into() });
    let owner = Owner { pod, workload, virtual_machine: Some("p".into()) };
    let machines = Record::kept::<Holding>(&owner, "", &[]);
    let mut upstreams = machines.object();
    upstreams.metadata.annotations = None;
    assert!(!is_of_machine(&pods.object()) && is_of_machine(&machines.object()));
    assert!(is_of_machine(&upstreams));
    assert!(machines.is_barred_by(&pods.object()));
    for found in [machines.object(), upstreams] {
        assert!(pods.is_barred_by(&found) && !machines.is_barred_by(&found));
    }
    assert!(!record("w", &["eth0"]).is_barred_by(&pods.object()), "of an earlier pod");
    // What a pod says of its owner does not make it a machine's.
    let forged = PodIdentity { name: PodName::new("n", "p").unwrap(), uid: "f".parse().unwrap() };
    let forged = Owner { pod: forged, virtual_machine: None, ..owner };
    assert!(Record::kept::<Holding>(&forged, "", &[]).is_barred_by(&machines.object()));
}

fn nics(record: &Record) -> Vec<&str> {
    record.status.current.ips.iter().map(|ip| ip.interface.as_str()).collect()
}

#[test]
fn a_write_that_failed_joins_what_came_meanwhile() {
    let joined = record("u", &["eth0", "net1"]).joined_by(record("u", &["net2"]));
    assert_eq!(nics(&joined), ["eth0", "net1", "net2"]);
}

#[test]
fn only_another_pod_replaces() {
    let joined = record("old", &["eth0"]).joined_by(record("new", &["net1"]));
    assert_eq!((joined.pod().uid.as_str(), nics(&joined)), ("new", vec!["net1"]));
}

#[test]
fn an_endpoint_is_restored_from_addresses() {
    let pool = Pool::parse(&PoolFields {
        name: "p",
        subnet: "10.6.0.0/16",
        gateway: Some("10.6.0.1"),
        routes: vec![("192.0.2.0/24", "10.6.0.2")],
        ..PoolFields::default()
    });
    let pool = Arc::new(pool.unwrap());
    let held = |nic: &str, address: &str| {
        let address: ipnet::IpNet = address.parse().unwrap();
        let spec = json!({
            "address": address, "pool": "p", "interface": nic, "podNamespace": "n", "podName": "p", "podUID": "u",
        });
        let name = object_name(address.addr());
        let object = json!({"metadata": {"name": name}, "spec": spec});
        Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
    };
    let ips = restore(
        [held("net1", "10.6.0.9/16"), held("net1", "10.6.0.10/16"), held("net1", "fd00::9/64")],
        &PodAnnotations::default(),
        |name| (name.as_str() == "p").then(|| Arc::clone(&pool)),
    );
    assert_eq!(ips.len(), 1);
    assert_eq!((ips[0].ipv4.as_deref(), ips[0].ipv6.as_deref()), (Some("10.6.0.9/16"), Some("fd00::9/64")));
    assert_eq!(ips[0].ipv4_gateway.as_deref(), Some("10.6.0.1"));
    assert!(lacks(&[], &ips) && !lacks(&ips, &ips));
}

#[test]
fn what_an_endpoint_says_is_not_written_again() {
    let mut found = record("u", &["eth0", "net1"]).object();
    found.metadata.resource_version = Some("7".into());
    let known = found.status.clone().unwrap();
    assert_eq!(record("u", &["net1"]).over(&found, &known), None);
    let more = record("u", &["net2"]).over(&found, &known).unwrap();
    assert_eq!(more.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(more.status.unwrap().current.ips.len(), 3);
}

#[test]
fn an_address_that_is_about_to_be_freed_leaves_the_endpoint_of_a_pod_that_goes_on() {
    let all = endpoint_ips(&build_response(
        vec![
            allocated("eth0", "10.6.0.9/16", None, DefaultRoute::Keep),
            allocated("net1", "10.7.0.9/16", Some("10.7.0.1"), DefaultRoute::Keep),
            allocated("net1", "fd00::9/64", None, DefaultRoute::Keep),
        ],
        &[],
    ));
    let freed = |nic: &str, address: &str| {
        let spec = json!({"address": address, "pool": "p", "interface": nic, "podNamespace": "n", "podName": "p", "podUID": "u"});
        let name = object_name(address.parse::<ipnet::IpNet>().unwrap().addr());
        let object = json!({"metadata": {"name": name}, "spec": spec});
        Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
    };
    let (v4, v6) = (freed("net1", "10.7.0.9/16"), freed("net1", "fd00::9/64"));
    let left = without(all.clone(), std::slice::from_ref(&v4));
    assert_eq!((left.len(), &left[1].ipv4, &left[1].ipv4_gateway), (2, &None, &None));
    assert_eq!(left[1].ipv6.as_deref(), Some("fd00::9/64"));
    assert_eq!(without(left, &[v6])[..], all[..1]);
    assert_eq!(without(all.clone(), &[freed("net1", "10.7.0.8/16")]), all, "it names another one");
}

#[test]
fn what_an_endpoint_names_and_its_pod_does_not_hold_is_lost() {
    let status: SpiderEndpointStatus = serde_json::from_value(json!({
        "current": {"uid": "u", "node": "n1", "ips": [
            {"interface": "net1", "ipv4": "10.6.0.2/16", "ipv4Pool": "p4", "ipv6": "fd00::2/64", "ipv6Pool": "p6"},
            {"interface": "net2", "ipv4": "not an address", "ipv4Pool": "p4"},
        ]},
        "ownerControllerType": "Deployment", "ownerControllerName": "web",
    }))
    .unwrap();
    let pod = PodIdentity { name: PodName::new("ns", "web-1").unwrap(), uid: "u".parse().unwrap() };
    let lost = lost_holdings(&pod.name, &status, &pod, Vec::<Holding>::new());
    let texts: Vec<_> =
        lost.iter().map(|lost| format!("{} {} {}", lost.address, lost.pool, lost.nic)).collect();
    assert_eq!(texts, ["10.6.0.2/16 p4 net1", "fd00::2/64 p6 net1"]);
    assert_eq!((&lost[0].owner.pod, lost[0].node.as_ref().unwrap().as_str()), (&pod, "n1"));
    assert_eq!(&*lost[0].owner.workload.as_ref().unwrap().kind, "Deployment");
    // The next ADD gave another one, and the endpoint is about to be written.
    let other = Holding { address: "10.6.0.9/16".parse().unwrap(), ..lost[0].clone() };
    assert_eq!(lost_holdings(&pod.name, &status, &pod, [&other]), [lost[1].clone()]);
    assert_eq!(lost_holdings(&pod.name, &status, &pod, &lost), []);
}

fn held(nic: &str, address: &str, uid: &str) -> Holding {
    let address: ipnet::IpNet = address.parse().unwrap();
    let spec = json!({
        "address": address, "pool": "p", "interface": nic, "podNamespace": "n", "podName": "p", "podUID": uid,
        "ownerKind": "StatefulSet", "ownerName": "web",
    });
    let object = json!({"metadata": {"name": object_name(address.addr())}, "spec": spec});
    Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
}

/// NIC and addresses of entries.
fn texts(ips: &[EndpointIp]) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    ips.iter().map(|ip| format!("{} {} {}", ip.interface, text(&ip.ipv4), text(&ip.ipv6))).collect()
}

/// The endpoint of a StatefulSet's pod with these addresses.
fn endpoint_of(uid: &str, node: &str, held: &[Holding]) -> SpiderEndpoint {
    let owner = Owner {
        pod: PodIdentity { uid: uid.parse().unwrap(), ..held[0].owner.pod.clone() },
        ..(*held[0].owner).clone()
    };
    Record::kept(&owner, node, held).object()
}

#[test]
fn what_a_pod_leaves_is_added_address_by_address_and_nobodys_node_holds_it() {
    let (v4, v6) = (held("eth0", "10.6.0.9/16", "u"), held("eth0", "fd00::9/64", "u"));
    let mut found = endpoint_of("u", "n1", std::slice::from_ref(&v4));
    found.status.as_mut().unwrap().current.ips[0].ipv4_gateway = Some("10.6.0.1".to_owned());
    assert_eq!(found.metadata.owner_references, None);
    // One family after the other: neither costs the other.
    let found = handed_on(&found, &v4.owner.pod, std::slice::from_ref(&v6)).unwrap();
    let status = found.status.as_ref().unwrap();
    assert_eq!(texts(&status.current.ips), ["eth0 10.6.0.9/16 fd00::9/64"]);
    assert_eq!(
        (status.current.ips[0].ipv4_gateway.as_deref(), status.current.node.as_str()),
        (Some("10.6.0.1"), "")
    );
    for kept in [&v4, &v6] {
        assert_eq!(handed_on(&found, &v4.owner.pod, std::slice::from_ref(kept)), None, "it says so already");
    }
    // That of a pod that has come since stays; one that no node holds is taken.
    let newer = endpoint_of("next", "n1", &[held("eth0", "10.6.0.10/16", "next")]);
    assert_eq!(handed_on(&newer, &v4.owner.pod, std::slice::from_ref(&v4)), None);
    let earlier = endpoint_of("earlier", "", &[held("net1", "10.6.0.11/16", "earlier")]);
    let taken =
        handed_on(&earlier, &v4.owner.pod, std::slice::from_ref(&v4)).unwrap().status.unwrap().current;
    assert_eq!(
        (taken.uid.as_str(), texts(&taken.ips)),
        ("u", vec!["net1 10.6.0.11/16 ".to_owned(), "eth0 10.6.0.9/16 ".to_owned()])
    );
}

#[test]
fn what_was_left_for_a_nic_waits_until_the_pod_adds_it() {
    let nics = [
        held("eth0", "10.6.0.9/16", "u"),
        held("net1", "10.6.0.10/16", "u"),
        held("net2", "10.6.0.11/16", "u"),
    ];
    let found = endpoint_of("u", "", &nics);
    let next: PodUid = "next".parse().unwrap();
    assert_eq!(texts(&waiting_for(&found, &next)).len(), 3);
    let of_next = |nics: &[&str]| {
        let mut record = record("next", nics);
        record.lifetime = Lifetime::Name;
        for ip in &mut record.status.current.ips {
            ip.ipv4 = Some("10.6.0.99/16".to_owned());
        }
        record
    };
    let first = of_next(&["eth0"]).after(&found);
    let own = |endpoint: &SpiderEndpoint| texts(&endpoint.status.as_ref().unwrap().current.ips);
    // The pod does not hold them yet: nobody must take them for lost addresses of its own.
    assert_eq!(own(&first), ["eth0 10.6.0.99/16 "]);
    assert_eq!(texts(&waiting_for(&first, &next)), ["net1 10.6.0.10/16 ", "net2 10.6.0.11/16 "]);
    let second = of_next(&["net1"]).over(&first, first.status.as_ref().unwrap()).unwrap();
    assert_eq!(
        (own(&second).len(), texts(&waiting_for(&second, &next))),
        (2, vec!["net2 10.6.0.11/16 ".to_owned()])
    );
    assert_eq!(of_next(&["net1"]).over(&second, second.status.as_ref().unwrap()), None);
    let third = of_next(&["net2"]).over(&second, second.status.as_ref().unwrap()).unwrap();
    assert_eq!((third.metadata.annotations.as_ref(), waiting_for(&third, &next)), (None, vec![]));
    // Somebody has written into the annotation.
    let mut broken = second.clone();
    broken.metadata.annotations.as_mut().unwrap().insert(KEPT_ADDRESSES.to_owned(), "[{".to_owned());
    assert_eq!(waiting_for(&broken, &next), vec![]);

    // Freed: it is not named any more, and what a newer pod holds stays.
    let left = unclaimed(second.clone(), &nics[2..]).unwrap();
    assert_eq!((own(&left).len(), waiting_for(&left, &next)), (2, vec![]));
    assert_eq!(unclaimed(found.clone(), &nics[1..]).map(|left| own(&left).len()), Some(1));
    assert_eq!(unclaimed(found, &nics), None);
    assert_eq!(unclaimed(second.clone(), &nics).map(|left| own(&left)), Some(own(&second)));
}

/// Its pods have other names each time.
#[test]
fn the_endpoint_of_a_virtual_machine_names_its_pod() {
    let holding = held("eth0", "10.6.0.9/16", "u");
    let owner = Owner { virtual_machine: Some("db".into()), ..(*holding.owner).clone() };
    let found = Record::kept(&owner, "n1", std::slice::from_ref(&holding)).object();
    let named = |endpoint: &SpiderEndpoint| pod_name(&endpoint.metadata).unwrap().to_string();
    assert_eq!((found.metadata.name.as_deref(), named(&found).as_str()), (Some("db"), "n/p"));
    let status = found.status.as_ref().unwrap();
    let lost = lost_holdings(&owner.endpoint_name(), status, &owner.pod, Vec::<Holding>::new());
    assert_eq!(lost[0].owner.virtual_machine.as_deref(), Some("db"));
    let handed_on = handed_on(&found, &owner.pod, std::slice::from_ref(&holding)).unwrap();
    assert_eq!(named(&handed_on), "n/p");
    let next = PodIdentity { name: PodName::new("n", "q").unwrap(), uid: "next".parse().unwrap() };
    let next = Owner { pod: next, ..owner };
    let after = Record::kept(&next, "n2", &[held("eth0", "10.6.0.9/16", "next")]).after(&handed_on);
    assert_eq!((named(&after).as_str(), after.metadata.name.as_deref()), ("n/q", Some("db")));
    // That of any other pod says nothing more.
    assert_eq!(record("u", &["eth0"]).object().metadata.annotations, None);
}
