//! The addresses of a StatefulSet's pods: they wait for the next pod of the name, on whatever node. Agents against a real
//! API server; upstream's cases are named by their numbers.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use support::{Bench, TestPod, addresses, failure, outage};

const IPPOOL: &str = "ipam.spidernet.io/ippool";
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

async fn add(agent: &StandaloneAgent, pod: &TestPod, nic: &str, container: &str) -> Vec<String> {
    let answer = agent.ask(Method::POST, path::IP, &pod.add(nic, container)).await.unwrap();
    let ips = answer.ok().unwrap();
    let ips = ips["ips"].as_array().unwrap().iter().filter(|ip| ip["nic"] == nic);
    ips.map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

async fn del(agent: &StandaloneAgent, pod: &TestPod, nic: &str, container: &str) {
    agent.ask(Method::DELETE, path::IP, &pod.del(nic, container)).await.unwrap().ok().unwrap();
}

/// State, node and pod UID of the object of an address.
fn object(bench: &Bench<'_>, address: &str) -> Option<Value> {
    let address = address.split_once('/').unwrap().0.parse().unwrap();
    Some(bench.address(&object_name(address))?["spec"].clone())
}

#[track_caller]
fn check_kept(bench: &Bench<'_>, address: &str) {
    let spec = object(bench, address).unwrap();
    assert_eq!(
        (&spec["state"], spec.get("node"), spec.get("containerID")),
        (&json!("kept"), None, None),
        "{spec}"
    );
}

/// L00008 and A00017: the node and the UID change, the address does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_pod_of_the_name_has_the_address_on_another_node_too() {
    let bench = Bench::new("sts").await;
    bench.pool("p4", "10.90.0.0/24", &["10.90.0.2-10.90.0.200"], &json!({"gateway": "10.90.0.1"}));
    bench.pool("p6", "fd90::/64", &["fd90::2-fd90::ff"], &json!({}));
    bench.stateful_set("web", 1);
    let annotation = json!({"ipv4": [bench.name("p4")], "ipv6": [bench.name("p6")]}).to_string();
    let annotations = [(IPPOOL, annotation.as_str())];
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let first = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    let had = add(&one, &first, "eth0", "c1").await;
    assert_eq!(had.len(), 2);
    let endpoint = bench.endpoint(&first).await;
    assert_eq!(endpoint["metadata"].get("ownerReferences"), None, "it stays for the next pod");
    let (mut pod, mut container) = (first, "c1".to_owned());
    for (agent, from, node) in [(&two, &one, "n2"), (&two, &two, "n2"), (&one, &two, "n1")] {
        bench.delete_pod(&pod);
        del(from, &pod, "eth0", &container).await;
        for address in &had {
            check_kept(&bench, address);
        }
        assert_eq!(bench.find_endpoint(&pod).unwrap()["status"]["current"]["node"], json!(""));
        pod = bench.pod_of_stateful_set("web", 0, node, &annotations);
        container = format!("{container}1");
        let has = add(agent, &pod, "eth0", &container).await;
        assert_eq!(has, had);
        // An ADD that is repeated changes nothing.
        assert_eq!(add(agent, &pod, "eth0", &container).await, had);
        for address in &had {
            let spec = object(&bench, address).unwrap();
            let node = json!(bench.name(node));
            assert_eq!(
                (&spec["state"], &spec["node"], &spec["podUID"]),
                (&json!("bound"), &node, &json!(pod.uid))
            );
        }
        assert_eq!(bench.held(&pod).len(), 2);
        bench
            .until("the endpoint is the new pod's", async || {
                let endpoint = bench.find_endpoint(&pod).unwrap();
                endpoint["status"]["current"]["uid"] == json!(pod.uid)
                    && endpoint["status"]["current"]["ips"][0]["ipv4Gateway"] == json!("10.90.0.1")
            })
            .await;
    }
    // An agent that starts again knows what it holds, and nothing of what waits.
    one.stop().unwrap();
    let one = bench.agent("n1").await;
    assert_eq!(add(&one, &pod, "eth0", &container).await, had);
}

