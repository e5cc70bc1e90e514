//! The leader and the addresses of StatefulSets' pods: it keeps them where no agent does, and frees what nobody will claim.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use http::Method;
use serde_json::json;
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, LIMIT, TestPod, addresses};

async fn controller(bench: &Bench<'_>, environment: &[(&str, &str)]) -> StandaloneController {
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "a", environment };
    StandaloneController::start(ControlPlane::shared(), start).await.unwrap()
}

/// ADD; the name of the address's object.
async fn add(agent: &StandaloneAgent, pod: &TestPod) -> String {
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", &pod.uid)).await.unwrap().ok().unwrap();
    let address = addresses(&answer).pop_first().unwrap();
    address.split_once('/').unwrap().0.to_owned()
}

async fn del(agent: &StandaloneAgent, pod: &TestPod) {
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", &pod.uid)).await.unwrap().ok().unwrap();
}

/// A pod of the StatefulSet `web` that may use pool `p`.
fn pod(bench: &Bench<'_>, node: &str) -> TestPod {
    let annotation = bench.pool_annotation("p");
    bench.pod_of_stateful_set("web", 0, node, &[(annotation[0].0.as_str(), annotation[0].1.as_str())])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_keeps_the_address_of_a_pod_whose_agent_is_away_and_its_next_one_has_it() {
    let bench = Bench::new("lead-keep").await;
    bench.pool("p", "10.96.0.0/24", &["10.96.0.2-10.96.0.200"], &json!({}));
    bench.node("n1", true);
    bench.stateful_set("web", 1);
    let controller = controller(&bench, &[]).await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let first = pod(&bench, "n1");
    let address = add(&one, &first).await;
    bench.endpoint(&first).await;
    one.kill().unwrap();
    bench.delete_pod(&first);
    bench
        .until("it is kept", async || {
            let spec = &bench.address(&address).unwrap()["spec"];
            spec["state"] == json!("kept") && spec.get("node").is_none()
        })
        .await;
    assert_eq!(bench.find_endpoint(&first).unwrap()["status"]["current"]["node"], json!(""));
    let second = pod(&bench, "n2");
    assert_eq!(add(&two, &second).await, address);

    // A node of which somebody has made sure that nothing runs there.
    bench.node("n2", true);
    bench.run_pod(&second);
    two.kill().unwrap();
    bench.force_delete_pod(&second);
    bench.node("n2", false);
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    ControlPlane::shared().kubectl(&["taint", "node", &bench.name("n2"), taint]).unwrap();
    let one = bench.agent("n1").await;
    let third = pod(&bench, "n1");
    bench
        .until_ok("the third one has it", async || {
            let answer = one.ask(Method::POST, path::IP, &third.add("eth0", "c3")).await?.ok()?;
            anyhow::ensure!(addresses(&answer).pop_first().unwrap().starts_with(&address), "{answer}");
            Ok(())
        })
        .await;
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_pod_that_never_comes_is_freed() {
    let bench = Bench::new("lead-free").await;
    bench.pool("p", "10.97.0.0/24", &["10.97.0.2-10.97.0.200"], &json!({}));
    let controller = controller(&bench, &[]).await;
    let agent = bench.agent("n1").await;
    for end in ["scaled", "deleted"] {
        bench.stateful_set("web", 1);
        let pod = pod(&bench, "n1");
        let address = add(&agent, &pod).await;
        bench.endpoint(&pod).await;
        bench.delete_pod(&pod);
        del(&agent, &pod).await;
        assert_eq!(bench.address(&address).unwrap()["spec"]["state"], json!("kept"));
        match end {
            "scaled" => bench.stateful_set("web", 0),
            _ => bench.delete_stateful_set("web"),
        }
        bench.until("it is free", async || bench.address(&address).is_none()).await;
        bench.until("the endpoint is gone", async || bench.find_endpoint(&pod).is_none()).await;
    }
    controller.stop().unwrap();
}

/// G00011: a set that is scaled up again and another one want more addresses than their pool has.
#[tokio::test(flavor = "multi_thread")]
async fn two_stateful_sets_share_a_pool_that_is_too_small_for_both() {
    let bench = Bench::new("lead-both").await;
    bench.pool("p", "10.99.0.0/24", &["10.99.0.2-10.99.0.6"], &json!({}));
    let controller = controller(&bench, &[("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "1")]).await;
    let agents = [bench.agent("n1").await, bench.agent("n2").await];
    let annotation = bench.pool_annotation("p");
    let create = |set: &str, ordinal: u32| {
        let node = if ordinal.is_multiple_of(2) { "n1" } else { "n2" };
        let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
        (bench.pod_of_stateful_set(set, ordinal, node, &annotations), usize::from(node == "n2"))
    };
    bench.stateful_set("a", 5);
    let mut first: Vec<_> = (0..5).map(|ordinal| create("a", ordinal)).collect();
    let mut had = Vec::new();
    for (pod, node) in &first {
        had.push(add(&agents[*node], pod).await);
        bench.endpoint(pod).await;
    }
    let end = async |(pod, node): &(TestPod, usize)| {
        bench.delete_pod(pod);
        del(&agents[*node], pod).await;
    };
    bench.stateful_set("a", 0);
    for ordinal in [4, 3] {
        end(&first[ordinal]).await;
        bench.until("its address is free", async || bench.address(&had[ordinal]).is_none()).await;
    }
    bench.stateful_set("b", 5);
    bench.stateful_set("a", 5);
    // This one was ending when there were to be five again: its address waits for the next one.
    end(&first[2]).await;
    first.truncate(2);
    let next = create("a", 2);
    let others: Vec<_> = [("a", 3..5), ("b", 0..5)]
        .into_iter()
        .flat_map(|(set, ordinals)| ordinals.map(move |ordinal| (set, ordinal)))
        .map(|(set, ordinal)| create(set, ordinal))
        .collect();

    let compared = || controller.log().unwrap().matches("full resync done").count();
    let (enough, mut given) = (compared() + 5, BTreeMap::new());
    poll::until_async("more rounds of garbage collection", LIMIT, async || {
        let without = others.iter().filter(|(pod, _)| !given.contains_key(&pod.uid));
        let asked = without.map(|(pod, node)| {
            let agent = &agents[*node];
            async move {
                let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", &pod.uid)).await.unwrap();
                let is_full = answer.failure().contains("all IP addresses used out");
                assert!(is_full || answer.status == 200, "{answer:?}");
                (!is_full).then(|| (pod.uid.clone(), addresses(&answer.body)))
            }
        });
        let answers = join_all(asked).await;
        given.extend(answers.into_iter().flatten());
        anyhow::ensure!(compared() >= enough, "{} of {enough}", compared());
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(add(&agents[next.1], &next.0).await, had[2]);
    let all = [first.clone(), vec![next], others].concat();
    let held: Vec<_> = all.iter().flat_map(|(pod, _)| bench.held(pod)).collect();
    let distinct: BTreeSet<_> = held.iter().map(|object| object["metadata"]["name"].to_string()).collect();
    assert_eq!((held.len(), distinct.len(), given.len()), (5, 5, 2), "{held:?}");
    assert!(held.iter().all(|object| object["spec"]["state"] == json!("bound")), "{held:?}");
    for (pod, _) in &first {
        assert_eq!(bench.held(pod).len(), 1, "{}", pod.name);
    }
    controller.stop().unwrap();
}

/// G00010: the StatefulSet's pods do not use Spiderpool any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_pod_that_runs_without_it_is_freed_by_the_full_resync() {
    let bench = Bench::new("lead-unused").await;
    bench.pool("p", "10.98.0.0/24", &["10.98.0.2-10.98.0.200"], &json!({}));
    bench.stateful_set("web", 1);
    let agent = bench.agent("n1").await;
    let first = pod(&bench, "n1");
    let address = add(&agent, &first).await;
    bench.endpoint(&first).await;
    bench.delete_pod(&first);
    del(&agent, &first).await;
    let controller = controller(&bench, &[("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "1")]).await;
    let second = bench.pod_of_stateful_set("web", 0, "n1", &[]);
    let compared = || controller.log().unwrap().matches("full resync done").count();
    let before = compared();
    bench.until("it was compared twice", async || compared() >= before + 2).await;
    assert_eq!(bench.address(&address).unwrap()["spec"]["state"], json!("kept"), "its ADDs are not over");
    bench.run_pod(&second);
    bench.until("it is free", async || bench.address(&address).is_none()).await;
    bench.until("the endpoint is gone", async || bench.find_endpoint(&first).is_none()).await;
    controller.stop().unwrap();
}
