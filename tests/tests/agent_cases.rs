//! Upstream's cases that need neither a kubelet nor a CNI plugin, by their numbers: the agent, and where it takes part the
//! controller, against a real API server.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "agent_cases/rollouts.rs"]
mod rollouts;

use std::cell::Cell;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod, addresses, failure};

const IPPOOL: &str = "ipam.spidernet.io/ippool";
const POOL: Kind = Kind::spiderpool("SpiderIPPool");

async fn add(agent: &StandaloneAgent, pod: &TestPod) -> Value {
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap()
}

async fn del(agent: &StandaloneAgent, pod: &TestPod) {
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
}

fn routes(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let routes = answer["routes"].as_array().into_iter().flatten();
    routes.map(|route| (text(&route["dst"]), text(&route["gw"]))).collect()
}

fn status(pool: &str) -> Value {
    ControlPlane::shared().find(POOL, "", pool).unwrap().unwrap()["status"].clone()
}

/// A00002.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_the_routes_of_its_annotation_beside_those_of_its_pool() {
    let bench = Bench::new("case-routes").await;
    let more = json!({"gateway": "10.210.0.1", "routes": [{"dst": "10.9.0.0/16", "gw": "10.210.0.1"}]});
    bench.pool("p", "10.210.0.0/24", &["10.210.0.2-10.210.0.9"], &more);
    let pool = json!({"ipv4": [bench.name("p")]}).to_string();
    let own = json!([{"dst": "10.8.0.0/16", "gw": "10.210.0.254"}]).to_string();
    let pod = bench.pod("a", "n1", &[(IPPOOL, &pool), ("ipam.spidernet.io/routes", &own)]);
    let agent = bench.agent("n1").await;
    let mut found = routes(&add(&agent, &pod).await);
    found.sort();
    let wanted =
        [("0.0.0.0/0", "10.210.0.1"), ("10.8.0.0/16", "10.210.0.254"), ("10.9.0.0/16", "10.210.0.1")];
    assert_eq!(found, wanted.map(|(dst, gw)| (dst.to_owned(), gw.to_owned())));
    agent.stop().unwrap();
}

/// A00003.
#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_names_pools_of_no_family_gives_no_address() {
    let bench = Bench::new("case-unknown").await;
    bench.pool("p", "10.211.0.0/24", &["10.211.0.2-10.211.0.9"], &json!({}));
    let agent = bench.agent("n1").await;
    for (name, annotation, part) in [
        ("member", json!({"ipv5": [bench.name("p")]}).to_string(), "IPPool"),
        ("missing", json!({"ipv4": [bench.name("none")]}).to_string(), "case-unknown-none"),
        ("text", "ipv4".to_owned(), "invalid format of Pod annotation 'ipam.spidernet.io/ippool'"),
    ] {
        let pod = bench.pod(name, "n1", &[(IPPOOL, &annotation)]);
        failure(&agent, &pod.add("eth0", "c1"), part).await;
        assert!(bench.held(&pod).is_empty(), "{name}");
        bench
            .until("its Events say so", async || {
                bench.events(&pod).join(" ").contains("no IP address for NIC eth0")
            })
            .await;
    }
    let pools = json!([{"interface": "eth0", "ipv4": [bench.name("p")], "cleangateway": "no"}]).to_string();
    let pod = bench.pod("flag", "n1", &[("ipam.spidernet.io/ippools", &pools)]);
    failure(&agent, &pod.add("eth0", "c1"), "invalid format of Pod annotation 'ipam.spidernet.io/ippools'")
        .await;
    assert!(bench.held(&pod).is_empty());
    agent.stop().unwrap();
}

