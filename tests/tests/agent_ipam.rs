//! The agent against a real API server: what it allocates, keeps and frees, alone and among others.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_core::ip::{Family, IpSet};
use spiderpool_core::ipam::usage;
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::fault_proxy::{Fault, FaultProxy};
use spiderpool_tests::poll;
use support::{Bench, LIMIT, TestPod, addresses, failure, outage};

#[tokio::test(flavor = "multi_thread")]
async fn both_families_of_several_nics_come_with_gateway_routes_and_endpoint() {
    let bench = Bench::new("several").await;
    bench.pool("a4", "10.10.0.0/24", &["10.10.0.2-10.10.0.9"], &json!({"gateway": "10.10.0.1"}));
    bench.pool(
        "a6",
        "fd10::/64",
        &["fd10::2-fd10::9"],
        &json!({"routes": [{"dst": "fd99::/64", "gw": "fd10::f"}]}),
    );
    bench.pool("b4", "10.11.0.0/24", &["10.11.0.2-10.11.0.9"], &json!({"gateway": "10.11.0.1"}));
    let pools = json!([
        {"interface": "eth0", "ipv4": [bench.name("a4")], "ipv6": [bench.name("a6")]},
        {"interface": "net1", "ipv4": [bench.name("b4")], "cleangateway": true},
    ]);
    let pod = bench.pod("p", "n1", &[("ipam.spidernet.io/ippools", &pools.to_string())]);
    let agent = bench.agent("n1").await;

    let first = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(first["ips"].as_array().unwrap().len(), 3);
    let routes: BTreeSet<String> =
        first["routes"].as_array().unwrap().iter().map(|r| format!("{} {}", r["ifName"], r["dst"])).collect();
    assert_eq!(routes, [r#""eth0" "0.0.0.0/0""#.to_owned(), r#""eth0" "fd99::/64""#.to_owned()].into());

    // The second NIC's request, and the first one again, find what is there.
    for (nic, container) in [("net1", "c1"), ("eth0", "c1")] {
        let again = agent.ask(Method::POST, path::IP, &pod.add(nic, container)).await.unwrap().ok().unwrap();
        assert_eq!(addresses(&again), addresses(&first));
    }
    assert_eq!(bench.held(&pod).len(), 3);

    let endpoint = bench.endpoint(&pod).await;
    let ips = endpoint["status"]["current"]["ips"].as_array().unwrap();
    assert_eq!(ips.len(), 2);
    assert_eq!(endpoint["status"]["current"]["uid"], json!(pod.uid));
    assert_eq!(endpoint["metadata"]["finalizers"], json!(["spiderpool.spidernet.io"]));
    let query = format!("{}?podNamespace={}&podName={}", path::WORKLOAD_ENDPOINT, pod.namespace, pod.name);
    let recorded = agent.ask(Method::GET, &query, &Value::Null).await.unwrap().ok().unwrap();
    assert_eq!(recorded["interfaces"][0]["interface"], json!("eth0"));

    let metrics = agent.metrics().await.unwrap();
    for line in
        ["spiderpool_ipam_allocation_counts_total 3", "spiderpool_ipam_allocation_failure_counts_total 0"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }

    // Alive: kept. Dead: freed, endpoint included.
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(bench.held(&pod).len(), 3);
    bench.delete_pod(&pod);
    for (nic, left) in [("eth0", 1), ("eth0", 1), ("net1", 0)] {
        agent.ask(Method::DELETE, path::IP, &pod.del(nic, "c1")).await.unwrap().ok().unwrap();
        assert_eq!(bench.held(&pod).len(), left, "{nic}");
    }
    assert_eq!(bench.find_endpoint(&pod), None);
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nics_on_one_pool_get_two_addresses() {
    let bench = Bench::new("one-pool").await;
    bench.pool("p", "10.12.0.0/24", &["10.12.0.2-10.12.0.3"], &json!({}));
    let pools = json!([{"interface": "eth0", "ipv4": [bench.name("p")]}, {"interface": "net1", "ipv4": [bench.name("p")]}]);
    let pod = bench.pod("p", "n1", &[("ipam.spidernet.io/ippools", &pools.to_string())]);
    let agent = bench.agent("n1").await;
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&answer), ["10.12.0.2/24".to_owned(), "10.12.0.3/24".to_owned()].into());
}

/// The CRD's schema keeps such pools out, but an older one may have let it in.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_cannot_be_decoded_fails_only_the_pods_that_name_it() {
    let bench = Bench::new("undecodable").await;
    bench.pool("good", "10.71.0.0/24", &["10.71.0.2-10.71.0.9"], &json!({}));
    bench.pool("bad", "10.72.0.0/24", &["10.72.0.2-10.72.0.9"], &json!({}));
    let fault = Fault::UndecodablePool("undecodable-bad");
    let proxy = FaultProxy::start(&bench.identity("n1"), fault, 0).await.unwrap();
    let kubeconfig = proxy.kubeconfig(&bench.folder("n1")).unwrap();
    let agent = bench.agent_by("n1", kubeconfig).await;
    let (good, bad) = (bench.pod_with_pool("good", "n1", "good"), bench.pod_with_pool("bad", "n1", "bad"));
    agent.ask(Method::POST, path::IP, &good.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let part = "IPPool undecodable-bad is invalid: spec: does not fit the CRD of SpiderIPPool";
    failure(&agent, &bad.add("eth0", "c1"), part).await;
    assert!(bench.held(&bad).is_empty());
    bench
        .until("the start is over", async || agent.probe("/v1/runtime/startup").await.unwrap().0 == 200)
        .await;
    // A later generation is read anew.
    proxy.restore();
    bench.pool("bad", "10.72.0.0/24", &["10.72.0.2-10.72.0.8"], &json!({}));
    bench
        .until("the pool is served", async || {
            agent.ask(Method::POST, path::IP, &bad.add("eth0", "c1")).await.unwrap().ok().is_ok()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_del_of_an_old_sandbox_frees_nothing_of_the_new_one() {
    let bench = Bench::new("late-del").await;
    bench.pool("p", "10.13.0.0/24", &["10.13.0.2-10.13.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let first = agent.ask(Method::POST, path::IP, &pod.add("eth0", "old")).await.unwrap().ok().unwrap();
    let second = agent.ask(Method::POST, path::IP, &pod.add("eth0", "new")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&first), addresses(&second));
    assert_eq!(bench.held(&pod)[0]["spec"]["containerID"], json!("new"));
    bench.delete_pod(&pod);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "old")).await.unwrap().ok().unwrap();
    assert_eq!(bench.held(&pod).len(), 1);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "new")).await.unwrap().ok().unwrap();
    assert_eq!(bench.held(&pod).len(), 0);
}

/// An object without a network and one with an empty one read the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_an_empty_network_is_one_without() {
    let bench = Bench::new("no-network").await;
    bench.pool("p", "10.127.0.0/24", &["10.127.0.2-10.127.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    for container in ["c1", "c2"] {
        let mut add = pod.add("eth0", container);
        add["network"] = json!("");
        agent.ask(Method::POST, path::IP, &add).await.unwrap().ok().unwrap();
    }
    assert_eq!(bench.held(&pod).len(), 1);
}

/// An object that cannot be parsed any more: nobody knows whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_whose_object_became_unreadable_is_not_called_freed() {
    let bench = Bench::new("unreadable").await;
    bench.pool("p", "10.128.0.0/24", &["10.128.0.2-10.128.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let ip = addresses(&answer).first().unwrap().split('/').next().unwrap().to_owned();
    let plane = ControlPlane::shared();
    plane.kubectl(&["patch", "sip", &ip, "--type=merge", "-p", r#"{"spec":{"node":"Upper"}}"#]).unwrap();
    bench.delete_pod(&pod);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    let log = agent.log().unwrap();
    let of_address = |part: &str| log.lines().any(|line| line.contains(part) && line.contains(&ip));
    assert!(of_address("cannot be parsed any more") && !of_address("\"freed\""), "{log}");
    assert!(plane.kubectl(&["get", "sip", &ip]).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_frees_what_the_runtime_does_not_list_and_nothing_of_a_living_pod() {
    let bench = Bench::new("gc").await;
    bench.pool("p", "10.48.0.0/24", &["10.48.0.2-10.48.0.9"], &json!({}));
    let [alive, gone, listed] = ["alive", "gone", "listed"].map(|name| bench.pod_with_pool(name, "n1", "p"));
    let elsewhere = bench.pod_with_pool("elsewhere", "n1", "p");
    let agent = bench.agent("n1").await;
    for (pod, network) in [(&alive, "blue"), (&gone, "blue"), (&listed, "blue"), (&elsewhere, "red")] {
        let mut add = pod.add("net1", &pod.name);
        add["network"] = json!(network);
        agent.ask(Method::POST, path::IP, &add).await.unwrap().ok().unwrap();
    }
    // They may run although the API server has forgotten them: only the runtime knows better.
    for pod in [&gone, &listed, &elsewhere] {
        bench.force_delete_pod(pod);
    }
    let refused = agent.ask(Method::POST, path::IPAM_GC, &json!({"network": "blue"})).await.unwrap();
    let message = refused.body["message"].as_str().unwrap();
    assert_eq!((refused.status.as_u16(), message), (422, "gc-args.validAttachments in body is required"));
    let valid = json!([{"containerID": listed.name, "ifName": "net1"}]);
    let gc = json!({"network": "blue", "validAttachments": valid});
    agent.ask(Method::POST, path::IPAM_GC, &gc).await.unwrap().ok().unwrap();
    let held = [&alive, &gone, &listed, &elsewhere].map(|pod| bench.held(pod).len());
    assert_eq!(held, [1, 0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requested_address_is_given_or_refused_with_a_reason_never_replaced() {
    let bench = Bench::new("requested").await;
    bench.pool("p", "10.49.0.0/24", &["10.49.0.2-10.49.0.9"], &json!({}));
    let [first, second] = ["first", "second"].map(|name| bench.pod_with_pool(name, "n1", "p"));
    let agent = bench.agent("n1").await;
    let add = |pod: &TestPod, ips: Value| {
        let mut add = pod.add("net1", &pod.name);
        add["requestedIPs"] = ips;
        add
    };
    let got = agent.ask(Method::POST, path::IP, &add(&first, json!(["10.49.0.7"]))).await.unwrap();
    assert_eq!(addresses(&got.ok().unwrap()), ["10.49.0.7/24".to_owned()].into());
    for (pod, ips, part) in [
        (&second, json!(["10.49.0.7"]), "10.49.0.7 cannot be given to NIC net1: it is in use or reserved"),
        (&second, json!(["10.49.0.77"]), "in none of the IPPools"),
        (&second, json!(["fd00::7"]), "no IPv6 IPPool is named"),
        (&second, json!(["10.49.0.4", "10.49.0.5"]), "is asked for too"),
        (&first, json!(["10.49.0.8"]), "the Pod holds 10.49.0.7 on this NIC already"),
    ] {
        failure(&agent, &add(pod, ips), part).await;
    }
    assert_eq!((bench.held(&first).len(), bench.held(&second).len()), (1, 0));
    let got = agent.ask(Method::POST, path::IP, &second.add("net1", "c")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&got).len(), 1, "the pool is not called exhausted for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_annotation_key_is_named_in_an_event_on_the_pod() {
    let bench = Bench::new("misspelt").await;
    bench.pool("p", "10.50.0.0/24", &["10.50.0.2-10.50.0.9"], &json!({}));
    let mut annotations = bench.pool_annotation("p");
    annotations.push(("ipam.spidernet.io/ipool".to_owned(), "{}".to_owned()));
    let annotations: Vec<_> = annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let pod = bench.pod("p", "n1", &annotations);
    let agent = bench.agent("n1").await;
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    bench
        .until("the Event", async || {
            bench.events(&pod).iter().any(|note| note.contains("'ipam.spidernet.io/ipool'"))
        })
        .await;
}

/// Upstream's case A00016.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pod_keeps_what_it_got_and_takes_no_more() {
    let bench = Bench::new("keeps").await;
    bench.pool("eth", "10.14.0.0/24", &["10.14.0.2"], &json!({}));
    bench.pool("net", "10.15.0.0/24", &["10.15.0.2-10.15.0.9"], &json!({}));
    let pools = json!([{"interface": "eth0", "ipv4": [bench.name("eth")]}, {"interface": "net1", "ipv4": [bench.name("net")]}]);
    let annotation = [("ipam.spidernet.io/ippools", pools.to_string())];
    let annotation = [(annotation[0].0, annotation[0].1.as_str())];
    let (lucky, other) = (bench.pod("lucky", "n1", &annotation), bench.pod("other", "n1", &annotation));
    let agent = bench.agent("n1").await;
    agent.ask(Method::POST, path::IP, &lucky.add("eth0", "c1")).await.unwrap().ok().unwrap();
    for attempt in ["c2", "c3", "c4"] {
        let answer = agent.ask(Method::POST, path::IP, &other.add("eth0", attempt)).await.unwrap();
        assert!(answer.failure().contains("all IP addresses used out"), "{answer:?}");
        assert_eq!(bench.held(&other).len(), 1);
    }
    let kept = bench.held(&other)[0]["spec"]["address"].clone();
    bench.delete_pod(&lucky);
    for nic in ["eth0", "net1"] {
        agent.ask(Method::DELETE, path::IP, &lucky.del(nic, "c1")).await.unwrap().ok().unwrap();
    }
    let answer = agent.ask(Method::POST, path::IP, &other.add("eth0", "c5")).await.unwrap().ok().unwrap();
    assert!(addresses(&answer).contains(kept.as_str().unwrap()), "{kept} is not in {answer}");
    assert_eq!(bench.held(&other).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_and_excluded_addresses_are_never_given() {
    let bench = Bench::new("reserved").await;
    bench.pool("p", "10.16.0.0/24", &["10.16.0.2-10.16.0.5"], &json!({"excludeIPs": ["10.16.0.3"]}));
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderReservedIP",
        "metadata": {"name": bench.name("r")}, "spec": {"ips": ["10.16.0.4-10.16.0.5"]},
    }));
    let agent = bench.agent("n1").await;
    let (one, two) = (bench.pod_with_pool("one", "n1", "p"), bench.pod_with_pool("two", "n1", "p"));
    let answer = agent.ask(Method::POST, path::IP, &one.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&answer), ["10.16.0.2/24".to_owned()].into());
    let refused = agent.ask(Method::POST, path::IP, &two.add("eth0", "c2")).await.unwrap();
    assert!(refused.failure().contains("3 usable, 2 of them reserved"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tight_pool_serves_four_agents_to_the_last_address() {
    const PODS: usize = 200;
    let bench = Bench::new("tight").await;
    bench.pool("p", "10.20.0.0/22", &["10.20.0.1-10.20.0.200"], &json!({}));
    let nodes = ["t1", "t2", "t3", "t4"];
    let pods: Vec<_> = (0..=PODS)
        .map(|i| bench.pod_object(&format!("p{i}"), nodes[i % nodes.len()], &bench.pool_annotation("p")))
        .collect();
    let pods = bench.create_pods(pods).await;
    let agents = join_all(nodes.iter().map(|node| bench.agent(node))).await;
    let adds = pods[..PODS].iter().enumerate().map(|(i, pod)| {
        let agent = &agents[i % nodes.len()];
        async move {
            agent.ask(Method::POST, path::IP, &pod.add("eth0", &format!("c{i}"))).await.unwrap().ok().unwrap()
        }
    });
    let given: Vec<Value> = join_all(adds).await;
    let distinct: BTreeSet<String> = given.iter().flat_map(addresses).collect();
    assert_eq!(distinct.len(), PODS, "an address was given twice");

    let last = &pods[PODS];
    let refused = agents[0].ask(Method::POST, path::IP, &last.add("eth0", "last")).await.unwrap();
    assert_eq!(refused.status, 500);
    assert!(refused.failure().contains("all IP addresses used out"), "{refused:?}");
    assert!(refused.failure().contains(&bench.name("p")), "{refused:?}");

    // Another agent frees one; the pool is not believed to be exhausted for long.
    bench.delete_pod(&pods[1]);
    agents[1].ask(Method::DELETE, path::IP, &pods[1].del("eth0", "c1")).await.unwrap().ok().unwrap();
    poll::until_async("the freed address is found", LIMIT, || async {
        agents[0].ask(Method::POST, path::IP, &last.add("eth0", "last")).await?.ok()
    })
    .await
    .unwrap();
    for pod in &pods[..4] {
        if pod.name != pods[1].name {
            bench.endpoint(pod).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_the_answer_says_so_and_comes_soon() {
    let mut plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "down").await;
    bench.pool("p", "10.30.0.0/24", &["10.30.0.2-10.30.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let first = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let parts = bench.into_parts();
    assert_eq!(agent.probe("/v1/runtime/startup").await.unwrap().0, 200);

    plane.kill_api_server().unwrap();
    outage(&agent, &pod.add("eth0", "c2"), "API server").await;
    poll::until_async("the readiness probe tells", LIMIT, || async {
        let (status, missing) = agent.probe("/v1/runtime/readiness").await?;
        ensure!(
            status == 500 && missing.contains("API server: API server unreachable"),
            "{status} {missing}"
        );
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(agent.probe("/v1/runtime/liveness").await.unwrap().0, 200);
    assert_eq!(agent.probe("/readyz").await.unwrap().0, 500);
    assert_eq!(agent.probe("/healthz").await.unwrap().0, 200);
    let metrics = agent.metrics().await.unwrap();
    for line in ["spiderpool_ready 0", r#"spiderpool_condition{condition="API server"} 0"#] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let unanswered =
        |line: &str| line.starts_with("spiderpool_api_requests_total{") && line.contains(r#"code="none""#);
    assert!(metrics.lines().any(unanswered), "{metrics}");
    plane.start_api_server().unwrap();
    let bench = Bench::from_parts(&plane, parts);
    let again = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&again), addresses(&first));
    assert_eq!(bench.held(&pod).len(), 1);
    agent.stop().unwrap();
    let parts = bench.into_parts();

    // An agent that starts meanwhile answers, too.
    plane.kill_api_server().unwrap();
    let bench = Bench::from_parts(&plane, parts);
    let agent = bench.agent("n1").await;
    outage(&agent, &pod.add("eth0", "c2"), "Still missing: addresses of the node: not yet").await;
    // It cannot know whether there is a coordinator.
    let asked = json!({"podNamespace": "down", "podName": "p"});
    let answer = agent.ask(Method::GET, path::COORDINATOR_CONFIG, &asked).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.failure().contains("watch of coordinators"), "{answer:?}");
}

/// The kubelet tells the runtime the hash of the manifest; the API server has only a mirror with a UID of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_is_known_by_its_manifest() {
    let bench = Bench::new("static").await;
    bench.pool("p", "10.17.0.0/24", &["10.17.0.2-10.17.0.9"], &json!({}));
    let mut annotations = bench.pool_annotation("p");
    let hash = format!("{:032x}", 0x5eed);
    annotations.push(("kubernetes.io/config.mirror".to_owned(), hash.clone()));
    let mirror = bench.create_pods(vec![bench.pod_object("web-n1", "n1", &annotations)]).await.remove(0);
    let pod = TestPod { uid: hash, ..mirror.clone() };
    let agent = bench.agent("n1").await;
    let first = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(bench.held(&pod).len(), 1);
    let endpoint = bench.endpoint(&pod).await;
    assert_eq!(endpoint["status"]["current"]["uid"], json!(pod.uid));
    assert_eq!(endpoint["metadata"]["ownerReferences"][0]["uid"], json!(mirror.uid), "else it is collected");

    // It lives: a new sandbox keeps the address.
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    let second = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&first), addresses(&second));
    bench.delete_pod(&mirror);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c2")).await.unwrap().ok().unwrap();
    assert!(bench.held(&pod).is_empty());
}

/// An address whose object is labelled with another pool is taken all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_pools_list_does_not_show_ends_the_search() {
    let bench = Bench::new("hidden").await;
    bench.pool("p", "10.18.0.0/24", &["10.18.0.2"], &json!({}));
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress",
        "metadata": {"name": "10.18.0.2", "labels": {"ipam.spidernet.io/ippool": "another"}},
        "spec": {
            "address": "10.18.0.2/24", "pool": "another", "node": "another", "interface": "eth0",
            "podNamespace": "n", "podName": "p", "podUID": "u",
        },
    }));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let add = pod.add("eth0", "c1");
    let refused =
        tokio::time::timeout(LIMIT, agent.ask(Method::POST, path::IP, &add)).await.unwrap().unwrap();
    assert!(refused.failure().contains("all IP addresses used out"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_grows_is_not_exhausted_any_more() {
    let bench = Bench::new("grows").await;
    bench.pool("p", "10.19.0.0/24", &["10.19.0.2"], &json!({}));
    let (one, two) = (bench.pod_with_pool("one", "n1", "p"), bench.pod_with_pool("two", "n1", "p"));
    let agent = bench.agent("n1").await;
    agent.ask(Method::POST, path::IP, &one.add("eth0", "c1")).await.unwrap().ok().unwrap();
    failure(&agent, &two.add("eth0", "c2"), "all IP addresses used out").await;
    bench.pool("p", "10.19.0.0/24", &["10.19.0.2-10.19.0.3"], &json!({}));
    poll::until_async("the new address", Duration::from_secs(2), || async {
        agent.ask(Method::POST, path::IP, &two.add("eth0", "c2")).await?.ok()
    })
    .await
    .unwrap();
}

/// The leader's bitmap is read before an address is picked: what it marks is not tried.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_shows_as_used_is_not_tried() {
    let bench = Bench::new("bitmap").await;
    bench.pool("p", "10.39.0.0/24", &["10.39.0.1-10.39.0.200"], &json!({}));
    // All but .77. There is no leader here that would correct it.
    let ranges = ["10.39.0.1-10.39.0.76", "10.39.0.78-10.39.0.200"].map(|range| range.parse().unwrap());
    let block = usage::encode(&IpSet::from_ranges(Family::V4, ranges)).next().unwrap();
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPoolUsage",
        "metadata": {"name": bench.name("p.10.39.0.0"), "labels": {"ipam.spidernet.io/ippool": bench.name("p")}},
        "spec": {
            "pool": bench.name("p"), "base": block.base, "inUse": block.in_use, "bitmap": block.bitmap,
        },
    }));
    let (one, two) = (bench.pod_with_pool("one", "n1", "p"), bench.pod_with_pool("two", "n1", "p"));
    let agent = bench.agent("n1").await;
    let first = agent.ask(Method::POST, path::IP, &one.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&first), ["10.39.0.77/24".to_owned()].into());
    // It is a hint: the pool is not called exhausted by it.
    agent.ask(Method::POST, path::IP, &two.add("eth0", "c2")).await.unwrap().ok().unwrap();
    agent.stop().unwrap();
}

/// Each pod that waited read the list of all addresses.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_wait_for_an_exhausted_pool_share_its_list() {
    let bench = Bench::new("shared").await;
    bench.pool("a4", "10.131.0.0/24", &["10.131.0.9"], &json!({}));
    let proxy = FaultProxy::start(&bench.identity("n1"), Fault::HoldLists, 0).await.unwrap();
    let agent = bench.agent_by("n1", proxy.kubeconfig(&bench.folder("n1")).unwrap()).await;
    let holder = bench.pod_with_pool("holder", "n1", "a4");
    agent.ask(Method::POST, path::IP, &holder.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let pods: Vec<_> = (0..10).map(|i| bench.pod_with_pool(&format!("waits-{i}"), "n1", "a4")).collect();
    let adds = join_all(pods.iter().map(async |pod| {
        failure(&agent, &pod.add("eth0", "c1"), "all IP addresses used out of IPPool").await;
    }));
    let release = async {
        bench.until("the list", async || proxy.lists() > 0).await;
        proxy.restore();
    };
    tokio::join!(adds, release);
    assert_eq!(proxy.lists(), 1);
    // What is freed here is found without a list.
    bench.delete_pod(&holder);
    agent.ask(Method::DELETE, path::IP, &holder.del("eth0", "c1")).await.unwrap().ok().unwrap();
    agent.ask(Method::POST, path::IP, &pods[0].add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(proxy.lists(), 1);
}

/// The end of a pod waited for the list of an ADD that its runtime had given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_del_is_not_behind_the_list_of_its_pods_add() {
    let bench = Bench::new("behind").await;
    bench.pool("a4", "10.132.0.0/24", &["10.132.0.9"], &json!({}));
    let proxy = FaultProxy::start(&bench.identity("n1"), Fault::HoldLists, 0).await.unwrap();
    let agent = bench.agent_by("n1", proxy.kubeconfig(&bench.folder("n1")).unwrap()).await;
    let holder = bench.pod_with_pool("holder", "n1", "a4");
    agent.ask(Method::POST, path::IP, &holder.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let pod = bench.pod_with_pool("waits", "n1", "a4");
    let add = async {
        // Not the API server's silence, which would have ended the list much later.
        failure(&agent, &pod.add("eth0", "c1"), "nobody waits for the addresses of Pod").await;
    };
    let del = async {
        bench.until("the list", async || proxy.lists() > 0).await;
        agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    };
    tokio::join!(add, del);
    proxy.restore();
}

/// A DEL for a pod that is alive: whether its sandbox is replaced or its NIC was unplugged is seen later.
#[tokio::test(flavor = "multi_thread")]
async fn a_del_of_a_live_pod_detaches_and_its_end_under_any_restart_policy_frees() {
    let bench = Bench::new("detach").await;
    bench.pool("p", "10.40.0.0/24", &["10.40.0.1-10.40.0.9"], &json!({}));
    // The default restart policy is Always.
    let (pod, other) = (bench.pod_with_pool("pod", "n1", "p"), bench.pod_with_pool("other", "n1", "p"));
    let agent = bench.agent("n1").await;
    let first = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    // None of its containers has run: its sandboxes fail, one after the other.
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(bench.held(&pod)[0]["spec"]["containerID"], json!("c1"), "nothing is written");
    for pod in [&pod, &other] {
        bench.run_pod(pod);
    }
    bench
        .until("the agent knows that it runs", async || {
            agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
            bench.held(&pod)[0]["spec"].get("containerID").is_none()
        })
        .await;
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    let detached = bench.held(&pod)[0]["spec"].clone();
    assert!(detached.get("containerID").is_none() && detached["detached"] == json!(true), "{detached}");
    let again = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&again), addresses(&first));
    let adopted = bench.held(&pod)[0]["spec"].clone();
    assert!(adopted["containerID"] == json!("c2") && adopted.get("detached").is_none(), "{adopted}");
    // It ends before its DEL.
    bench.fail_pod(&pod, "DeadlineExceeded");
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c2")).await.unwrap().ok().unwrap();
    assert!(bench.held(&pod).is_empty());
    // A kubelet reports the end after the DEL.
    agent.ask(Method::POST, path::IP, &other.add("eth0", "c3")).await.unwrap().ok().unwrap();
    agent.ask(Method::DELETE, path::IP, &other.del("eth0", "c3")).await.unwrap().ok().unwrap();
    assert_eq!(bench.held(&other).len(), 1);
    bench.fail_pod(&other, "Terminated");
    bench.until("the address is free", async || bench.held(&other).is_empty()).await;
    agent.stop().unwrap();
}

/// Its object was written by an earlier version, or restored.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_its_pods_grace_period_gets_it_from_the_next_agent() {
    let bench = Bench::new("completed").await;
    bench.pool("p", "10.137.0.0/24", &["10.137.0.1-10.137.0.9"], &json!({}));
    let pod = bench.pod_with_grace("pod", "n1", "p", 77);
    let agent = bench.agent("n1").await;
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let grace = || bench.held(&pod)[0]["spec"]["terminationGracePeriodSeconds"].clone();
    assert_eq!(grace(), json!(77));
    agent.stop().unwrap();
    let ip = addresses(&answer).first().unwrap().split('/').next().unwrap().to_owned();
    let without = r#"{"spec": {"terminationGracePeriodSeconds": null}}"#;
    ControlPlane::shared().kubectl(&["patch", "sip", &ip, "--type=merge", "-p", without]).unwrap();
    assert_eq!(grace(), Value::Null);
    let agent = bench.agent("n1").await;
    bench.until("the grace period is written", async || grace() == json!(77)).await;
    assert_eq!(bench.held(&pod)[0]["spec"]["containerID"], json!("c1"));
    agent.stop().unwrap();
}

/// As the dynamic networks controller of Multus does it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unplugged_nic_loses_its_address_and_its_entry_in_the_endpoint() {
    let bench = Bench::new("unplug").await;
    bench.pool("a", "10.135.0.0/24", &["10.135.0.1-10.135.0.9"], &json!({}));
    bench.pool("b", "10.136.0.0/24", &["10.136.0.1-10.136.0.9"], &json!({}));
    let pools = json!([
        {"interface": "eth0", "ipv4": [bench.name("a")]}, {"interface": "net1", "ipv4": [bench.name("b")]},
    ]);
    let pod = bench.pod("p", "n1", &[("ipam.spidernet.io/ippools", &pools.to_string())]);
    let agent = bench.agent("n1").await;
    for nic in ["eth0", "net1"] {
        agent.ask(Method::POST, path::IP, &pod.add(nic, "c1")).await.unwrap().ok().unwrap();
    }
    bench.endpoint(&pod).await;
    bench.run_pod(&pod);
    bench
        .until("the agent knows that it runs", async || {
            agent.ask(Method::DELETE, path::IP, &pod.del("net1", "c1")).await.unwrap().ok().unwrap();
            bench.held(&pod).iter().any(|held| held["spec"]["detached"] == json!(true))
        })
        .await;
    // An ADD is waited for for a minute.
    poll::until_async("the address of net1 is free", Duration::from_secs(100), async || {
        let nics: Vec<_> = bench.held(&pod).iter().map(|held| held["spec"]["interface"].clone()).collect();
        anyhow::ensure!(nics == [json!("eth0")], "held for {nics:?}");
        Ok(())
    })
    .await
    .unwrap();
    let endpoint = bench.endpoint(&pod).await;
    let nics =
        endpoint["status"]["current"]["ips"].as_array().unwrap().iter().map(|ip| ip["interface"].clone());
    assert_eq!(nics.collect::<Vec<_>>(), [json!("eth0")]);
    agent.stop().unwrap();
}

/// A leader that is away has left a bitmap by which half of a pool is free that has one address left.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_usage_of_a_tight_pool_costs_a_few_writes_and_no_retries() {
    let bench = Bench::new("frozen").await;
    bench.pool("p", "10.41.0.0/24", &["10.41.0.1-10.41.0.100"], &json!({}));
    for last in 1..100 {
        let ip = format!("10.41.0.{last}");
        bench.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress",
            "metadata": {"name": ip, "labels": {"ipam.spidernet.io/ippool": bench.name("p")}},
            "spec": {
                "address": format!("{ip}/24"), "pool": bench.name("p"), "node": "elsewhere", "interface": "eth0",
                "containerID": "c", "podNamespace": "n", "podName": "p", "podUID": "u",
            },
        }));
    }
    let half = ["10.41.0.1-10.41.0.50".parse().unwrap()];
    let block = usage::encode(&IpSet::from_ranges(Family::V4, half)).next().unwrap();
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPoolUsage",
        "metadata": {"name": bench.name("p.10.41.0.0"), "labels": {"ipam.spidernet.io/ippool": bench.name("p")}},
        "spec": {
            "pool": bench.name("p"), "base": block.base, "inUse": block.in_use, "bitmap": block.bitmap,
        },
    }));
    let (last, none) = (bench.pod_with_pool("last", "n1", "p"), bench.pod_with_pool("none", "n1", "p"));
    let agent = bench.agent("n1").await;
    let taken = agent.ask(Method::POST, path::IP, &last.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&taken), ["10.41.0.100/24".to_owned()].into());
    failure(&agent, &none.add("eth0", "c2"), "all IP addresses used out").await;
    let metrics = agent.metrics().await.unwrap();
    let name = "spiderpool_ipam_allocation_update_ippool_conflict_counts_total ";
    let collisions: u64 = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
    assert!(collisions <= 12, "{collisions} creates that were refused");
    agent.stop().unwrap();
}
