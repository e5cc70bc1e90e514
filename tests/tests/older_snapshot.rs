//! etcd is restored from a snapshot that is older than what agents and controllers know: addresses that the API server has
//! forgotten stay with the pods that use them, and what follows is seen by everybody.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Options, Snapshot};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod, addresses};

/// Everybody has connected again, which is tried at least every half minute, and has listed.
const RECOVERY: Duration = Duration::from_secs(90);
/// Writes between the snapshot and its end: more than everybody makes until all have connected again.
const WRITES: usize = 1200;
const AT_ONCE: usize = 40;
const CONTROLLER: [(&str, &str); 4] = [
    ("SPIDERPOOL_LEADER_DURATION", "3"),
    ("SPIDERPOOL_LEADER_RENEW_DEADLINE", "2"),
    ("SPIDERPOOL_LEADER_RETRY_PERIOD", "1"),
    ("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "3600"),
];

async fn add(agent: &StandaloneAgent, pod: &TestPod) -> Result<BTreeSet<String>> {
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await?;
    Ok(addresses(&answer.ok()?))
}

fn held(bench: &Bench<'_>, pod: &TestPod) -> BTreeSet<String> {
    bench.held(pod).iter().map(|object| object["spec"]["address"].as_str().unwrap().to_owned()).collect()
}

/// The rest of the cluster goes on writing.
async fn write_much(plane: &ControlPlane) -> Result<()> {
    let api = Api::<ConfigMap>::namespaced(plane.client().await?, "default");
    for round in 0..WRITES / AT_ONCE {
        let writes = (0..AT_ONCE).map(|number| {
            let (api, name) = (api.clone(), format!("rest-{number}"));
            async move {
                let content = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                    "data": {"round": round.to_string()},
                });
                api.patch(&name, &PatchParams::apply("rest"), &Patch::Apply(content)).await.map(drop)
            }
        });
        try_join_all(writes).await?;
    }
    Ok(())
}

async fn controller(plane: &ControlPlane, bench: &Bench<'_>) -> StandaloneController {
    let folder = bench.folder("controllers");
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &CONTROLLER };
    StandaloneController::start(plane, start).await.unwrap()
}

