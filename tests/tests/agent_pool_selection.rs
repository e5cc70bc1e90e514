//! Which pools serve a pod: the agent against a real API server. Upstream's cases are named by their numbers.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::cell::Cell;

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use support::{Bench, TestPod, failure};

const IPPOOL: &str = "ipam.spidernet.io/ippool";
const IPPOOLS: &str = "ipam.spidernet.io/ippools";
const NAMESPACE_IPV4: &str = "ipam.spidernet.io/default-ipv4-ippool";
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// The pools of the addresses that an ADD answers with, without the test's prefix.
async fn pools(bench: &Bench<'_>, agent: &StandaloneAgent, add: &Value) -> anyhow::Result<Vec<String>> {
    let answer = agent.ask(Method::POST, path::IP, add).await?.ok()?;
    let prefix = bench.name("");
    let ips = answer["ips"].as_array().unwrap().iter().filter(|ip| ip["nic"] == add["ifName"]);
    let pools = ips.map(|ip| ip["ipPool"].as_str().unwrap().strip_prefix(&prefix).unwrap().to_owned());
    Ok(pools.collect())
}

#[track_caller]
fn names(bench: &Bench<'_>, pools: &[&str]) -> String {
    json!({"ipv4": pools.iter().map(|pool| bench.name(pool)).collect::<Vec<_>>()}).to_string()
}

async fn check(bench: &Bench<'_>, agent: &StandaloneAgent, pod: &TestPod, nic: &str, expect: &[&str]) {
    assert_eq!(pools(bench, agent, &pod.add(nic, "c")).await.unwrap(), expect, "{}", pod.name);
}

/// L00001 to L00006, D00013 and D00016, and the reason in an Event of the pod.
#[tokio::test(flavor = "multi_thread")]
async fn selectors_choose_pods_by_the_labels_of_node_namespace_and_pod() {
    let bench = Bench::new("selectors").await;
    bench.labelled_node("n1", true, &json!({"zone": "a"}));
    bench.label_namespace("team=red");
    let selects = |field: &str, key: &str, value: &str| json!({field: {"matchLabels": {key: value}}});
    // By the order of the pools below.
    let subnet = |pool: &str| match pool {
        "far" => "10.80.1.0/24",
        "blue" => "10.80.3.0/24",
        _ => "10.80.4.0/24",
    };
    for (index, (pool, spec)) in [
        ("node", selects("nodeAffinity", "zone", "a")),
        ("far", selects("nodeAffinity", "zone", "b")),
        ("team", selects("namespaceAffinity", "team", "red")),
        ("blue", selects("namespaceAffinity", "team", "blue")),
        ("web", selects("podAffinity", "app", "web")),
        ("named", json!({"nodeName": [bench.name("n1")], "nodeAffinity": {"matchLabels": {"zone": "b"}}})),
        (
            "home",
            json!({"namespaceName": ["selectors"], "namespaceAffinity": {"matchLabels": {"team": "blue"}}}),
        ),
    ]
    .iter()
    .enumerate()
    {
        bench.pool(
            pool,
            &format!("10.80.{index}.0/24"),
            &[&format!("10.80.{index}.2-10.80.{index}.9")],
            spec,
        );
    }
    let agent = bench.agent("n1").await;
    for pool in ["node", "team", "named", "home"] {
        let pod = bench.pod(pool, "n1", &[(IPPOOL, &names(&bench, &[pool]))]);
        check(&bench, &agent, &pod, "net1", &[pool]).await;
    }
    let labels = json!({"app": "web"});
    let web = bench.labelled_pod("web", "n1", &labels, &[(IPPOOL, &names(&bench, &["web"]))]);
    check(&bench, &agent, &web, "net1", &["web"]).await;
    // A pool that is reserved for the pod comes before one that is not, whatever the order.
    let both = bench.labelled_pod("both", "n1", &labels, &[(IPPOOL, &names(&bench, &["node", "web"]))]);
    check(&bench, &agent, &both, "net1", &["web"]).await;
    for (pool, why) in [
        ("far", "unmatched Node affinity of IPPool selectors-far: its spec.nodeAffinity wants zone=b"),
        (
            "blue",
            "unmatched Namespace affinity of IPPool selectors-blue: its spec.namespaceAffinity wants team=blue",
        ),
        ("web", "unmatched Pod affinity of IPPool selectors-web: its spec.podAffinity wants app=web"),
    ] {
        let pod = bench.pod(&format!("not-{pool}"), "n1", &[(IPPOOL, &names(&bench, &[pool]))]);
        failure(&agent, &pod.add("net1", "c"), why).await;
        assert!(bench.held(&pod).is_empty());
        let says = |note: &String| note.starts_with("no IP address for NIC net1: ") && note.contains(why);
        bench.until("the Event", async || bench.events(&pod).iter().any(says)).await;
        // What is wrong next is said, too.
        bench.pool(pool, subnet(pool), &[], &json!({"disable": true}));
        bench
            .until("the next Event", async || {
                drop(agent.ask(Method::POST, path::IP, &pod.add("net1", "c")).await);
                bench.events(&pod).iter().any(|note| note.contains("disabled IPPool"))
            })
            .await;
    }
}