/// What a StatefulSet does not count any more has no successor; other workloads of the same kind have none.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_next_pod_the_address_is_free() {
    let bench = Bench::new("sts-end").await;
    bench.pool("p", "10.91.0.0/24", &["10.91.0.2-10.91.0.9"], &json!({}));
    let annotation = bench.pool_annotation("p");
    let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let agent = bench.agent("n1").await;
    bench.stateful_set("web", 2);
    let scaled = bench.pod_of_stateful_set("web", 1, "n1", &annotations);
    let orphan = bench.pod_of_stateful_set("gone", 0, "n1", &annotations);
    bench.stateful_set("kruise", 1);
    let foreign =
        bench.pod_of("apps.kruise.io/v1beta1", "StatefulSet", "other", "other-0", "n1", &annotations);
    bench.stateful_set("ready", 1);
    let evicted = bench.pod_of_stateful_set("ready", 0, "n1", &annotations);
    for pod in [&scaled, &orphan, &foreign, &evicted] {
        add(&agent, pod, "eth0", "c").await;
    }
    bench.stateful_set("web", 1);
    for pod in [&scaled, &orphan, &foreign] {
        bench.delete_pod(pod);
        del(&agent, pod, "eth0", "c").await;
        assert!(bench.held(pod).is_empty(), "{}", pod.name);
        assert_eq!(bench.find_endpoint(pod), None, "{}", pod.name);
    }
    // Its object is there yet.
    bench.end_pod(&evicted);
    del(&agent, &evicted, "eth0", "c").await;
    assert_eq!(bench.held(&evicted)[0]["spec"]["state"], json!("kept"));
}

/// Waits until the endpoint is the pod's, with exactly these NICs, addresses and pools.
async fn until_recorded(bench: &Bench<'_>, pod: &TestPod, expect: &[(&str, &str, &str)]) {
    let expect: BTreeSet<_> = expect
        .iter()
        .map(|(nic, address, pool)| [*nic, *address, &bench.name(pool)].map(str::to_owned))
        .collect();
    bench
        .until_ok("the endpoint is the pod's", async || {
            let current = bench.find_endpoint(pod).unwrap()["status"]["current"].clone();
            let found: BTreeSet<_> = current["ips"]
                .as_array()
                .unwrap()
                .iter()
                .map(|ip| {
                    ["interface", "ipv4", "ipv4Pool"]
                        .map(|field| ip[field].as_str().unwrap_or_default().to_owned())
                })
                .collect();
            ensure!(current["uid"] == json!(pod.uid) && found == expect, "{current}");
            Ok(())
        })
        .await;
}

/// L00008 and A00009: the pods of a StatefulSet whose template names another pool have an address of that, and the old one is free.
#[tokio::test(flavor = "multi_thread")]
async fn another_pool_gives_another_address_and_frees_the_old_one() {
    let bench = Bench::new("sts-pool").await;
    let of_web = json!({"podAffinity": {"matchLabels": {"app": "web"}}});
    bench.pool("old", "10.92.0.0/24", &["10.92.0.2-10.92.0.9"], &of_web);
    bench.pool("new", "10.92.1.0/24", &["10.92.1.2-10.92.1.9"], &of_web);
    bench.stateful_set("web", 1);
    let agent = bench.agent("n1").await;
    let create = |pool: &str| {
        let ippool = json!({"ipv4": [bench.name(pool)]}).to_string();
        bench.pod_of_stateful_set("web", 0, "n1", &[(IPPOOL, &ippool)])
    };
    let first = create("old");
    let had = add(&agent, &first, "net1", "c1").await;
    until_recorded(&bench, &first, &[("net1", &had[0], "old")]).await;
    bench.delete_pod(&first);
    del(&agent, &first, "net1", "c1").await;
    let second = create("old");
    assert_eq!(add(&agent, &second, "net1", "c2").await, had);
    until_recorded(&bench, &second, &[("net1", &had[0], "old")]).await;
    bench.delete_pod(&second);
    del(&agent, &second, "net1", "c2").await;
    let third = create("new");
    let has = add(&agent, &third, "net1", "c3").await;
    assert!(has[0].starts_with("10.92.1."), "{has:?}");
    bench.until("the old address is free", async || object(&bench, &had[0]).is_none()).await;
    assert_eq!(bench.held(&third).len(), 1);
    until_recorded(&bench, &third, &[("net1", &has[0], "new")]).await;
}