/// A00008 and E00007.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_many_containers_and_long_annotations_gets_its_address() {
    let bench = Bench::new("case-long").await;
    bench.pool("p", "10.212.0.0/24", &["10.212.0.2-10.212.0.9"], &json!({}));
    let mut annotations = bench.pool_annotation("p");
    // The API server takes no more than 256 KiB of annotations.
    annotations.extend((0..20).map(|number| (format!("example.com/{number}"), "x".repeat(12_000))));
    let mut object = bench.pod_object("a", "n1", &annotations);
    let containers: Vec<_> =
        (0..30).map(|number| json!({"name": format!("c{number}"), "image": "none"})).collect();
    object["spec"]["containers"] = json!(containers);
    let pod = bench.create_pods(vec![object]).await.remove(0);
    let agent = bench.agent("n1").await;
    assert_eq!(addresses(&add(&agent, &pod).await).len(), 1);
    assert_eq!(bench.endpoint(&pod).await["status"]["current"]["uid"], json!(pod.uid));
    agent.stop().unwrap();
}

/// E00002 to E00006, and of G00003 and G00006 that the addresses come back, whatever had made the pod.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_every_workload_get_addresses_which_their_end_gives_back() {
    let bench = Bench::new("case-owners").await;
    bench.pool("p", "10.217.0.0/24", &["10.217.0.2-10.217.0.9"], &json!({}));
    let pools = json!({"ipv4": [bench.name("p")]}).to_string();
    let annotations = [(IPPOOL, pools.as_str())];
    // Owned by a Deployment and by a CronJob.
    for (version, kind, name, of) in [
        ("apps/v1", "ReplicaSet", "web-1", ("Deployment", "web")),
        ("batch/v1", "Job", "clock-1", ("CronJob", "clock")),
    ] {
        bench.apply(&owned(&bench, version, kind, name, of));
    }
    let agent = bench.agent("n1").await;
    for (version, kind, name, top) in [
        ("apps/v1", "ReplicaSet", "web-1", ("Deployment", "web")),
        ("apps/v1", "ReplicaSet", "alone", ("ReplicaSet", "alone")),
        ("apps/v1", "StatefulSet", "db", ("StatefulSet", "db")),
        ("apps/v1", "DaemonSet", "every", ("DaemonSet", "every")),
        ("batch/v1", "Job", "once", ("Job", "once")),
        ("batch/v1", "Job", "clock-1", ("CronJob", "clock")),
    ] {
        let pod = bench.pod_of(version, kind, name, &format!("{name}-0"), "n1", &annotations);
        assert_eq!(addresses(&add(&agent, &pod).await).len(), 1, "{kind} {name}");
        let status = &bench.endpoint(&pod).await["status"];
        let found = (&status["ownerControllerType"], &status["ownerControllerName"]);
        assert_eq!(found, (&json!(top.0), &json!(top.1)), "{kind} {name}");
        // A Job's ends by itself: its pod stays. There is no StatefulSet that would make another one.
        if kind == "Job" {
            bench.succeed_pod(&pod);
        } else {
            bench.delete_pod(&pod);
        }
        del(&agent, &pod).await;
        assert!(bench.held(&pod).is_empty(), "{kind} {name}");
        assert!(bench.find_endpoint(&pod).is_none(), "{kind} {name}");
    }
    agent.stop().unwrap();
}

/// A workload that another one controls. No controller makes pods of it.
fn owned(bench: &Bench<'_>, version: &str, kind: &str, name: &str, (of, of_name): (&str, &str)) -> Value {
    let labels = json!({"app": name});
    let spec = json!({"containers": [{"name": "c", "image": "none"}], "restartPolicy": if kind == "Job" { "Never" } else { "Always" }});
    let owner =
        json!({"apiVersion": version, "kind": of, "name": of_name, "uid": of_name, "controller": true});
    let mut object = json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"namespace": bench.namespace(), "name": name, "ownerReferences": [owner]},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    if kind != "Job" {
        object["spec"]["selector"] = json!({"matchLabels": labels});
    }
    object
}