/// L00007: the labels count as they are when the pod comes.
#[tokio::test(flavor = "multi_thread")]
async fn each_zone_draws_from_its_own_pool_and_a_node_may_move() {
    let bench = Bench::new("zones").await;
    for (index, zone) in ["a", "b"].iter().enumerate() {
        bench.labelled_node(zone, true, &json!({"zone": zone}));
        let spec = json!({"nodeAffinity": {"matchLabels": {"zone": zone}}});
        bench.pool(
            zone,
            &format!("10.81.{index}.0/24"),
            &[&format!("10.81.{index}.2-10.81.{index}.9")],
            &spec,
        );
    }
    let annotation = names(&bench, &["a", "b"]);
    let agents = [("a", bench.agent("a").await), ("b", bench.agent("b").await)];
    for (zone, agent) in &agents {
        let pod = bench.pod(zone, zone, &[(IPPOOL, &annotation)]);
        check(&bench, agent, &pod, "eth0", &[zone]).await;
    }
    bench.labelled_node("a", true, &json!({"zone": "b"}));
    let ((_, agent), count) = (&agents[0], Cell::new(0));
    bench
        .until_ok("the node's new zone", async || {
            count.set(count.get() + 1);
            let pod = bench.pod(&format!("moved-{}", count.get()), "a", &[(IPPOOL, &annotation)]);
            let found = pools(&bench, agent, &pod.add("eth0", "c")).await?;
            ensure!(found == ["b"], "{found:?}");
            Ok(())
        })
        .await;
}

/// A00004, A00006 and A00007.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_chooses_pools_before_the_network_and_after_the_pod() {
    let bench = Bench::new("ns-pools").await;
    for (index, pool) in ["v4-1", "v4-2", "network", "pod"].iter().enumerate() {
        let size = if *pool == "v4-1" { 2 } else { 9 };
        let ips = format!("10.82.{index}.2-10.82.{index}.{size}");
        bench.pool(pool, &format!("10.82.{index}.0/24"), &[&ips], &json!({}));
    }
    bench.pool("v4-6", "fd82::/64", &["fd82::2-fd82::9"], &json!({}));
    bench.annotate_namespace(NAMESPACE_IPV4, &json!([bench.name("v4-*")]).to_string());
    let agent = bench.agent("n1").await;
    let by_network = |pod: &TestPod| {
        let mut add = pod.add("net1", "c");
        add["defaultIPv4IPPool"] = json!([bench.name("network")]);
        add
    };
    // By name, the first until it is full.
    for (pod, pool) in [("first", "v4-1"), ("second", "v4-2")] {
        let pod = bench.pod(pod, "n1", &[]);
        assert_eq!(pools(&bench, &agent, &by_network(&pod)).await.unwrap(), [pool]);
    }
    let own = bench.pod("own", "n1", &[(IPPOOL, &names(&bench, &["pod"]))]);
    assert_eq!(pools(&bench, &agent, &by_network(&own)).await.unwrap(), ["pod"]);
    bench.annotate_namespace(NAMESPACE_IPV4, "[]");
    let count = Cell::new(0);
    bench
        .until_ok("the network's pool", async || {
            count.set(count.get() + 1);
            let pod = bench.pod(&format!("network-{}", count.get()), "n1", &[]);
            let found = pools(&bench, &agent, &by_network(&pod)).await?;
            ensure!(found == ["network"], "{found:?}");
            Ok(())
        })
        .await;
}

