//! The controller against a real API server: who leads, what it shows of pools, what it frees and what it never frees.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_api::node_lease;
use spiderpool_tests::control_plane::{ControlPlane, Kind, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{
    Bench, LIMIT, TestPod, addresses, at_once, failure, limit_of_files, lower_limit_of_files, messages,
};

/// The addresses of a deleted pod must be free after this time.
const FREED: Duration = Duration::from_secs(30);

/// Short terms, so that nobody waits long for a killed leader.
const TERMS: [(&str, &str); 3] = [
    ("SPIDERPOOL_LEADER_DURATION", "3"),
    ("SPIDERPOOL_LEADER_RENEW_DEADLINE", "2"),
    ("SPIDERPOOL_LEADER_RETRY_PERIOD", "1"),
];

/// A controller of the test's own namespace.
async fn controller(bench: &Bench<'_>, name: &str, environment: &[(&str, &str)]) -> StandaloneController {
    controller_on(ControlPlane::shared(), bench, name, environment).await
}

async fn controller_on(
    plane: &ControlPlane,
    bench: &Bench<'_>,
    name: &str,
    environment: &[(&str, &str)],
) -> StandaloneController {
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name, environment };
    StandaloneController::start(plane, start).await.unwrap()
}

const POOL: Kind = Kind::spiderpool("SpiderIPPool");
const SUBNET: Kind = Kind::spiderpool("SpiderSubnet");
const USAGE: Kind = Kind::spiderpool("SpiderIPPoolUsage");
const ADDRESS: Kind = Kind::spiderpool("SpiderIPAddress");

fn object(kind: Kind, name: &str) -> Option<Value> {
    ControlPlane::shared().find(kind, "", name).unwrap()
}

/// What Events of this reason say of the pod.
fn notes(pod: &TestPod, reason: &str) -> String {
    let of_pod = format!("involvedObject.uid={},reason={reason}", pod.uid);
    messages(&ControlPlane::shared().events(&pod.namespace, &of_pod).unwrap()).join(" ")
}

async fn add(agent: &StandaloneAgent, pod: &TestPod) -> Value {
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap()
}