/// E00001.
#[tokio::test(flavor = "multi_thread")]
async fn a_nic_can_have_ipv6_alone() {
    let bench = Bench::new("case-v6").await;
    bench.pool("p", "fd21::/64", &["fd21::2-fd21::9"], &json!({"gateway": "fd21::1"}));
    let pools = json!({"ipv6": [bench.name("p")]}).to_string();
    let pod = bench.pod("a", "n1", &[(IPPOOL, &pools)]);
    let agent = bench.agent("n1").await;
    let answer = add(&agent, &pod).await;
    let found = addresses(&answer);
    assert!(found.len() == 1 && found.first().unwrap().starts_with("fd21::"), "{answer}");
    assert_eq!(routes(&answer), [("::/0".to_owned(), "fd21::1".to_owned())]);
    agent.stop().unwrap();
}

/// D00002.
#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_and_other_routes_of_a_pool_reach_new_pods_alone() {
    let bench = Bench::new("case-gateway").await;
    let ips: &[&str] = &["10.213.0.2-10.213.0.9"];
    let with = |gateway: &str, dst: &str| {
        bench.pool(
            "p",
            "10.213.0.0/24",
            ips,
            &json!({"gateway": gateway, "routes": [{"dst": dst, "gw": gateway}]}),
        );
    };
    with("10.213.0.1", "10.9.0.0/16");
    let agent = bench.agent("n1").await;
    let before = bench.pod_with_pool("before", "n1", "p");
    let first = add(&agent, &before).await;
    let endpoint = bench.endpoint(&before).await;
    with("10.213.0.254", "10.8.0.0/16");
    let after = bench.pod_with_pool("after", "n1", "p");
    let wanted = [("0.0.0.0/0", "10.213.0.254"), ("10.8.0.0/16", "10.213.0.254")];
    let wanted = wanted.map(|(dst, gw)| (dst.to_owned(), gw.to_owned()));
    bench
        .until("a new pod has the new ones", async || {
            let mut found = routes(&add(&agent, &after).await);
            found.sort();
            found == wanted
        })
        .await;
    assert_ne!(routes(&first), wanted);
    let now = bench.find_endpoint(&before).unwrap();
    assert_eq!(now["status"]["current"], endpoint["status"]["current"], "the running pod's is as it was");
    agent.stop().unwrap();
}

/// D00005: the release reads no pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_pool_gives_no_address_and_takes_them_back() {
    let bench = Bench::new("case-disable").await;
    let ips: &[&str] = &["10.214.0.2-10.214.0.9"];
    bench.pool("p", "10.214.0.0/24", ips, &json!({}));
    let agent = bench.agent("n1").await;
    let holds = bench.pod_with_pool("holds", "n1", "p");
    add(&agent, &holds).await;
    bench.pool("p", "10.214.0.0/24", ips, &json!({"disable": true}));
    let tries = Cell::new(0);
    bench
        .until("no other pod gets one", async || {
            tries.set(tries.get() + 1);
            let late = bench.pod_with_pool(&format!("late{}", tries.get()), "n1", "p");
            let answer = agent.ask(Method::POST, path::IP, &late.add("eth0", "c1")).await.unwrap();
            answer.failure().contains("disable")
        })
        .await;
    bench.delete_pod(&holds);
    del(&agent, &holds).await;
    assert!(bench.held(&holds).is_empty());
    agent.stop().unwrap();
}

/// G00002.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_pod_frees_nothing_of_one_with_its_name_in_another_namespace() {
    let (one, other) = (Bench::new("case-name-a").await, Bench::new("case-name-b").await);
    one.pool("p", "10.215.0.0/24", &["10.215.0.2-10.215.0.9"], &json!({}));
    // On the same node, from the same pool.
    let (node, pool) = (one.name("n1"), one.pool_annotation("p"));
    let in_namespace = |namespace: &str| {
        let mut object = one.pod_object("same", "n1", &pool);
        object["metadata"]["namespace"] = json!(namespace);
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Pod");
        object["spec"]["nodeName"] = json!(node);
        object
    };
    let ended = one.create_pods(vec![in_namespace(one.namespace())]).await.remove(0);
    let stays = other.create_pods(vec![in_namespace(other.namespace())]).await.remove(0);
    let agent = one.agent("n1").await;
    let mut held = Vec::new();
    for pod in [&ended, &stays] {
        held.push(addresses(&add(&agent, pod).await));
        one.endpoint(pod).await;
    }
    assert_ne!(held[0], held[1]);
    one.delete_pod(&ended);
    del(&agent, &ended).await;
    assert!(one.held(&ended).is_empty() && one.find_endpoint(&ended).is_none());
    assert_eq!(other.held(&stays).len(), 1);
    assert_eq!(addresses(&add(&agent, &stays).await), held[1]);
    assert!(other.find_endpoint(&stays).is_some());
    agent.stop().unwrap();
}