/// Repeats an ADD until it succeeds.
async fn added(agent: &StandaloneAgent, pod: &TestPod) -> BTreeSet<String> {
    poll::until_async(&format!("an address for {}", pod.name), RECOVERY, async || add(agent, pod).await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_from_a_future_version_and_forgotten_addresses_are_repaired() {
    forgotten_addresses_are_repaired("older", ControlPlane::restore_snapshot).await;
}

/// No version is from the future then, and watches are listed again as after a long absence.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_forgotten_by_a_restore_with_a_bumped_revision_are_repaired() {
    forgotten_addresses_are_repaired("bumped", ControlPlane::restore_snapshot_with_bumped_revision).await;
}

async fn forgotten_addresses_are_repaired(
    namespace: &str,
    restore: impl FnOnce(&mut ControlPlane, &Snapshot) -> Result<()>,
) {
    let mut plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, namespace).await;
    // No more addresses than pods that are to have one: what is forgotten would be given to the next one.
    bench.pool("p", "10.71.0.0/24", &["10.71.0.2-10.71.0.4"], &json!({}));
    for node in ["n1", "n2"] {
        bench.node(node, true);
    }
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let pods: BTreeMap<_, _> = ["early", "ended", "late", "next", "last", "none"]
        .into_iter()
        .map(|name| (name, bench.pod_with_pool(name, "n1", "p")))
        .collect();
    let mut given = BTreeMap::new();
    for name in ["early", "ended"] {
        given.insert(name, add(&one, &pods[name]).await.unwrap());
        bench.endpoint(&pods[name]).await;
    }
    let controller = controller(&plane, &bench).await;

    let parts = bench.into_parts();
    let snapshot = plane.take_snapshot().unwrap();
    let bench = Bench::from_parts(&plane, parts);
    bench.pool("never", "10.72.0.0/24", &["10.72.0.2-10.72.0.9"], &json!({}));
    given.insert("late", added(&one, &pods["late"]).await);
    bench.endpoint(&pods["late"]).await;
    bench.delete_pod(&pods["ended"]);
    let del = pods["ended"].del("eth0", "c1");
    one.ask(Method::DELETE, path::IP, &del).await.unwrap().ok().unwrap();
    let served = bench.pod_with_pool("served", "n2", "never");
    added(&two, &served).await;
    write_much(&plane).await.unwrap();

    let object =
        |bench: &Bench<'_>| bench.held(&pods["late"]).first().map(|object| object["metadata"]["uid"].clone());
    let before = object(&bench);
    assert!(before.is_some());

    let parts = bench.into_parts();
    restore(&mut plane, &snapshot).unwrap();
    let bench = Bench::from_parts(&plane, parts);
    // The agent that gave the address says so again, and the leader's view is that of the API server.
    let asserted = poll::until_async("the forgotten address is written again", RECOVERY, async || {
        let held = held(&bench, &pods["late"]);
        ensure!(held == given["late"], "the pod has {:?}, the API server says {held:?}", given["late"]);
        ensure!(bench.find_endpoint(&pods["late"]).is_some(), "the pod has no endpoint");
        Ok(())
    });
    asserted.await.unwrap();
    assert_ne!(object(&bench), before, "the API server has not forgotten it");
    assert_eq!(held(&bench, &pods["early"]), given["early"]);

    // Pools are watched again: what was never so is forgotten, and what is new is seen.
    bench.pool("new", "10.73.0.0/24", &["10.73.0.2-10.73.0.9"], &json!({}));
    let (of_new, of_never) = (
        bench.pod_with_watched_pool("of-new", "n2", "new"),
        bench.pod_with_watched_pool("of-never", "n2", "never"),
    );
    added(&two, &of_new).await;
    let refusal = add(&two, &of_never).await.unwrap_err().to_string();
    assert!(refusal.contains("never"), "{refusal}");

    // Pods are watched again, by the leader as well: the pod that had ended is there again, with its address.
    bench.delete_pod(&pods["early"]);
    let freed = async |pod: &TestPod| {
        let free = async || {
            ensure!(held(&bench, pod).is_empty(), "{:?}", held(&bench, pod));
            Ok(())
        };
        poll::until_async(&format!("{} is freed", pod.name), RECOVERY, free).await.unwrap();
    };
    freed(&pods["early"]).await;
    one.kill().unwrap();
    assert_eq!(held(&bench, &pods["ended"]), given["ended"]);
    bench.delete_pod(&pods["ended"]);
    freed(&pods["ended"]).await;

    // Whoever comes next gets what nobody uses.
    let one = bench.agent("n1").await;
    let mut used: BTreeSet<_> = given["late"].clone();
    for name in ["next", "last"] {
        let address = added(&one, &pods[name]).await;
        assert!(used.is_disjoint(&address), "{name} was given {address:?}, in use are {used:?}");
        used.extend(address);
    }
    let exhausted = add(&one, &pods["none"]).await.unwrap_err().to_string();
    assert!(exhausted.contains("all IP addresses used out"), "{exhausted}");
    for agent in [one, two] {
        agent.stop().unwrap();
    }
    controller.stop().unwrap();
}

/// The pod that the API server gives the address to is the one that has it: nobody can help the other but by deleting it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_who_has_an_address_that_was_given_twice_in_two_histories() {
    let mut plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "twice").await;
    bench.pool("p", "10.74.0.0/24", &["10.74.0.2"], &json!({}));
    let agent = bench.agent("n1").await;
    let (first, second) = (bench.pod_with_pool("first", "n1", "p"), bench.pod_with_pool("second", "n1", "p"));
    let address = add(&agent, &first).await.unwrap();
    bench.endpoint(&first).await;
    let parts = bench.into_parts();
    let snapshot = plane.take_snapshot().unwrap();
    let bench = Bench::from_parts(&plane, parts);
    bench.delete_pod(&first);
    let freed = poll::until_async("DEL", RECOVERY, async || {
        agent.ask(Method::DELETE, path::IP, &first.del("eth0", "c1")).await?.ok()
    });
    freed.await.unwrap();
    assert_eq!(added(&agent, &second).await, address);
    write_much(&plane).await.unwrap();
    let parts = bench.into_parts();
    plane.restore_snapshot(&snapshot).unwrap();
    let bench = Bench::from_parts(&plane, parts);
    let told = poll::until_async("an Event tells it", RECOVERY, async || {
        let events = bench.events(&second);
        let names = |event: &String| event.contains("twice/first");
        ensure!(events.iter().any(names), "{events:?}");
        Ok(())
    });
    told.await.unwrap();
    assert_eq!(held(&bench, &first), address, "it stays with the pod that the API server knows");
    assert_eq!(held(&bench, &second), BTreeSet::new());
    agent.stop().unwrap();
}
