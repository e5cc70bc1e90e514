//! Addresses that others use, as the plugin says it to the agent: quarantined and exchanged, or refused with a reason; and
//! their end by the leader. Against a real API server.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod, addresses, failure};

const MAC: &str = "02:00:00:00:00:07";

/// The address that the answer gives, without its prefix length.
async fn add(agent: &StandaloneAgent, request: &Value) -> String {
    let answer = agent.ask(Method::POST, path::IP, request).await.unwrap().ok().unwrap();
    addresses(&answer).pop_first().unwrap().split_once('/').unwrap().0.to_owned()
}

/// The same ADD again, which has found that others use these addresses.
fn again(pod: &TestPod, container: &str, conflicts: &[&str]) -> Value {
    let mut add = pod.add("net1", container);
    let conflicts: Vec<_> = conflicts.iter().map(|address| json!({"address": address, "mac": MAC})).collect();
    add["conflicts"] = json!(conflicts);
    add
}

fn state(bench: &Bench<'_>, address: &str) -> Option<Value> {
    Some(bench.address(address)?["spec"]["state"].clone())
}

async fn controller(bench: &Bench<'_>) -> StandaloneController {
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "a", environment: &[] };
    StandaloneController::start(ControlPlane::shared(), start).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_use_is_quarantined_and_another_one_is_given_once() {
    let bench = Bench::new("conflict").await;
    bench.pool("p", "10.140.0.0/24", &["10.140.0.2-10.140.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let first = add(&agent, &pod.add("net1", "c1")).await;
    bench.endpoint(&pod).await;
    let second = add(&agent, &again(&pod, "c1", &[&first])).await;
    assert_ne!(first, second);
    let object = bench.address(&first).unwrap();
    let spec = &object["spec"];
    assert_eq!((&spec["state"], &spec["quarantine"]["by"]), (&json!("quarantined"), &json!(MAC)), "{object}");
    assert_eq!((spec.get("node"), spec.get("containerID")), (None, None), "{object}");
    let until: Timestamp = spec["quarantine"]["until"].as_str().unwrap().parse().unwrap();
    let left = until.as_second() - Timestamp::now().as_second();
    assert!((3500..=3601).contains(&left), "an hour: {left}");
    // The answer was lost; the sandbox of before, and another NIC, have nothing to say.
    assert_eq!(add(&agent, &again(&pod, "c1", &[&first])).await, second);
    assert_eq!(add(&agent, &again(&pod, "c2", &[&second])).await, second, "c1 had it when it was probed");
    let mut other = again(&pod, "c2", &[&second]);
    other["ifName"] = json!("eth0");
    agent.ask(Method::POST, path::IP, &other).await.unwrap().ok().unwrap();
    assert_eq!(state(&bench, &second), Some(json!("bound")));
    bench
        .until_ok("Event and endpoint", async || {
            let events = bench.events(&pod).join("\n");
            anyhow::ensure!(events.contains(&first) && events.contains(MAC), "{events}");
            let endpoint = bench.find_endpoint(&pod).unwrap().to_string();
            anyhow::ensure!(endpoint.contains(&second) && !endpoint.contains(&first), "{endpoint}");
            Ok(())
        })
        .await;
    let metrics = agent.metrics().await.unwrap();
    assert!(metrics.contains("spiderpool_ipam_address_conflict_counts_total 1"), "{metrics}");
    // Nobody gets it, also not by an agent that has just started.
    agent.stop().unwrap();
    let agent = bench.agent("n1").await;
    for number in 0..5 {
        let pod = bench.pod_with_pool(&format!("more-{number}"), "n1", "p");
        assert_ne!(add(&agent, &pod.add("net1", "c")).await, first);
    }
    let last = bench.pod_with_pool("last", "n1", "p");
    failure(&agent, &last.add("net1", "c"), "(8 usable, 0 of them reserved, 1 quarantined").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_to_be_the_pods_and_no_other_is_refused_and_stays() {
    let bench = Bench::new("conflict-kept").await;
    bench.pool("p", "10.141.0.0/24", &["10.141.0.2-10.141.0.9"], &json!({}));
    bench.stateful_set("web", 1);
    let agent = bench.agent("n1").await;
    let annotation = bench.pool_annotation("p");
    let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let pod = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    let squatted = add(&agent, &pod.add("net1", "c1")).await;
    // Nobody relies on the first address of a pod that has not run yet.
    let kept = add(&agent, &again(&pod, "c1", &[&squatted])).await;
    assert_ne!(squatted, kept);
    bench.run_pod(&pod);
    // It knows that the pod runs from its first list.
    agent.stop().unwrap();
    let agent = bench.agent("n1").await;
    failure(&agent, &again(&pod, "c1", &[&kept]), "stays with the Pods of this name").await;
    bench.endpoint(&pod).await;
    bench.delete_pod(&pod);
    agent.ask(Method::DELETE, path::IP, &pod.del("net1", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(state(&bench, &kept), Some(json!("kept")));
    // The API server writes whole seconds.
    let created: Timestamp =
        bench.address(&kept).unwrap()["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
    bench.until("a later second", async || Timestamp::now().as_second() > created.as_second()).await;
    let next = bench.pod_of_stateful_set("web", 0, "n1", &annotations);
    assert_eq!(add(&agent, &next.add("net1", "c2")).await, kept);
    failure(
        &agent,
        &again(&next, "c2", &[&kept]),
        &format!("is in use on its network by {MAC}: stop that machine"),
    )
    .await;
    assert_eq!(state(&bench, &kept), Some(json!("bound")));
    assert_eq!(add(&agent, &next.add("net1", "c3")).await, kept, "the next attempt probes it again");

    let requested = bench.pod_with_pool("requested", "n1", "p");
    let mut ask = again(&requested, "c1", &[]);
    ask["requestedIPs"] = json!(["10.141.0.9"]);
    if [squatted.as_str(), kept.as_str()].contains(&"10.141.0.9") {
        ask["requestedIPs"] = json!(["10.141.0.8"]);
    }
    if [squatted.as_str(), kept.as_str()].contains(&"10.141.0.8") {
        ask["requestedIPs"] = json!(["10.141.0.7"]);
    }
    let given = add(&agent, &ask).await;
    ask["conflicts"] = json!([{"address": given, "mac": MAC}]);
    failure(&agent, &ask, &format!("the requested IP address {given} of NIC net1 is in use on its network"))
        .await;
    assert_eq!(state(&bench, &given), Some(json!("bound")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_frees_a_quarantined_address_when_its_time_is_over_and_counts_it_until_then() {
    let bench = Bench::new("conflict-over").await;
    bench.pool("p", "10.142.0.0/24", &["10.142.0.2-10.142.0.9"], &json!({}));
    let plane = ControlPlane::shared();
    let controller = controller(&bench).await;
    let agent = bench.agent("n1").await;
    let pod = bench.pod_with_pool("p", "n1", "p");
    let first = add(&agent, &pod.add("net1", "c1")).await;
    let second = add(&agent, &again(&pod, "c1", &[&first])).await;
    let name = bench.name("p");
    let find = || plane.find(Kind::spiderpool("SpiderIPPool"), "", &name).unwrap();
    bench.until("both are counted", async || find().unwrap()["status"]["allocatedIPCount"] == json!(2)).await;
    let until = Timestamp::now().checked_add(Duration::from_secs(4)).unwrap();
    let until = Timestamp::from_second(until.as_second()).unwrap();
    let patch = json!({"spec": {"quarantine": {"by": MAC, "until": until.to_string()}}}).to_string();
    plane.kubectl(&["patch", "sip", &first, "--type=merge", "-p", &patch]).unwrap();
    bench
        .until("it is free", async || {
            let is_there = bench.address(&first).is_some();
            assert!(is_there || Timestamp::now() >= until, "freed before {until}");
            !is_there
        })
        .await;
    assert_eq!(state(&bench, &second), Some(json!("bound")));
    bench.until("one is counted", async || find().unwrap()["status"]["allocatedIPCount"] == json!(1)).await;

    // It does not keep its pool from being deleted.
    let third = add(&agent, &again(&pod, "c1", &[&second])).await;
    bench.delete_pod(&pod);
    agent.ask(Method::DELETE, path::IP, &pod.del("net1", "c1")).await.unwrap().ok().unwrap();
    assert_eq!((state(&bench, &third), state(&bench, &second)), (None, Some(json!("quarantined"))));
    plane.kubectl(&["delete", "spiderippool", &name, "--timeout=20s"]).unwrap();
    assert!(find().is_none());
    assert_eq!(state(&bench, &second), Some(json!("quarantined")));
    bench.delete_address(&second);
    controller.stop().unwrap();
}