/// D00017.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_huge_pool_the_total_ends_at_the_largest_number_and_what_is_used_is_counted() {
    let bench = Bench::new("case-huge").await;
    let more = json!({"excludeIPs": ["fd22::1-fd22:0:0:ffff:ffff:ffff:ffff:fff0"]});
    bench.pool("p", "fd22::/48", &["fd22::1-fd22:0:0:ffff:ffff:ffff:ffff:ffff"], &more);
    let huge = json!({"excludeIPs": ["fd23::1-fd23::f"]});
    bench.pool("all", "fd23::/48", &["fd23::1-fd23:0:0:ffff:ffff:ffff:ffff:ffff"], &huge);
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "one", environment: &[] };
    let controller = StandaloneController::start(ControlPlane::shared(), start).await.unwrap();
    let agent = bench.agent("n1").await;
    let pools = json!({"ipv6": [bench.name("all")]}).to_string();
    let pods = ["a", "b"].map(|name| bench.pod(name, "n1", &[(IPPOOL, &pools)]));
    for pod in &pods {
        assert!(addresses(&add(&agent, pod).await).first().unwrap().starts_with("fd23::"));
    }
    bench
        .until_ok("the status shows both", async || {
            let status = status(&bench.name("all"));
            let counts = (&status["totalIPCount"], &status["allocatedIPCount"]);
            anyhow::ensure!(counts == (&json!(i64::MAX), &json!(2)), "{status}");
            Ok(())
        })
        .await;
    bench
        .until_ok("what is excluded is not counted", async || {
            let status = status(&bench.name("p"));
            anyhow::ensure!(status["totalIPCount"] == json!(15), "{status}");
            Ok(())
        })
        .await;
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// D00006.
#[tokio::test(flavor = "multi_thread")]
async fn ten_pools_of_one_address_come_are_used_and_go_within_a_minute() {
    let bench = Bench::new("case-batch").await;
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "one", environment: &[] };
    let controller = StandaloneController::start(ControlPlane::shared(), start).await.unwrap();
    let agent = bench.agent("n1").await;
    let begun = Instant::now();
    let names: Vec<_> = (0..10).map(|number| format!("p{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        bench.pool(name, &format!("10.216.{number}.0/24"), &[&format!("10.216.{number}.2")], &json!({}));
    }
    let pods: Vec<_> = names.iter().map(|name| bench.pod_with_pool(name, "n1", name)).collect();
    for pod in &pods {
        assert_eq!(addresses(&add(&agent, pod).await).len(), 1);
    }
    bench
        .until("every status says so", async || {
            names.iter().all(|name| status(&bench.name(name))["allocatedIPCount"] == 1)
        })
        .await;
    for pod in &pods {
        bench.delete_pod(pod);
        del(&agent, pod).await;
    }
    let full: Vec<_> = names.iter().map(|name| bench.name(name)).collect();
    let mut arguments = vec!["delete", "spiderippool", "--wait=true", "--timeout=60s"];
    arguments.extend(full.iter().map(String::as_str));
    ControlPlane::shared().kubectl(&arguments).unwrap();
    assert!(full.iter().all(|name| ControlPlane::shared().find(POOL, "", name).unwrap().is_none()));
    assert!(begun.elapsed() < poll::scaled(Duration::from_mins(1)));
    agent.stop().unwrap();
    controller.stop().unwrap();
}
