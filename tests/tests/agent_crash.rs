//! The agent dies, or an answer is lost, at every write to the API server. Whatever the point: the repeated request
//! gives the same addresses, nothing is held twice, and nothing is left of a pod that is gone.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::fault_proxy::{Fault, FaultProxy};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use support::{Bench, LIMIT, TestPod, addresses};

/// More writes than any request here makes.
const MOST: usize = 30;

/// Two NICs, one of them with both families: three addresses and an endpoint.
const WANTED: usize = 3;

async fn bench(prefix: &str, number: u8) -> Bench<'static> {
    let bench = Bench::new(prefix).await;
    bench.pool(
        "a4",
        &format!("10.{number}.0.0/24"),
        &[&format!("10.{number}.0.2-10.{number}.0.99")],
        &json!({}),
    );
    bench.pool("a6", &format!("fd{number}::/64"), &[&format!("fd{number}::2-fd{number}::99")], &json!({}));
    bench
}

fn pod(bench: &Bench<'_>, name: &str) -> TestPod {
    let pools = json!([
        {"interface": "eth0", "ipv4": [bench.name("a4")], "ipv6": [bench.name("a6")]},
        {"interface": "net1", "ipv4": [bench.name("a4")]},
    ]);
    bench.pod(name, "n1", &[("ipam.spidernet.io/ippools", &pools.to_string())])
}

/// An agent behind a proxy that injects its fault at write number `at`.
async fn agent(bench: &Bench<'_>, fault: Fault, at: usize) -> (StandaloneAgent, FaultProxy) {
    let proxy = FaultProxy::start(&bench.identity("n1"), fault, at).await.unwrap();
    let kubeconfig = proxy.kubeconfig(&bench.folder("n1")).unwrap();
    let agent = bench.agent_by("n1", kubeconfig).await;
    proxy.set_target(agent.id());
    (agent, proxy)
}

