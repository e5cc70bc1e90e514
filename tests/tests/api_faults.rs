//! An API server that refuses, fails or is slow: ADDs succeed when it recovers in time or say what was wrong, nobody asks more often
//! than it wants, and afterwards every address is a living pod's.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use anyhow::ensure;
use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::outage::{Outage, Trouble};
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use spiderpool_tests::{long_form, poll};
use support::{Bench, LIMIT, TestPod, addresses, outage as fails_for_now};

/// Seconds that the API server wants to be left alone.
const RETRY_AFTER: u32 = 2;
/// Requests with one method and path at a time: of several watches and for plugins.
const AT_ONCE: u32 = 5;
/// Those that begin anew without knowing that an earlier one was refused.
const ANEW: u32 = 3;
const TERMS: [(&str, &str); 4] = [
    ("SPIDERPOOL_LEADER_DURATION", "3"),
    ("SPIDERPOOL_LEADER_RENEW_DEADLINE", "2"),
    ("SPIDERPOOL_LEADER_RETRY_PERIOD", "1"),
    ("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "10"),
];

async fn agent(bench: &Bench<'_>, node: &str) -> (StandaloneAgent, Outage) {
    let outage = Outage::start(&bench.identity(node)).await.unwrap();
    let kubeconfig = outage.kubeconfig(&bench.folder(node)).unwrap();
    (bench.agent_by(node, kubeconfig).await, outage)
}

fn overloaded(code: u16) -> Trouble {
    Trouble::Refuse { code, retry_after: Some(RETRY_AFTER) }
}

/// Waits until some request has been refused so often: for so many times as the API server wants to be left alone.
async fn until_refused(outage: &Outage, times: u32) {
    poll::until_async("requests are refused", LIMIT, async || {
        let refused = outage.refused();
        ensure!(refused.values().any(|one| one.times >= times), "{refused:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Nobody has asked much more often than the API server wants; and where one request is sent at a time, it is left alone for as long
/// as it says.
fn assert_patient(outage: &Outage) {
    let wanted = Duration::from_secs(RETRY_AFTER.into());
    for (request, refused) in outage.refused() {
        if let Some(pause) = refused.shortest_pause.filter(|_| request.ends_with("/spideripaddresses")) {
            assert!(pause >= wanted, "{request}: again after {pause:?}");
        }
        let seconds = u32::try_from((refused.last - refused.first).as_secs()).unwrap();
        let most = AT_ONCE * (seconds / RETRY_AFTER + 1) + ANEW;
        assert!(refused.times <= most, "{request}: {} times in {seconds} s", refused.times);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_api_server_is_left_alone_as_long_as_it_says() {
    let bench = Bench::new("busy").await;
    bench.pool("p", "10.80.0.0/24", &["10.80.0.2-10.80.0.9"], &json!({}));
    let (agent, outage) = agent(&bench, "n1").await;
    let pods: Vec<_> = [429, 503].map(|code| bench.pod_with_pool(&format!("p{code}"), "n1", "p")).into();
    let mut given = Vec::new();
    for (pod, code) in pods.iter().zip([429, 503]) {
        outage.set(overloaded(code));
        let request = pod.add("eth0", "c1");
        let add = agent.ask(Method::POST, path::IP, &request);
        let recovery = async {
            until_refused(&outage, 3).await;
            outage.set(Trouble::None);
        };
        let (answer, ()) = tokio::join!(add, recovery);
        given.push((pod, addresses(&answer.unwrap().ok().unwrap())));
        assert_patient(&outage);
    }
    bench.until_exactly("p", &given).await;

    // Longer than a DEL waits: it says why, and what it could not free follows.
    outage.set(overloaded(429));
    let pod = &pods[0];
    bench.delete_pod(pod);
    let answer = agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap();
    assert!(answer.failure().contains("429 Too Many Requests"), "{answer:?}");
    assert!(answer.failure().contains("overloaded"), "{answer:?}");
    assert_patient(&outage);
    outage.set(Trouble::None);
    bench.until_exactly("p", &given[1..]).await;
    agent.stop().unwrap();
}

/// As long as an ADD waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_add_says_that_the_api_server_was_overloaded_all_the_time() {
    if !long_form::asked_for_or_skip("an_add_says_that_the_api_server_was_overloaded_all_the_time") {
        return;
    }
    let bench = Bench::new("busier").await;
    bench.pool("p", "10.81.0.0/24", &["10.81.0.2-10.81.0.9"], &json!({}));
    let (agent, outage) = agent(&bench, "n1").await;
    for code in [429, 503] {
        let pod = bench.pod_with_pool(&format!("p{code}"), "n1", "p");
        outage.set(overloaded(code));
        fails_for_now(&agent, &pod.add("eth0", "c1"), &format!("API server answers {code} ")).await;
        assert_patient(&outage);
        outage.set(Trouble::None);
        let again = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
        bench.until_exactly("p", &[(&pod, addresses(&again))]).await;
        bench.delete_pod(&pod);
        bench.until_exactly("p", &[]).await;
    }
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_is_named_by_add_and_del() {
    let bench = Bench::new("failing").await;
    bench.pool("p", "10.82.0.0/24", &["10.82.0.2-10.82.0.9"], &json!({}));
    let (agent, outage) = agent(&bench, "n1").await;
    let pod = bench.pod_with_pool("p", "n1", "p");
    outage.set(Trouble::Refuse { code: 500, retry_after: None });
    fails_for_now(&agent, &pod.add("eth0", "c1"), "API server: refused by the test").await;
    outage.set(Trouble::None);
    let given = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
    bench.until_exactly("p", &[(&pod, addresses(&given))]).await;

    outage.set(Trouble::Refuse { code: 500, retry_after: None });
    bench.delete_pod(&pod);
    let answer = agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c2")).await.unwrap();
    assert!(answer.failure().contains("API server: refused by the test"), "{answer:?}");
    outage.set(Trouble::None);
    bench.until_exactly("p", &[]).await;
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_api_server_delays_adds_and_dels_and_fails_none() {
    let bench = Bench::new("slow").await;
    bench.pool("p", "10.83.0.0/24", &["10.83.0.2-10.83.0.9"], &json!({}));
    let (agent, outage) = agent(&bench, "n1").await;
    let pods: Vec<_> = ["a", "b", "c"].map(|name| bench.pod_with_pool(name, "n1", "p")).into();
    outage.set(Trouble::Delay(Duration::from_secs(3)));
    let add = async |pod: &TestPod| {
        let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap();
        addresses(&answer.ok().unwrap())
    };
    let given = join_all(pods.iter().map(async |pod| (pod, add(pod).await))).await;
    bench.delete_pod(&pods[0]);
    agent.ask(Method::DELETE, path::IP, &pods[0].del("eth0", "c1")).await.unwrap().ok().unwrap();
    outage.set(Trouble::None);
    bench.until_exactly("p", &given[1..]).await;
    agent.stop().unwrap();
}

/// Whether an answer comes after its request was given up or not: who asks again gets what was given then.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_come_after_their_requests_were_given_up_lose_no_address() {
    if !long_form::asked_for_or_skip("answers_that_come_after_their_requests_were_given_up_lose_no_address") {
        return;
    }
    let bench = Bench::new("late").await;
    bench.pool("p", "10.84.0.0/24", &["10.84.0.2-10.84.0.9"], &json!({}));
    let (agent, outage) = agent(&bench, "n1").await;
    let (stays, goes) = (bench.pod_with_pool("stays", "n1", "p"), bench.pod_with_pool("goes", "n1", "p"));
    outage.set(Trouble::Delay(Duration::from_secs(11)));
    let [first, second] = [stays.add("eth0", "c1"), goes.add("eth0", "c1")];
    tokio::join!(
        fails_for_now(&agent, &first, "did not answer within 10s"),
        fails_for_now(&agent, &second, "did not answer within 10s")
    );
    outage.set(Trouble::None);
    bench.delete_pod(&goes);
    let given = agent.ask(Method::POST, path::IP, &stays.add("eth0", "c2")).await.unwrap().ok().unwrap();
    bench.until_exactly("p", &[(&stays, addresses(&given))]).await;
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_refused_frees_nothing_and_goes_on_afterwards() {
    let bench = Bench::new("leads").await;
    bench.pool("p", "10.85.0.0/24", &["10.85.0.2-10.85.0.9"], &json!({}));
    bench.node("n1", true);
    let (plane, folder) = (ControlPlane::shared(), bench.folder("controllers"));
    let outage = Outage::start(&StandaloneController::identity(plane, "a").unwrap()).await.unwrap();
    let kubeconfig = outage.kubeconfig(&folder).unwrap();
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &TERMS };
    let controller = StandaloneController::start_by(plane, start, &kubeconfig, &json!({})).await.unwrap();
    let stays = bench.pod_with_pool("stays", "n1", "p");
    let agent = bench.agent("n1").await;
    let given = agent.ask(Method::POST, path::IP, &stays.add("eth0", "c1")).await.unwrap().ok().unwrap();
    agent.kill().unwrap();
    for (name, trouble) in [
        ("busy", overloaded(429)),
        ("failing", Trouble::Refuse { code: 500, retry_after: None }),
        ("slow", Trouble::Delay(Duration::from_millis(300))),
    ] {
        let agent = bench.agent("n1").await;
        let gone = bench.pod_with_pool(name, "n1", "p");
        agent.ask(Method::POST, path::IP, &gone.add("eth0", "c1")).await.unwrap().ok().unwrap();
        bench.endpoint(&gone).await;
        agent.kill().unwrap();
        bench.until("it leads", async || controller.leads().await.unwrap()).await;
        outage.set(trouble);
        bench.delete_pod(&gone);
        if let Trouble::Refuse { .. } = trouble {
            // A leader that cannot renew its Lease does not go on.
            bench.until("it does not lead any more", async || !controller.leads().await.unwrap()).await;
            assert_eq!(bench.held(&gone).len(), 1);
            if trouble == overloaded(429) {
                assert_patient(&outage);
            }
            outage.set(Trouble::None);
        }
        bench.until_exactly("p", &[(&stays, addresses(&given))]).await;
        outage.set(Trouble::None);
    }
    controller.stop().unwrap();
}

/// After a failure of power all nodes are there at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_start_at_once_all_serve() {
    let agents = if long_form::is_asked_for() { 20 } else { 8 };
    let bench = Bench::new("at-once").await;
    bench.pool("p", "10.86.0.0/24", &["10.86.0.2-10.86.0.99"], &json!({}));
    let nodes: Vec<_> = (0..agents).map(|number| format!("n{number}")).collect();
    let pods: Vec<_> = nodes
        .iter()
        .flat_map(|node| ["a", "b"].map(|name| bench.pod_with_pool(&format!("{node}-{name}"), node, "p")))
        .collect();
    let serve = async |(node, pods): (&String, &[TestPod])| {
        let agent = bench.agent(node).await;
        // An agent that is starting says so, and the runtime tries again.
        let add = async |pod: &TestPod| {
            let given = poll::until_async("an address", LIMIT, async || {
                agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await?.ok()
            });
            addresses(&given.await.unwrap())
        };
        let given = join_all(pods.iter().map(add)).await;
        let ready = poll::until_async("it is ready", LIMIT, async || {
            let (status, missing) = agent.probe("/v1/runtime/readiness").await?;
            anyhow::ensure!(status == StatusCode::OK, "{missing}");
            Ok(())
        });
        ready.await.unwrap();
        agent.stop().unwrap();
        given
    };
    let given = join_all(nodes.iter().zip(pods.chunks(2)).map(serve)).await;
    let given: Vec<_> = pods.iter().zip(given.into_iter().flatten()).collect();
    bench.until_exactly("p", &given).await;
}