/// A00010, A00017 and A00018: pools of several NICs, by their names and by their order.
#[tokio::test(flavor = "multi_thread")]
async fn other_pools_of_several_nics_give_other_addresses_and_free_the_old_ones() {
    let bench = Bench::new("sts-pools").await;
    for (index, pool) in ["eth0-old", "net1-old", "eth0-new", "net1-new"].iter().enumerate() {
        let ips = format!("10.100.{index}.2-10.100.{index}.9");
        bench.pool(pool, &format!("10.100.{index}.0/24"), &[&ips], &json!({}));
    }
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    for (set, is_named) in [("named", true), ("ordered", false)] {
        bench.stateful_set(set, 1);
        let create = |age: &str, node: &str| {
            let entries = ["eth0", "net1"].map(|nic| {
                let mut entry = json!({"ipv4": [bench.name(&format!("{nic}-{age}"))]});
                if is_named {
                    entry["interface"] = json!(nic);
                }
                entry
            });
            let ippools = json!(entries).to_string();
            let annotations = [("ipam.spidernet.io/ippools", ippools.as_str()), (NETWORKS, "macvlan")];
            bench.pod_of_stateful_set(set, 0, node, &annotations)
        };
        let add_all = async |agent: &StandaloneAgent, pod: &TestPod| {
            [add(agent, pod, "eth0", &pod.uid).await, add(agent, pod, "net1", &pod.uid).await].concat()
        };
        let end = async |agent: &StandaloneAgent, pod: &TestPod| {
            bench.delete_pod(pod);
            for nic in ["net1", "eth0"] {
                del(agent, pod, nic, &pod.uid).await;
            }
        };
        let first = create("old", "n1");
        let had = add_all(&one, &first).await;
        assert!(had[0].starts_with("10.100.0.") && had[1].starts_with("10.100.1."), "{set}: {had:?}");
        until_recorded(&bench, &first, &[("eth0", &had[0], "eth0-old"), ("net1", &had[1], "net1-old")]).await;
        end(&one, &first).await;
        let second = create("old", "n2");
        assert_eq!(add_all(&two, &second).await, had, "{set}");
        end(&two, &second).await;
        let third = create("new", "n1");
        let has = add_all(&one, &third).await;
        assert!(has[0].starts_with("10.100.2.") && has[1].starts_with("10.100.3."), "{set}: {has:?}");
        bench
            .until("the old addresses are free", async || {
                had.iter().all(|address| object(&bench, address).is_none())
            })
            .await;
        assert_eq!(bench.held(&third).len(), 2, "{set}");
        until_recorded(&bench, &third, &[("eth0", &has[0], "eth0-new"), ("net1", &has[1], "net1-new")]).await;
        bench.delete_stateful_set(set);
        end(&one, &third).await;
    }
}

/// The ADDs of a pod's NICs come one after the other, and its endpoint is written in between.
#[tokio::test(flavor = "multi_thread")]
async fn each_nic_has_its_own_address_again() {
    let bench = Bench::new("sts-nics").await;
    bench.pool("p", "10.93.0.0/24", &["10.93.0.2-10.93.0.200"], &json!({}));
    bench.stateful_set("web", 1);
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let annotation = bench.pool_annotation("p");
    let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let first = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    let mut had = Vec::new();
    for nic in ["eth0", "net1", "net2"] {
        had.push(add(&one, &first, nic, "c1").await);
    }
    bench.delete_pod(&first);
    // As runtimes do it: the last NIC first.
    for nic in ["net2", "net1", "eth0"] {
        del(&one, &first, nic, "c1").await;
    }
    let second = bench.pod_of_stateful_set("web", 0, "n2", &annotations);
    for (nic, had) in ["eth0", "net1"].iter().zip(&had) {
        assert_eq!(add(&two, &second, nic, "c2").await, *had, "{nic}");
        bench
            .until("the endpoint", async || {
                bench.find_endpoint(&second).unwrap()["status"]["current"]["uid"] == json!(second.uid)
            })
            .await;
    }
    check_kept(&bench, &had[2][0]);
    assert_eq!(add(&two, &second, "net2", "c2").await, had[2]);
    assert_eq!(bench.held(&second).len(), 3);
}