/// L00009: each namespace has several pools, and each pool several namespaces.
#[tokio::test(flavor = "multi_thread")]
async fn namespaces_share_the_pools_that_select_their_label() {
    let (one, other) = (Bench::new("ns-one").await, Bench::new("ns-other").await);
    let apart = Bench::new("ns-apart").await;
    let shared = json!({"namespaceAffinity": {"matchLabels": {"team": "shared"}}});
    for (index, pool) in ["p1", "p2"].iter().enumerate() {
        let ips = format!("10.85.{index}.2-10.85.{index}.3");
        one.pool(pool, &format!("10.85.{index}.0/24"), &[&ips], &shared);
    }
    for namespace in [&one, &other] {
        namespace.label_namespace("team=shared");
    }
    for namespace in [&one, &other, &apart] {
        namespace.annotate_namespace(NAMESPACE_IPV4, &json!([one.name("p1"), one.name("p2")]).to_string());
    }
    let create = async |namespace: &Bench<'_>, name: &str| {
        let mut object = namespace.pod_object(name, "n1", &[]);
        object["spec"]["nodeName"] = json!(one.name("n1"));
        namespace.create_pods(vec![object]).await.remove(0)
    };
    let agent = one.agent("n1").await;
    for (namespace, name, pool) in
        [(&one, "a", "p1"), (&other, "a", "p1"), (&one, "b", "p2"), (&other, "b", "p2")]
    {
        let pod = create(namespace, name).await;
        check(&one, &agent, &pod, "eth0", &[pool]).await;
    }
    let pod = create(&apart, "a").await;
    failure(&agent, &pod.add("eth0", "c"), "unmatched Namespace affinity of IPPool ns-one-p1").await;
    assert!(apart.held(&pod).is_empty());
}

/// A00015: without names of NICs, by the order of Multus' annotation.
#[tokio::test(flavor = "multi_thread")]
async fn wildcards_and_unnamed_nics_in_ippools() {
    let bench = Bench::new("wild").await;
    for (index, pool) in ["a-1", "a-2", "b-1"].iter().enumerate() {
        bench.pool(pool, &format!("10.83.{index}.0/24"), &[&format!("10.83.{index}.2")], &json!({}));
    }
    let agent = bench.agent("n1").await;
    let (a, b) = (bench.name("a-[12]"), bench.name("?-1"));
    let ippools = json!([{"ipv4": [a]}, {"ipv4": [b, bench.name("b-1")]}]).to_string();
    let pod = bench.pod("p", "n1", &[(IPPOOLS, &ippools), (NETWORKS, "macvlan@data0")]);
    // Both are served at once: eth0 has the first of its pools or, where data0 was faster, the second.
    let first = pools(&bench, &agent, &pod.add("eth0", "c")).await.unwrap();
    let second = pools(&bench, &agent, &pod.add("data0", "c")).await.unwrap();
    assert!([["a-1"], ["a-2"]].iter().any(|pool| first == *pool), "{first:?}");
    assert!(second != first && [["a-1"], ["b-1"]].iter().any(|pool| second == *pool), "{second:?}");
    assert_eq!(bench.held(&pod).len(), 2);

    // A pool that comes later is matched at once.
    bench.pool("c-1", "10.83.9.0/24", &["10.83.9.2"], &json!({}));
    let later = bench.pod("later", "n1", &[(IPPOOL, &names(&bench, &["c-*"]))]);
    bench
        .until("the new pool", async || {
            pools(&bench, &agent, &later.add("eth0", "c")).await.is_ok_and(|found| found == ["c-1"])
        })
        .await;
}

/// D00009 and D00010.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_networks_serves_their_nics_alone() {
    let bench = Bench::new("multus-name").await;
    let spec = json!({"multusName": ["multus-name/macvlan", "shared"]});
    bench.pool("m", "10.84.0.0/24", &["10.84.0.2-10.84.0.9"], &spec);
    let agent = bench.agent("n1").await;
    let annotation = names(&bench, &["m"]);
    let pod = |name: &str, key: &str, networks: &str| {
        bench.pod(name, "n1", &[(IPPOOL, annotation.as_str()), (key, networks)])
    };
    let default_network = "v1.multus-cni.io/default-network";
    // Where a network has no namespace: the pod's for further NICs, the agent's for the first one and in the pool.
    for (name, key, networks, nic) in [
        ("further", NETWORKS, "other/x, macvlan", "net2"),
        ("named", NETWORKS, r#"[{"name":"shared","namespace":"kube-system","interface":"data0"}]"#, "data0"),
        ("first", default_network, "shared", "eth0"),
        ("first-own", default_network, "multus-name/macvlan", "eth0"),
    ] {
        check(&bench, &agent, &pod(name, key, networks), nic, &["m"]).await;
    }
    for (name, key, networks, nic, why) in [
        (
            "other",
            NETWORKS,
            "shared",
            "net1",
            "the spec.multusName [multus-name/macvlan shared] in the IPPool multus-name-m used by the Pod interface net1 is \
             not matched with the multusCR multus-name/shared specified by the Pod",
        ),
        ("unlisted", NETWORKS, "macvlan", "net2", "no matched multus object for NIC 'net2'"),
        ("unset", NETWORKS, "macvlan", "eth0", "cluster-network multus isn't set"),
    ] {
        failure(&agent, &pod(name, key, networks).add(nic, "c"), why).await;
    }
}
