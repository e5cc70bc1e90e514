//! Watches break, expire or fall silent: afterwards agents and controllers see again what there is.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use anyhow::ensure;
use http::Method;
use serde_json::json;
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::outage::{Outage, Trouble};
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use spiderpool_tests::{long_form, poll};
use support::Bench;

/// The longest pause before a watch that has failed again and again is tried once more, and what follows.
const RECOVERY: Duration = Duration::from_secs(90);
/// A watch that delivers nothing is given up after 295 seconds, a request without an answer after 300.
const SILENCE: Duration = Duration::from_mins(6);
/// Watches of an agent, whatever its configuration.
const WATCHES: usize = 6;
const TROUBLES: [Trouble; 3] = [Trouble::BreakWatches, Trouble::ExpireWatches, Trouble::GoneWatches];

async fn agent(bench: &Bench<'_>, node: &str) -> (StandaloneAgent, Outage) {
    let outage = Outage::start(&bench.identity(node)).await.unwrap();
    let kubeconfig = outage.kubeconfig(&bench.folder(node)).unwrap();
    let agent = bench.agent_by(node, kubeconfig).await;
    // From now on every request of a watch is one that was begun anew.
    until_requested(&outage, 0, WATCHES, RECOVERY).await;
    (agent, outage)
}

async fn controller(bench: &Bench<'_>) -> (StandaloneController, Outage) {
    let (plane, folder) = (ControlPlane::shared(), bench.folder("controllers"));
    // Nothing but watches tells it what to do.
    let environment = [("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "3600")];
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &environment };
    let identity = StandaloneController::identity(plane, "a").unwrap();
    let outage = Outage::start(&identity).await.unwrap();
    let kubeconfig = outage.kubeconfig(&folder).unwrap();
    let controller = StandaloneController::start_by(plane, start, &kubeconfig, &json!({})).await.unwrap();
    bench.until("it leads", async || controller.leads().await.unwrap_or_default()).await;
    (controller, outage)
}

async fn readiness(controller: &StandaloneController) -> bool {
    controller.probe("/v1/runtime/readiness").await.unwrap().0.is_success()
}

/// Waits until so many watches were requested since `before`.
async fn until_requested(outage: &Outage, before: usize, number: usize, limit: Duration) {
    poll::until_async("watches are requested again", limit, async || {
        let requested = outage.watches() - before;
        ensure!(requested >= number, "{requested} of {number}");
        Ok(())
    })
    .await
    .unwrap();
}

/// What happens while nobody is told: a pool is made, and a pod ends whose DEL never comes. Both must be noticed after `end`.
async fn miss_and_notice(
    bench: &Bench<'_>,
    (agent, node): (&StandaloneAgent, &str),
    number: usize,
    end: impl AsyncFnOnce(),
) {
    let (missed, new) = (format!("missed-{number}"), format!("new-{number}"));
    let gone = bench.pod_with_pool(&missed, node, "p");
    agent.ask(Method::POST, path::IP, &gone.add("eth0", "c1")).await.unwrap().ok().unwrap();
    bench.endpoint(&gone).await;
    bench.delete_pod(&gone);
    bench.pool(&new, &format!("10.76.{number}.0/24"), &[&format!("10.76.{number}.9")], &json!({}));
    let served = bench.pod_with_watched_pool(&new, node, &new);
    end().await;
    let add = served.add("eth0", "c1");
    let given = poll::until_async("the new pool serves", RECOVERY, async || {
        agent.ask(Method::POST, path::IP, &add).await?.ok()
    });
    given.await.unwrap();
    // A leader may free the address, too.
    let noticed = poll::until_async("the end of the pod is noticed", RECOVERY, async || {
        let log = agent.log()?;
        let mut swept = log.lines().filter(|line| line.contains("does not use what it held any more"));
        ensure!(swept.any(|line| line.contains(&missed)), "{missed} is not swept");
        ensure!(bench.held(&gone).is_empty(), "{missed} holds an address");
        Ok(())
    });
    noticed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_what_its_watches_have_missed() {
    let bench = Bench::new("watched").await;
    bench.pool("p", "10.75.0.0/24", &["10.75.0.2-10.75.0.9"], &json!({}));
    let (agent, outage) = agent(&bench, "n1").await;
    for (number, trouble) in TROUBLES.into_iter().enumerate() {
        let before = outage.watches();
        outage.set(trouble);
        let end = async || {
            // Each of its watches has tried again meanwhile.
            until_requested(&outage, before, WATCHES, RECOVERY).await;
            outage.set(Trouble::None);
        };
        miss_and_notice(&bench, (&agent, "n1"), number, end).await;
    }
    bench
        .until("it is ready again", async || {
            agent.probe("/v1/runtime/readiness").await.unwrap().0.is_success()
        })
        .await;
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_sees_what_its_watches_have_missed() {
    let bench = Bench::new("led").await;
    bench.pool("p", "10.77.0.0/24", &["10.77.0.2-10.77.0.9"], &json!({}));
    bench.node("n1", true);
    let (controller, outage) = controller(&bench).await;
    bench.until("all it watches is listed", async || readiness(&controller).await).await;
    for (number, trouble) in TROUBLES.into_iter().enumerate() {
        let agent = bench.agent("n1").await;
        let pod = bench.pod_with_pool(&format!("gone-{number}"), "n1", "p");
        agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
        bench.endpoint(&pod).await;
        // Nobody else frees it.
        agent.kill().unwrap();
        let before = outage.watches();
        outage.set(trouble);
        until_requested(&outage, before, 8, RECOVERY).await;
        bench.delete_pod(&pod);
        assert_eq!(bench.held(&pod).len(), 1);
        outage.set(Trouble::None);
        let freed = poll::until_async("the address is free", RECOVERY, async || {
            ensure!(bench.held(&pod).is_empty(), "it is held");
            Ok(())
        });
        freed.await.unwrap();
    }
    controller.stop().unwrap();
}

/// Nothing but time tells that such a watch is dead: whatever is between may keep its connection open.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_falls_silent_or_is_never_answered_is_given_up() {
    if !long_form::asked_for_or_skip("a_watch_that_falls_silent_or_is_never_answered_is_given_up") {
        return;
    }
    let bench = Bench::new("silent").await;
    bench.pool("p", "10.78.0.0/24", &["10.78.0.2-10.78.0.9"], &json!({}));
    let give_up = async |node: &str, trouble: Trouble, number: usize| {
        let (agent, outage) = agent(&bench, node).await;
        let before = outage.watches();
        outage.set(trouble);
        if trouble == Trouble::IgnoreWatches {
            // The watches that are to get no answer.
            until_requested(&outage, before, WATCHES, RECOVERY).await;
        }
        let before = outage.watches();
        let given_up = async || {
            until_requested(&outage, before, WATCHES, SILENCE).await;
            outage.set(Trouble::None);
        };
        miss_and_notice(&bench, (&agent, node), number, given_up).await;
        agent.stop().unwrap();
    };
    tokio::join!(give_up("n1", Trouble::SilenceWatches, 8), give_up("n2", Trouble::IgnoreWatches, 9));
}