fn held(bench: &Bench<'_>, pod: &TestPod) -> BTreeSet<String> {
    bench.held(pod).iter().map(|object| object["spec"]["address"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the pod holds exactly what the answer says, and its endpoint says so too.
async fn settled(bench: &Bench<'_>, pod: &TestPod, answer: &Value) {
    let given = addresses(answer);
    assert_eq!(given.len(), WANTED, "{answer}");
    poll::until_async("what the pod holds", LIMIT, || async {
        let held = held(bench, pod);
        ensure!(held == given, "held {held:?}, given {given:?}");
        Ok(())
    })
    .await
    .unwrap();
    // A start may have written what the pod held then: the rest follows.
    poll::until_async("what the endpoint says", LIMIT, || async {
        let recorded = recorded(&bench.endpoint(pod).await);
        ensure!(recorded == given, "recorded {recorded:?}, given {given:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// The addresses that an endpoint names.
fn recorded(endpoint: &Value) -> BTreeSet<String> {
    let ips = endpoint["status"]["current"]["ips"].as_array().unwrap();
    let addresses = ips.iter().flat_map(|ip| [&ip["ipv4"], &ip["ipv6"]]);
    addresses.filter_map(|address| address.as_str().map(str::to_owned)).collect()
}

/// Strikes at every write of an ADD in turn; answers how many there were.
async fn strike_adds(bench: &Bench<'_>, fault: Fault) -> usize {
    for at in 1..=MOST {
        let pod = pod(bench, &format!("{fault:?}-{at}").to_lowercase());
        let (mut hurt, proxy) = agent(bench, fault, at).await;
        let first = hurt.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await;
        if let Ok(answer) = &first {
            // The endpoint is written behind the answer, and may be what is hit.
            assert_eq!(answer.status, 200, "{answer:?}");
            let written = poll::until_async("endpoint or fault", LIMIT, || async {
                ensure!(proxy.is_injected() || bench.find_endpoint(&pod).is_some(), "neither");
                Ok(())
            });
            written.await.unwrap();
        }
        let injected = proxy.is_injected();
        if injected {
            hurt.wait_ended().unwrap();
        } else {
            hurt.kill().unwrap();
        }
        let before = held(bench, &pod);

        let agent = bench.agent("n1").await;
        let again = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
        if let Ok(answer) = first {
            assert_eq!(addresses(&again), addresses(&answer.body), "the answer changed, write {at}");
        }
        assert!(before.is_subset(&addresses(&again)), "{before:?} is not part of {again}, write {at}");
        settled(bench, &pod, &again).await;
        agent.stop().unwrap();
        if !injected {
            return at - 1;
        }
    }
    panic!("more than {MOST} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_write_of_an_add() {
    let bench = bench("add-before", 40).await;
    assert_eq!(strike_adds(&bench, Fault::KillBefore).await, WANTED + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_write_of_an_add() {
    let bench = bench("add-after", 41).await;
    assert_eq!(strike_adds(&bench, Fault::KillAfter).await, WANTED + 1);
}

/// Strikes at every write of a DEL in turn: the runtime does not repeat it, so the next start must see to the rest.
async fn strike_dels(bench: &Bench<'_>, fault: Fault) -> usize {
    for at in 1..=MOST {
        let pod = pod(bench, &format!("{fault:?}-{at}").to_lowercase());
        let agent_alone = bench.agent("n1").await;
        let answer =
            agent_alone.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
        settled(bench, &pod, &answer).await;
        agent_alone.stop().unwrap();

        let (mut hurt, proxy) = agent(bench, fault, at).await;
        bench.delete_pod(&pod);
        let mut outcome = hurt.ask(Method::DELETE, path::IP, &pod.del("net1", "c1")).await;
        if !proxy.is_injected() {
            outcome = hurt.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await;
        }
        let injected = proxy.is_injected();
        assert_eq!(injected, outcome.is_err(), "{outcome:?}");
        if injected {
            hurt.wait_ended().unwrap();
        } else {
            hurt.kill().unwrap();
        }

        let agent = bench.agent("n1").await;
        poll::until_async("nothing left", LIMIT, || async {
            let left = held(bench, &pod);
            ensure!(left.is_empty(), "held {left:?}");
            ensure!(bench.find_endpoint(&pod).is_none(), "the endpoint is there");
            Ok(())
        })
        .await
        .unwrap();
        agent.stop().unwrap();
        if !injected {
            return at - 1;
        }
    }
    panic!("more than {MOST} writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_write_of_a_del() {
    let bench = bench("del-before", 42).await;
    // The address of net1; the endpoint's finalizer, the endpoint, the addresses of eth0.
    assert_eq!(strike_dels(&bench, Fault::KillBefore).await, WANTED + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_a_write_of_a_del() {
    let bench = bench("del-after", 43).await;
    assert_eq!(strike_dels(&bench, Fault::KillAfter).await, WANTED + 2);
}

/// The agent lives on: it must recognise what it made without knowing.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_lost() {
    let bench = bench("lost", 44).await;
    for at in 1..=WANTED {
        let pod = pod(&bench, &format!("lost-{at}"));
        let (agent, proxy) = agent(&bench, Fault::LoseAnswer, at).await;
        let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
        assert!(proxy.is_injected());
        settled(&bench, &pod, &answer).await;
    }
}

/// So many answers are lost that the request fails: the next one finishes what it began.
#[tokio::test(flavor = "multi_thread")]
async fn all_answers_are_lost_for_a_while() {
    let bench = bench("silence", 47).await;
    let pod = pod(&bench, "silence");
    let (agent, proxy) = agent(&bench, Fault::LoseAnswers, 1).await;
    support::outage(&agent, &pod.add("eth0", "c1"), "API server unreachable").await;
    let before = held(&bench, &pod);
    assert_eq!(before.len(), WANTED, "the server has taken all of them");
    proxy.restore();
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&answer), before);
    settled(&bench, &pod, &answer).await;
    agent.stop().unwrap();

    // The same, but the pod is gone before it is asked for again.
    let gone = self::pod(&bench, "gone");
    let (agent, proxy) = self::agent(&bench, Fault::LoseAnswers, 1).await;
    support::outage(&agent, &gone.add("eth0", "c1"), "API server unreachable").await;
    proxy.restore();
    bench.delete_pod(&gone);
    for nic in ["net1", "eth0"] {
        agent.ask(Method::DELETE, path::IP, &gone.del(nic, "c1")).await.unwrap().ok().unwrap();
    }
    assert!(held(&bench, &gone).is_empty());
}

/// The last answer is certain, but it covers the last attempt alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_lost_and_the_next_attempt_refused() {
    let bench = bench("refused", 48).await;
    let pod = bench.pod_with_pool("refused", "n1", "a4");
    let (agent, proxy) = agent(&bench, Fault::LoseAnswerThenRefuse, 1).await;
    support::failure(&agent, &pod.add("eth0", "c1"), "refused by the test").await;
    let before = held(&bench, &pod);
    assert_eq!(before.len(), 1, "the server has taken it");
    // The repetition is refused too, but whose the address is can be read.
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&answer), before);
    agent.stop().unwrap();
    drop(proxy);

    // The pod is gone before it is asked for again.
    let gone = bench.pod_with_pool("gone", "n1", "a4");
    let (agent, proxy) = self::agent(&bench, Fault::LoseAnswerThenRefuse, 1).await;
    support::failure(&agent, &gone.add("eth0", "c1"), "refused by the test").await;
    proxy.restore();
    bench.delete_pod(&gone);
    agent.ask(Method::DELETE, path::IP, &gone.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert!(held(&bench, &gone).is_empty());
}

/// The name is taken, but by whom cannot be read: it may be by the first attempt.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_lost_and_the_address_cannot_be_read() {
    let bench = bench("unseen", 53).await;
    let gone = bench.pod_with_pool("gone", "n1", "a4");
    let (agent, proxy) = agent(&bench, Fault::LoseAnswerThenSight, 1).await;
    support::outage(&agent, &gone.add("eth0", "c1"), "API server unreachable").await;
    assert_eq!(held(&bench, &gone).len(), 1, "the server has taken it");
    proxy.restore();
    bench.delete_pod(&gone);
    agent.ask(Method::DELETE, path::IP, &gone.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert!(held(&bench, &gone).is_empty());
}

/// The runtime executes DEL after an ADD that failed, and ADD again: the pod lives, and gets what it may have got.
#[tokio::test(flavor = "multi_thread")]
async fn a_del_of_a_living_pod_leaves_an_unknown_outcome_to_the_next_add() {
    let bench = bench("living", 58).await;
    let pod = bench.pod_with_pool("living", "n1", "a4");
    let (agent, proxy) = agent(&bench, Fault::LoseAnswerThenSight, 1).await;
    support::outage(&agent, &pod.add("eth0", "c1"), "API server unreachable").await;
    let before = held(&bench, &pod);
    assert_eq!(before.len(), 1, "the server has taken it");
    // Nobody can say yet whose the address is, and nobody has to.
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    proxy.restore();
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c2")).await.unwrap().ok().unwrap();
    assert_eq!((addresses(&answer), held(&bench, &pod)), (before.clone(), before));
}

/// The agent does not know whether the pod holds an address, and no DEL names the pod.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_may_hold_goes_with_it() {
    let bench = bench("perhaps", 54).await;
    let pod = bench.pod_with_pool("perhaps", "n1", "a4");
    let (agent, proxy) = agent(&bench, Fault::LoseAnswerThenRefuse, 1).await;
    support::failure(&agent, &pod.add("eth0", "c1"), "refused by the test").await;
    assert_eq!(held(&bench, &pod).len(), 1, "the server has taken it");
    proxy.restore();
    bench.delete_pod(&pod);
    let mut nameless = pod.del("eth0", "c1");
    nameless["podUID"] = json!("");
    agent.ask(Method::DELETE, path::IP, &nameless).await.unwrap().ok().unwrap();
    bench.until("nothing left", async || held(&bench, &pod).is_empty()).await;
}

/// Its kubelet learns of it last, and then executes DEL.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_deleted_by_force_keeps_its_address_until_del() {
    let bench = bench("force", 57).await;
    let forced = bench.pod_with_grace("forced", "n1", "a4", 600);
    let gone = bench.pod_with_pool("gone", "n1", "a4");
    let agent = bench.agent("n1").await;
    for pod in [&forced, &gone] {
        agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
        bench.endpoint(pod).await;
    }
    bench.force_delete_pod(&forced);
    bench.delete_pod(&gone);
    // Pods are compared in the order of their names: the other one has had its turn.
    bench.until("the pod that is gone is freed", async || held(&bench, &gone).is_empty()).await;
    assert_eq!(held(&bench, &forced).len(), 1);
    agent.ask(Method::DELETE, path::IP, &forced.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert!(held(&bench, &forced).is_empty());
    agent.stop().unwrap();
}

/// A start frees nothing of a pod whose containers still have their grace period.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_leaves_a_terminating_pod_its_addresses() {
    let bench = bench("grace", 49).await;
    let pod = bench.pod_with_pool("ending", "n1", "a4");
    let gone = bench.pod_with_pool("gone", "n1", "a4");
    let agent = bench.agent("n1").await;
    for pod in [&pod, &gone] {
        agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
        bench.endpoint(pod).await;
    }
    agent.stop().unwrap();
    bench.terminate_pod(&pod);
    bench.delete_pod(&gone);

    let agent = bench.agent("n1").await;
    bench.until("the pod that is gone is freed", async || held(&bench, &gone).is_empty()).await;
    // Pods are compared in the order of their names: the other one has had its turn.
    assert_eq!(held(&bench, &pod).len(), 1);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert!(held(&bench, &pod).is_empty());
}

/// No DEL comes, or one for another sandbox: what is left goes when the pod does.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_del_has_freed_goes_with_the_pod() {
    let bench = bench("sweep", 50).await;
    let (silent, half) = (pod(&bench, "silent"), pod(&bench, "half"));
    let agent = bench.agent("n1").await;
    for pod in [&silent, &half] {
        agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    }
    bench.terminate_pod(&half);
    agent.ask(Method::DELETE, path::IP, &half.del("eth0", "c1")).await.unwrap().ok().unwrap();
    assert_eq!(held(&bench, &half).len(), 1, "net1 is still up");
    agent.ask(Method::DELETE, path::IP, &half.del("net1", "newer")).await.unwrap().ok().unwrap();
    assert_eq!(held(&bench, &half).len(), 1, "net1 is another sandbox's");
    for pod in [&silent, &half] {
        bench.delete_pod(pod);
        bench
            .until("nothing left", async || {
                held(&bench, pod).is_empty() && bench.find_endpoint(pod).is_none()
            })
            .await;
    }
}

/// The API server refuses the deletion and takes it later; the runtime does not ask again.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_failed_is_tried_again() {
    let bench = bench("again", 51).await;
    let pod = bench.pod_with_pool("again", "n1", "a4");
    let agent = bench.agent("n1").await;
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    bench.endpoint(&pod).await;
    agent.stop().unwrap();
    let (agent, proxy) = self::agent(&bench, Fault::Refuse, 1).await;
    bench.delete_pod(&pod);
    let refused = agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap();
    assert!(refused.failure().contains("refused by the test"), "{refused:?}");
    assert_eq!(held(&bench, &pod).len(), 1);
    proxy.restore();
    bench.until("nothing left", async || held(&bench, &pod).is_empty()).await;
}

/// The endpoint of a newer pod of the same name, which runs on another node, is not this agent's to replace.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_endpoint_leaves_that_of_a_newer_pod_alone() {
    let bench = bench("newer", 52).await;
    let old = bench.pod_with_pool("web", "n1", "a4");
    let (agent, proxy) = agent(&bench, Fault::Refuse, 2).await;
    agent.ask(Method::POST, path::IP, &old.add("eth0", "c1")).await.unwrap().ok().unwrap();
    bench.until("the endpoint is refused", async || proxy.is_injected()).await;
    bench.delete_pod(&old);
    let new = bench.pod_with_pool("web", "n2", "a4");
    let other = bench.agent("n2").await;
    other.ask(Method::POST, path::IP, &new.add("eth0", "c2")).await.unwrap().ok().unwrap();
    let uid = |endpoint: Value| endpoint["metadata"]["uid"].clone();
    let before = uid(bench.endpoint(&new).await);
    proxy.restore();
    bench.until("the old pod is freed", async || held(&bench, &old).is_empty()).await;
    assert_eq!(uid(bench.endpoint(&new).await), before);
}

/// Two attempts that broke off left two addresses; one of them is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_surplus_address_is_freed_after_the_next_add() {
    let bench = bench("surplus", 46).await;
    let pod = pod(&bench, "surplus");
    let taken = ["10.46.0.7", "10.46.0.8"];
    for address in taken {
        bench.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress",
            "metadata": {"name": address, "labels": {
                "ipam.spidernet.io/node": bench.name("n1"), "ipam.spidernet.io/pod-uid": pod.uid,
                "ipam.spidernet.io/ippool": bench.name("a4"),
            }},
            "spec": {
                "address": format!("{address}/24"), "pool": bench.name("a4"), "node": bench.name("n1"),
                "interface": "eth0", "podNamespace": pod.namespace, "podName": pod.name, "podUID": pod.uid,
            },
        }));
    }
    let agent = bench.agent("n1").await;
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    let kept = taken.iter().filter(|address| addresses(&answer).contains(&format!("{address}/24")));
    assert_eq!(kept.count(), 1);
    settled(&bench, &pod, &answer).await;
}

/// Whoever asked goes away while the server is being written to: what was begun is finished and known.
#[tokio::test(flavor = "multi_thread")]
async fn the_caller_goes_away() {
    let bench = bench("gone", 45).await;
    let agent = bench.agent("n1").await;
    for patience_us in [0, 100, 500, 1000, 2000, 4000, 8000, 16000] {
        let pod = pod(&bench, &format!("gone-{patience_us}"));
        let patience = std::time::Duration::from_micros(patience_us);
        // Breaking off is the point, whether or not an answer came first.
        drop(tokio::time::timeout(patience, agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1"))).await);
        let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
        settled(&bench, &pod, &answer).await;
    }
}