/// The old pod may still answer on the wire: the new one waits for its DEL, and has no other address meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_earlier_pod_still_holds_is_waited_for() {
    let bench = Bench::new("sts-held").await;
    bench.pool("p", "10.94.0.0/24", &["10.94.0.2-10.94.0.200"], &json!({}));
    bench.stateful_set("web", 1);
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let annotation = bench.pool_annotation("p");
    let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let first = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    let had = add(&one, &first, "eth0", "c1").await;
    bench.endpoint(&first).await;
    bench.run_pod(&first);
    bench.force_delete_pod(&first);
    let second = bench.pod_of_stateful_set("web", 0, "n2", &annotations);
    let begun = Instant::now();
    outage(&two, &second.add("eth0", "c2"), "its earlier Pod of the same name").await;
    assert!(begun.elapsed() > Duration::from_secs(5), "it has waited");
    assert!(bench.held(&second).is_empty());
    let request = second.add("eth0", "c3");
    let waiting = two.ask(Method::POST, path::IP, &request);
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        del(&one, &first, "eth0", "c1").await;
    };
    let (answer, ()) = tokio::join!(waiting, late);
    assert_eq!(addresses(&answer.unwrap().ok().unwrap()).into_iter().collect::<Vec<_>>(), had);

    // The same on one node, where the DEL of the one waits for the lock of the other's ADD.
    bench.run_pod(&second);
    bench.force_delete_pod(&second);
    let third = bench.pod_of_stateful_set("web", 0, "n2", &annotations);
    let request = third.add("eth0", "c4");
    let waiting = two.ask(Method::POST, path::IP, &request);
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        del(&two, &second, "eth0", "c3").await;
        begun.elapsed()
    };
    let (answer, took) = tokio::join!(waiting, late);
    assert_eq!(addresses(&answer.unwrap().ok().unwrap()).into_iter().collect::<Vec<_>>(), had);
    assert!(took < Duration::from_secs(5), "a DEL is not behind the ADD that waits for it: {took:?}");
}

/// An operator gives up an address by deleting its object.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_somebody_else_has_by_now_is_not_taken_from_it() {
    let bench = Bench::new("sts-lost").await;
    bench.pool("p", "10.95.0.0/24", &["10.95.0.2-10.95.0.3"], &json!({}));
    bench.stateful_set("web", 1);
    let agent = bench.agent("n1").await;
    let annotation = bench.pool_annotation("p");
    let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let first = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    let had = add(&agent, &first, "eth0", "c1").await;
    bench.delete_pod(&first);
    del(&agent, &first, "eth0", "c1").await;
    // Kept, it is in use.
    let fills = bench.pod_with_pool("fills", "n1", "p");
    add(&agent, &fills, "eth0", "c").await;
    let more = bench.pod_with_pool("more", "n1", "p");
    failure(&agent, &more.add("eth0", "c"), "all IP addresses used out").await;
    bench.delete_address(had[0].split('/').next().unwrap());
    bench
        .until("the address is another pod's", async || {
            agent.ask(Method::POST, path::IP, &more.add("eth0", "c")).await.unwrap().ok().is_ok()
        })
        .await;
    let second = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    failure(&agent, &second.add("eth0", "c2"), "all IP addresses used out").await;
    assert_eq!(object(&bench, &had[0]).unwrap()["podUID"], json!(more.uid));
}