/// Polls with the deadline of a deleted pod.
async fn soon(what: &str, check: impl AsyncFn() -> bool) {
    poll::until_async(what, FREED, async || {
        anyhow::ensure!(check().await, "not so");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_and_another_takes_over() {
    let bench = Bench::new("election").await;
    let first = controller(&bench, "first", &TERMS).await;
    let second = controller(&bench, "second", &TERMS).await;
    assert!(first.leads().await.unwrap() && !second.leads().await.unwrap());
    first.kill().unwrap();
    bench.until("the other one leads", async || second.leads().await.unwrap()).await;

    // A leader that ends on SIGTERM deletes its Lease.
    let third = controller(&bench, "third", &[]).await;
    second.stop().unwrap();
    bench.until("the third one leads", async || third.leads().await.unwrap()).await;
    third.stop().unwrap();
    let leases = ControlPlane::shared().kubectl(&["get", "leases", "-n", bench.namespace(), "-o", "name"]);
    assert_eq!(leases.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_loses_its_lease_stops_and_leads_again_when_it_expires() {
    let bench = Bench::new("deposed").await;
    let one = controller(&bench, "one", &TERMS).await;
    let lease = json!({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 3}}).to_string();
    let namespace = bench.namespace().to_owned();
    let depose =
        ["patch", "lease", "-n", &namespace, "spiderpool-controller-leases", "--type=merge", "-p", &lease];
    ControlPlane::shared().kubectl(&depose).unwrap();
    bench.until("it has stopped", async || !one.leads().await.unwrap()).await;
    bench.until("the other's Lease expires, it leads again", async || one.leads().await.unwrap()).await;
    bench
        .until("and is ready", async || one.probe("/v1/runtime/readiness").await.unwrap().0.is_success())
        .await;
    one.stop().unwrap();
}

/// Clocks of two machines do not compare, and one that is set jumps.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_counts_from_when_it_was_seen_renewed_whatever_time_it_names() {
    let bench = Bench::new("clocks").await;
    let renew = |time: &str| {
        bench.apply(&json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": bench.namespace(), "name": "spiderpool-controller-leases"},
            "spec": {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": time},
        }));
    };
    renew("2001-01-01T00:00:00.000000Z");
    let one = controller(&bench, "one", &TERMS).await;
    let mut renewals = 0;
    let lives = async || {
        renewals += 1;
        renew(&format!("2001-01-01T00:00:00.{renewals:06}Z"));
        anyhow::ensure!(!one.leads().await?, "it leads, too");
        Ok(())
    };
    poll::holds_async("a holder whose clock is behind leads", Duration::from_secs(8), lives).await.unwrap();
    renew("2099-01-01T00:00:00.000000Z");
    let has_its_time = async || {
        anyhow::ensure!(!one.leads().await?, "it leads, too");
        Ok(())
    };
    let holds =
        poll::holds_async("one whose clock is ahead has its time", Duration::from_secs(8), has_its_time);
    holds.await.unwrap();
    bench.until("and no more", async || one.leads().await.unwrap()).await;
    one.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_bitmaps_are_right_after_a_hundred_addresses() {
    let bench = Bench::new("views").await;
    bench.pool("p", "10.40.0.0/16", &["10.40.0.2-10.40.3.255"], &json!({}));
    let begun = Instant::now();
    let controller = controller(&bench, "a", &[]).await;
    let agent = bench.agent("n1").await;
    let annotations = bench.pool_annotation("p");
    let pods = (0..100).map(|number| bench.pod_object(&format!("p{number}"), "n1", &annotations)).collect();
    let pods = bench.create_pods(pods).await;
    let answers = join_all(pods.iter().map(|pod| add(&agent, pod))).await;

    let mut expected = BTreeMap::new();
    for (pod, answer) in pods.iter().zip(&answers) {
        for address in addresses(answer) {
            let record = format!(r#"{{"pod":"{}/{}","podUid":"{}"}}"#, pod.namespace, pod.name, pod.uid);
            expected.insert(address.split('/').next().unwrap().to_owned(), record);
        }
    }
    let records: Vec<_> = expected.iter().map(|(ip, record)| format!("{ip:?}:{record}")).collect();
    let text = format!("{{{}}}", records.join(","));
    let name = bench.name("p");
    // Pools of other tests have their turns too.
    bench
        .until("the status names them all", async || {
            let mut status = object(POOL, &name).unwrap()["status"].clone();
            status.as_object_mut().map(|status| status.remove("conditions"));
            status == json!({"allocatedIPs": text, "allocatedIPCount": 100, "totalIPCount": 1022})
        })
        .await;
    assert_eq!(object(POOL, &name).unwrap()["spec"]["ipVersion"], json!(4));
    let block = format!("{name}.10.40.0.0");
    soon("the bitmap too", async || {
        object(USAGE, &block).is_some_and(|usage| usage["spec"]["inUse"] == json!(100))
    })
    .await;
    let writes = controller.metric("spiderpool_controller_pool_status_writes_total").await.unwrap();
    assert!(
        writes <= 2.0 * begun.elapsed().as_secs_f64() + 1.0,
        "more than two a second, of all pools: {writes}"
    );

    // Without addresses in use there are neither records nor bitmaps.
    for pod in &pods {
        bench.delete_pod(pod);
    }
    bench
        .until("nothing is in use", async || {
            let mut status = object(POOL, &name).unwrap()["status"].clone();
            status.as_object_mut().map(|status| status.remove("conditions"));
            status == json!({"allocatedIPCount": 0, "totalIPCount": 1022}) && object(USAGE, &block).is_none()
        })
        .await;
    agent.stop().unwrap();
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_deleted_pod_are_freed_without_its_agent() {
    let bench = Bench::new("dead-agent").await;
    bench.pool("p", "10.41.0.0/24", &["10.41.0.2-10.41.0.9"], &json!({}));
    let (gone, stays) = (bench.pod_with_pool("gone", "n1", "p"), bench.pod_with_pool("stays", "n1", "p"));
    let controller = controller(&bench, "a", &[]).await;
    let agent = bench.agent("n1").await;
    for pod in [&gone, &stays] {
        add(&agent, pod).await;
        bench.endpoint(pod).await;
    }
    agent.kill().unwrap();
    bench.delete_pod(&gone);
    soon("the address is free", async || bench.held(&gone).is_empty()).await;
    soon("the endpoint is gone", async || bench.find_endpoint(&gone).is_none()).await;
    // Another one of the same name is another one.
    let again = bench.pod_with_pool("gone", "n1", "p");
    let agent = bench.agent("n1").await;
    add(&agent, &again).await;
    agent.kill().unwrap();
    bench.end_pod(&again);
    bench.until("an evicted pod's address is free", async || bench.held(&again).is_empty()).await;
    assert_eq!(bench.held(&stays).len(), 1);
    assert!(bench.find_endpoint(&stays).is_some());
    controller.stop().unwrap();
}

/// Its kubelet learns of it last and grants it its grace period all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_force_deleted_pod_keeps_its_address_while_its_node_may_run_it() {
    let bench = Bench::new("force").await;
    bench.pool("p", "10.49.0.0/24", &["10.49.0.2-10.49.0.9"], &json!({}));
    bench.node("n1", true);
    let forced = bench.pod_with_grace("forced", "n1", "p", 600);
    let gone = bench.pod_with_pool("gone", "n1", "p");
    let controller = controller(&bench, "a", &[]).await;
    let agent = bench.agent("n1").await;
    for pod in [&forced, &gone] {
        add(&agent, pod).await;
        bench.endpoint(pod).await;
    }
    agent.kill().unwrap();
    bench.force_delete_pod(&forced);
    bench.delete_pod(&gone);
    bench.until("the other one's address is free", async || bench.held(&gone).is_empty()).await;
    assert_eq!(bench.held(&forced).len(), 1);
    // Somebody has made sure that nothing runs there.
    bench.node("n1", false);
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    ControlPlane::shared().kubectl(&["taint", "node", &bench.name("n1"), taint]).unwrap();
    soon("the address is free", async || bench.held(&forced).is_empty()).await;
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_frees_addresses_of_pods_deleted_before_its_election() {
    let bench = Bench::new("interregnum").await;
    bench.pool("p", "10.42.0.0/24", &["10.42.0.2-10.42.0.9"], &json!({}));
    let (old, stays) = (bench.pod_with_pool("old", "n1", "p"), bench.pod_with_pool("stays", "n1", "p"));
    let agent = bench.agent("n1").await;
    for pod in [&old, &stays] {
        add(&agent, pod).await;
    }
    agent.kill().unwrap();
    bench.delete_pod(&old);
    let replaced = bench.pod_with_pool("old", "n1", "p");
    let controller = controller(&bench, "a", &[]).await;
    soon("the replaced pod's address is free", async || bench.held(&old).is_empty()).await;
    assert!(bench.held(&replaced).is_empty());
    assert_eq!(bench.held(&stays).len(), 1);
    controller.stop().unwrap();
}

/// G00001. No test runs the namespace controller of Kubernetes: the test does what it does, which is to delete all kinds of objects
/// in any order. Meanwhile nothing can be created in the namespace.
#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_of_a_deleted_namespace_are_free() {
    let (bench, doomed) = (Bench::new("home").await, Bench::new("doomed").await);
    doomed.pool("p", "10.138.0.0/24", &["10.138.0.2-10.138.0.9"], &json!({}));
    let controller = controller(&bench, "a", &[]).await;
    let (one, two) = (doomed.agent("n1").await, doomed.agent("n2").await);
    doomed.stateful_set("db", 1);
    let annotation = doomed.pool_annotation("p");
    let annotations = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let stateful = doomed.pod_of_stateful_set("db", 0, "n1", &annotations);
    let bare = doomed.pod_with_pool("bare", "n1", "p");
    let unattended = doomed.pod_with_pool("unattended", "n2", "p");
    for (agent, pod) in [(&one, &stateful), (&one, &bare), (&two, &unattended)] {
        add(agent, pod).await;
        doomed.endpoint(pod).await;
    }
    two.kill().unwrap();
    let plane = ControlPlane::shared();
    let namespace = doomed.namespace();
    plane.kubectl(&["delete", "namespace", namespace, "--wait=false"]).unwrap();
    for kind in ["spiderendpoints", "statefulsets"] {
        plane.kubectl(&["delete", kind, "-n", namespace, "--all", "--wait=false"]).unwrap();
    }
    let pods = [&stateful, &bare, &unattended];
    // Their pods still run.
    assert!(pods.iter().all(|pod| doomed.held(pod).len() == 1 && doomed.find_endpoint(pod).is_some()));
    for pod in pods {
        doomed.delete_pod(pod);
    }
    for pod in [&stateful, &bare] {
        one.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    }
    for pod in pods {
        let what = format!("nothing of {} is left", pod.name);
        soon(&what, async || doomed.held(pod).is_empty() && doomed.find_endpoint(pod).is_none()).await;
    }
    let name = doomed.name("p");
    soon("the pool says so", async || object(POOL, &name).unwrap()["status"]["allocatedIPCount"] == json!(0))
        .await;
    let mut ended = plane.find(Kind("v1", "Namespace"), "", namespace).unwrap().unwrap();
    ended["spec"]["finalizers"] = json!([]);
    let finalize = format!("/api/v1/namespaces/{namespace}/finalize");
    plane.kubectl_with_input(&["replace", "--raw", &finalize, "-f", "-"], &ended.to_string()).unwrap();
    assert_eq!(plane.find(Kind("v1", "Namespace"), "", namespace).unwrap(), None);
    one.stop().unwrap();
    controller.stop().unwrap();
}

/// G00005 and G00007: records that are false, in the status and as the object that records are made of.
#[tokio::test(flavor = "multi_thread")]
async fn false_records_of_a_running_pod_go_and_the_true_one_stays() {
    let bench = Bench::new("false").await;
    bench.pool("p", "10.137.0.0/24", &["10.137.0.2-10.137.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let ip = addresses(&add(&agent, &pod).await).pop_first().unwrap();
    let ip = ip.split('/').next().unwrap();
    let endpoint = bench.endpoint(&pod).await;
    let controller = controller(&bench, "a", &[("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "1")]).await;
    let (name, namespaced) = (bench.name("p"), format!("{}/{}", pod.namespace, pod.name));
    let record = |pod: &str, uid: &str| json!({"pod": pod, "podUid": uid});
    let right = json!({(ip): record(&namespaced, &pod.uid)});
    let is_right = async || {
        let status = object(POOL, &name).unwrap()["status"].clone();
        let records = serde_json::from_str::<Value>(status["allocatedIPs"].as_str().unwrap_or("{}")).unwrap();
        records == right && status["allocatedIPCount"] == json!(1)
    };
    soon("the status names the pod", &is_right).await;
    let other = if ip == "10.137.0.9" { "10.137.0.8" } else { "10.137.0.9" };
    for (at, false_record) in
        [("10.137.9.9", record(&pod.name, &pod.uid)), (other, record(&namespaced, "another"))]
    {
        let mut records = right.clone();
        records[at] = false_record;
        let status = json!({"allocatedIPs": records.to_string(), "allocatedIPCount": 2});
        ControlPlane::shared().patch_status(POOL, "", &name, &status).unwrap();
        soon("the false record is gone", &is_right).await;
    }
    let mut spec = object(ADDRESS, ip).unwrap()["spec"].clone();
    (spec["address"], spec["podUID"]) = (json!(format!("{other}/24")), json!("another"));
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress",
        "metadata": {"name": other, "labels": {"ipam.spidernet.io/ippool": name}}, "spec": spec,
    }));
    soon("the false object is gone", async || object(ADDRESS, other).is_none()).await;
    soon("the status is right again", &is_right).await;
    assert_eq!(bench.held(&pod).len(), 1);
    assert_eq!(bench.endpoint(&pod).await["status"], endpoint["status"]);
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// On a ready node the kubelet is still stopping it, also after its grace period. On one that is not, its agent may say
/// that the pod runs: the kubelet may have died alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_pod_keeps_its_address_while_its_node_or_its_agent_lives() {
    let bench = Bench::new("grace").await;
    bench.pool("p", "10.43.0.0/24", &["10.43.0.2-10.43.0.9"], &json!({}));
    bench.node("n1", true);
    let (silent, lives) = (bench.pod_with_pool("silent", "n1", "p"), bench.pod_with_pool("lives", "n1", "p"));
    let controller = controller(&bench, "a", &[]).await;
    let agent = bench.agent("n1").await;
    for pod in [&silent, &lives] {
        add(&agent, pod).await;
    }
    agent.kill().unwrap();
    bench.terminate_pod_in(&silent, 1);
    bench.terminate_pod_in(&lives, 1);
    let terminated = Instant::now();
    bench.until("the grace period is over", async || terminated.elapsed() > Duration::from_secs(3)).await;
    assert_eq!((bench.held(&silent).len(), bench.held(&lives).len()), (1, 1), "the node is ready");

    bench.node("n1", false);
    let node = object(Kind("v1", "Node"), &bench.name("n1")).unwrap()["metadata"]["uid"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut renewals = 0;
    poll::until_async("the pod of which nothing is heard is given up", Duration::from_secs(90), async || {
        let running = [lives.uid.parse().unwrap()].into();
        let name = bench.name("n1").parse().unwrap();
        let renewed = Timestamp::from_second(renewals).unwrap();
        let mut lease = serde_json::to_value(node_lease::lease(&name, &node, &running, renewed)).unwrap();
        lease["metadata"]["namespace"] = json!(bench.namespace());
        bench.apply(&lease);
        renewals += 1;
        anyhow::ensure!(bench.held(&silent).is_empty(), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(bench.held(&lives).len(), 1, "its agent says that it runs");
    let plane = ControlPlane::shared();
    plane.kubectl(&["delete", "node", &bench.name("n1")]).unwrap();
    let lease = node_lease::name(&bench.name("n1").parse().unwrap());
    plane.kubectl(&["delete", "lease", "-n", bench.namespace(), &lease]).unwrap();
    soon("nothing runs on a node that is gone", async || bench.held(&lives).is_empty()).await;
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_endpoint_is_written_without_the_agent() {
    let bench = Bench::new("endpoint").await;
    bench.pool("p", "10.44.0.0/24", &["10.44.0.2-10.44.0.9"], &json!({"gateway": "10.44.0.1"}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    add(&agent, &pod).await;
    let written = bench.endpoint(&pod).await;
    agent.kill().unwrap();
    let delete = r#"{"metadata": {"finalizers": null}}"#;
    let plane = ControlPlane::shared();
    plane
        .kubectl(&["patch", "spiderendpoint", "-n", &pod.namespace, &pod.name, "--type=merge", "-p", delete])
        .unwrap();
    plane.kubectl(&["delete", "spiderendpoint", "-n", &pod.namespace, &pod.name]).unwrap();
    let controller = controller(&bench, "a", &[]).await;
    let again = bench.endpoint(&pod).await;
    assert_eq!(again["status"], written["status"]);
    for field in ["finalizers", "ownerReferences"] {
        assert_eq!(again["metadata"][field], written["metadata"][field]);
    }
    controller.stop().unwrap();
}

/// By hand, or because etcd was restored from an older snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_address_object_of_a_running_pod_is_written_again() {
    let bench = Bench::new("lost").await;
    bench.pool("p", "10.48.0.0/24", &["10.48.0.2-10.48.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let answer = add(&agent, &pod).await;
    let ip = addresses(&answer).first().unwrap().split('/').next().unwrap().to_owned();
    let before = bench.endpoint(&pod).await;
    let controller = controller(&bench, "a", &[]).await;
    let plane = ControlPlane::shared();
    let spec = || object(ADDRESS, &ip).map(|found| found["spec"].clone());
    let held = spec().unwrap();
    plane.kubectl(&["delete", "spideripaddress", &ip]).unwrap();
    bench.until("it is written again", async || spec().is_some()).await;
    let again = spec().unwrap();
    for field in
        ["address", "pool", "node", "interface", "podNamespace", "podName", "podUID", "ownerKind", "state"]
    {
        assert_eq!(again[field], held[field], "{field}");
    }
    // By whichever controller that sees this control plane.
    bench.until("an Event says so", async || !notes(&pod, "AddressRestored").is_empty()).await;

    // Another pod was faster.
    let other = bench.pod_with_pool("other", "n1", "p");
    plane.kubectl(&["delete", "spideripaddress", &ip]).unwrap();
    let mut theirs = again.clone();
    (theirs["podName"], theirs["podUID"]) = (json!(other.name), json!(other.uid));
    let theirs = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress", "metadata": {"name": ip},
        "spec": theirs,
    });
    plane.apply(&theirs.to_string()).unwrap();
    for pod in [&pod, &other] {
        bench
            .until("an Event names both", async || {
                let note = notes(pod, "AddressConflict");
                note.contains(&pod.name) && note.contains(&other.name) && note.contains(&ip)
            })
            .await;
    }
    assert_eq!(spec().unwrap()["podUID"], json!(other.uid), "it is left to the one who has it");
    assert_eq!(bench.endpoint(&pod).await["status"], before["status"]);
    agent.kill().unwrap();
    controller.stop().unwrap();
}

/// After the last restart of its pod an address belongs to nobody: its endpoint must not bring it back.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_deleted_pod_are_not_written_again() {
    let bench = Bench::new("notlost").await;
    bench.pool("p", "10.129.0.0/24", &["10.129.0.2-10.129.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    add(&agent, &pod).await;
    bench.endpoint(&pod).await;
    let controller = controller(&bench, "a", &[]).await;
    bench.delete_pod(&pod);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
    bench.until("free", async || bench.held(&pod).is_empty() && bench.find_endpoint(&pod).is_none()).await;
    assert_eq!(notes(&pod, "AddressRestored"), "");
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// Upstream removes it only with a switch that is off by default.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_pod_is_gone_is_removed() {
    let bench = Bench::new("orphan").await;
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderEndpoint",
        "metadata": {
            "namespace": bench.namespace(), "name": "p", "finalizers": ["spiderpool.spidernet.io"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
        },
        "status": {
            "current": {"uid": "u", "node": "n", "ips": []}, "ownerControllerType": "Pod", "ownerControllerName": "p",
        },
    }));
    let pod = TestPod { namespace: bench.namespace().to_owned(), name: "p".into(), uid: "u".into() };
    let controller = controller(&bench, "a", &[]).await;
    soon("it is gone", async || bench.find_endpoint(&pod).is_none()).await;
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_finalizer_of_a_deleted_pool_is_removed_when_no_address_is_in_use() {
    let bench = Bench::new("pool-goes").await;
    bench.pool("p", "10.45.0.0/24", &["10.45.0.2-10.45.0.9"], &json!({}));
    let name = bench.name("p");
    let plane = ControlPlane::shared();
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    add(&agent, &pod).await;
    agent.kill().unwrap();
    let controller = controller(&bench, "a", &[]).await;
    bench
        .until("the leader has added the finalizer", async || {
            object(POOL, &name).unwrap()["metadata"]["finalizers"] == json!(["spiderpool.spidernet.io"])
        })
        .await;
    plane.kubectl(&["delete", "spiderippool", &name, "--wait=false"]).unwrap();
    bench
        .until("its use is reported", async || {
            object(POOL, &name).unwrap()["status"]["allocatedIPCount"] == json!(1)
        })
        .await;
    bench.delete_pod(&pod);
    bench.until("it is gone", async || object(POOL, &name).is_none()).await;
    controller.stop().unwrap();
}

/// Its finalizer is from when they were switched on.
#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_can_be_deleted_after_subnets_were_switched_off() {
    let bench = Bench::new("retired").await;
    let (folder, namespace, plane) = (bench.folder("controllers"), bench.namespace(), ControlPlane::shared());
    let start = Start { folder: &folder, namespace, name: "a", environment: &[] };
    let on = json!({"enableSpiderSubnet": true});
    let controller = StandaloneController::start_with(plane, start, &on).await.unwrap();
    let (subnet, pool) = (bench.name("s"), bench.name("p"));
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet", "metadata": {"name": subnet},
        "spec": {"subnet": "10.131.0.0/24", "ips": ["10.131.0.10-10.131.0.20"]},
    }));
    bench.pool("p", "10.131.0.0/24", &["10.131.0.10"], &json!({}));
    let finalizers = || object(SUBNET, &subnet).unwrap()["metadata"]["finalizers"].clone();
    bench
        .until("the leader has both", async || {
            let owners = object(POOL, &pool).unwrap()["metadata"]["ownerReferences"].clone();
            owners[0]["name"] == json!(subnet) && finalizers() == json!(["spiderpool.spidernet.io"])
        })
        .await;
    controller.stop().unwrap();
    let controller = controller_on(plane, &bench, "b", &[]).await;
    for (kind, name) in [("spidersubnet", &subnet), ("spiderippool", &pool)] {
        plane.kubectl(&["delete", kind, name, "--wait=false"]).unwrap();
    }
    bench.until("the subnet is gone", async || object(SUBNET, &subnet).is_none()).await;
    bench.until("the pool is gone", async || object(POOL, &pool).is_none()).await;
    controller.stop().unwrap();
}

/// Installed over upstream, whose agents still run: who has the addresses its status alone says.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_upstreams_allocations_is_left_alone_until_it_is_marked() {
    // Controllers of other tests would take the pool for theirs before it has a status.
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "upstreams").await;
    bench.pool("p", "10.134.0.0/24", &["10.134.0.2-10.134.0.9"], &json!({}));
    let name = bench.name("p");
    let records = r#"{"10.134.0.2":{"pod":"ns1/web","podUid":"u1"}}"#;
    let status =
        json!({"status": {"allocatedIPs": records, "allocatedIPCount": 1, "totalIPCount": 8}}).to_string();
    plane
        .kubectl(&["patch", "spiderippool", &name, "--subresource=status", "--type=merge", "-p", &status])
        .unwrap();
    plane
        .kubectl(&["create", "clusterrole", "upstream", "--verb=update", "--resource=spiderippools/status"])
        .unwrap();
    let agents = format!("--serviceaccount={}:spiderpool-agent", bench.namespace());
    plane.kubectl(&["create", "clusterrolebinding", "upstream", "--clusterrole=upstream", &agents]).unwrap();
    let controller = controller_on(&plane, &bench, "a", &[]).await;
    let pool = || plane.find(POOL, "", &name).unwrap().unwrap();
    let ready = || pool()["status"]["conditions"][0].clone();
    bench.until("the condition says so", async || ready()["reason"] == json!("NotImported")).await;
    let untouched = pool();
    assert_eq!(untouched["status"]["allocatedIPs"], json!(records));
    assert!(
        untouched["metadata"].get("finalizers").is_none()
            && untouched["metadata"].get("annotations").is_none()
    );
    let field = format!("involvedObject.name={name}");
    bench
        .until("an Event says so", async || {
            plane.events("", &field).unwrap().iter().filter(|event| event["reason"] == "NotImported").count()
                == 1
        })
        .await;

    let agent = bench.agent("n1").await;
    let pod = bench.pod_with_pool("p", "n1", "p");
    let refused = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap();
    let text = format!("{:?}", refused.ok().unwrap_err());
    assert!(text.contains(&format!("IPPool {name} has addresses in use in status.allocatedIPs")), "{text}");

    // Nobody uses them any more.
    let mark = "ipam.spidernet.io/allocations=SpiderIPAddress";
    plane.kubectl(&["annotate", "spiderippool", &name, mark]).unwrap();
    bench
        .until("a pod gets an address", async || {
            agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().is_ok()
        })
        .await;
    bench.until("the pool is ready", async || ready()["status"] == json!("True")).await;

    // Upstream serves it again: its programs replace the status as a whole.
    let status =
        json!({"status": {"allocatedIPs": records, "allocatedIPCount": 1, "conditions": null}}).to_string();
    plane
        .kubectl(&["patch", "spiderippool", &name, "--subresource=status", "--type=merge", "-p", &status])
        .unwrap();
    bench.until("it is upstream's again", async || ready()["reason"] == json!("NotImported")).await;
    let is_marked = || pool()["metadata"]["annotations"].get("ipam.spidernet.io/allocations").is_some();
    assert!(!is_marked() && pool()["status"]["allocatedIPs"] == json!(records));
    agent.stop().unwrap();
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_say_which_pools_serve_nobody_and_why() {
    let bench = Bench::new("conditions").await;
    bench.pool("older", "10.130.0.0/24", &["10.130.0.1-10.130.0.9", "10.130.0.255"], &json!({}));
    bench.pool("upper", "10.130.0.0/24", &["10.130.0.9"], &json!({}));
    bench.pool("broken", "10.131.0.0/24", &["10.132.0.1"], &json!({}));
    let controller = controller(&bench, "a", &[]).await;
    let condition = |pool: &str, kind: &str| {
        let pool = object(POOL, &bench.name(pool)).unwrap();
        let conditions = pool["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == kind);
        found.map(|one| (one["status"].clone(), one["reason"].clone(), one["message"].clone()))
    };
    let is = |pool: &str, kind: &str, status: &str, reason: &str, part: &str| {
        condition(pool, kind).is_some_and(|(found, why, message)| {
            found == status && why == reason && message.as_str().unwrap().contains(part)
        })
    };
    let older = bench.name("older");
    bench
        .until("the conditions are written", async || {
            is("older", "Ready", "True", "Valid", "")
                && is(
                    "older",
                    "SpecialAddresses",
                    "True",
                    "NamedInIPs",
                    "10.130.0.255 is the broadcast address",
                )
                && is("upper", "Ready", "False", "OverlapsOlderPool", &older)
                && is("broken", "Ready", "False", "InvalidSpec", "spec.ips[0]: 10.132.0.1 is not inside of")
        })
        .await;
    ControlPlane::shared().kubectl(&["delete", "spiderippool", &older]).unwrap();
    bench.until("the other one serves", async || is("upper", "Ready", "True", "Valid", "")).await;
    controller.stop().unwrap();
}

/// I00010: nobody has refused one. They are of one second, as a rule, and then their names decide.
#[tokio::test(flavor = "multi_thread")]
async fn of_equal_pools_that_come_at_the_same_moment_one_serves() {
    const POOLS: usize = 10;
    let bench = Bench::new("equal").await;
    let controller = controller(&bench, "a", &[]).await;
    let agent = bench.agent("n1").await;
    at_once(POOLS, |number| {
        bench.pool(&format!("p{number}"), "10.139.0.0/24", &["10.139.0.2-10.139.0.9"], &json!({}));
    });
    let pool = |number: usize| object(POOL, &bench.name(&format!("p{number}"))).unwrap();
    let age = |number: &usize| {
        let meta = &pool(*number)["metadata"];
        (meta["creationTimestamp"].to_string(), meta["name"].to_string())
    };
    let oldest = (0..POOLS).min_by_key(age).unwrap();
    let winner = bench.name(&format!("p{oldest}"));
    bench
        .until_ok("the conditions say which one serves", async || {
            for number in 0..POOLS {
                let conditions = pool(number)["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let ready = conditions.iter().find(|one| one["type"] == "Ready").cloned().unwrap_or_default();
                let is_right = if number == oldest {
                    ready["status"] == "True"
                } else {
                    ready["reason"] == "OverlapsOlderPool"
                        && ready["message"].as_str().unwrap_or_default().contains(&winner)
                };
                anyhow::ensure!(is_right, "p{number}: {ready}");
            }
            Ok(())
        })
        .await;
    for number in 0..POOLS {
        let name = format!("p{number}");
        let pod = bench.pod_with_pool(&name, "n1", &name);
        if number == oldest {
            add(&agent, &pod).await;
        } else {
            let why = format!("overlaps the older IPPool {winner}");
            failure(&agent, &pod.add("eth0", "c1"), &why).await;
            assert!(bench.held(&pod).is_empty());
        }
    }
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// It has no status that could say so, and stops every new address of its family: not where other tests allocate.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_says_that_a_reserved_ip_is_invalid() {
    lower_limit_of_files();
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "invalidreserved").await;
    let controller = controller_on(&plane, &bench, "a", &[]).await;
    let (limit, hard) = limit_of_files(controller.id());
    assert_eq!(limit, hard, "the limit of open files is raised at start");
    let name = bench.name("r");
    let apply = |ips: &str| {
        bench.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderReservedIP",
            "metadata": {"name": name}, "spec": {"ips": [ips]},
        }));
    };
    let field = format!("involvedObject.name={name},reason=InvalidSpec");
    let notes = || messages(&plane.events("", &field).unwrap()).join(" ");
    apply("10.136.0.9-10.136.0.1");
    bench
        .until("an Event says so", async || {
            notes().contains(&format!("SpiderReservedIP {name} is invalid: spec.ips[0]: "))
        })
        .await;
    controller.stop().unwrap();
}

/// The resync does not rely on the watches.
#[tokio::test(flavor = "multi_thread")]
async fn the_full_resync_frees_nothing_of_a_running_pod() {
    let bench = Bench::new("compare").await;
    bench.pool("p", "10.46.0.0/24", &["10.46.0.2-10.46.0.9"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    add(&agent, &pod).await;
    bench.endpoint(&pod).await;
    let every_second = [("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "1")];
    let controller = controller(&bench, "a", &every_second).await;
    bench
        .until("it was compared twice", async || {
            controller.log().unwrap().matches("full resync done").count() >= 2
        })
        .await;
    assert_eq!(bench.held(&pod).len(), 1);
    agent.stop().unwrap();
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_comes_back_after_an_outage_of_the_api_server() {
    let mut plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "outage").await;
    bench.pool("p", "10.47.0.0/24", &["10.47.0.2-10.47.0.9"], &json!({}));
    let (gone, stays) = (bench.pod_with_pool("gone", "n1", "p"), bench.pod_with_pool("stays", "n1", "p"));
    let controller = controller_on(&plane, &bench, "a", &TERMS).await;
    let agent = bench.agent("n1").await;
    for pod in [&gone, &stays] {
        add(&agent, pod).await;
        bench.endpoint(pod).await;
    }
    agent.kill().unwrap();
    let parts = bench.into_parts();
    plane.kill_api_server().unwrap();
    let leads = async || controller.leads().await.unwrap();
    poll::until_async("it does not lead any more", LIMIT, async || {
        anyhow::ensure!(!leads().await, "it does");
        Ok(())
    })
    .await
    .unwrap();
    assert!(controller.probe("/v1/runtime/liveness").await.unwrap().0.is_success());
    plane.start_api_server().unwrap();
    let bench = Bench::from_parts(&plane, parts);
    bench.until("it leads again", leads).await;
    bench.delete_pod(&gone);
    bench.until("the address is free", async || bench.held(&gone).is_empty()).await;
    assert_eq!(bench.held(&stays).len(), 1);
    controller.stop().unwrap();
}
