//! Objects that only the schema lets through, as where the webhooks were away: the leader says what is wrong with each, and goes on
//! with the others.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Kind, Options};
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, addresses, messages, senseless};

const SUBNET: &str = "ipam.spidernet.io/subnet";

fn create(bench: &Bench<'_>, kind: &str, name: &str, spec: &Value) {
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": kind, "metadata": {"name": bench.name(name)},
        "spec": spec,
    }));
}

fn create_network(bench: &Bench<'_>, name: &str, annotations: &Value, spec: &Value) {
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
        "metadata": {"namespace": bench.namespace(), "name": name, "annotations": annotations}, "spec": spec,
    }));
}

fn deployment(bench: &Bench<'_>, name: &str, subnet: &str) {
    let labels = json!({"app": name});
    bench.apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": bench.namespace(), "name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {SUBNET: subnet}},
                "spec": {"containers": [{"name": "c", "image": "none"}]},
            },
        },
    }));
}

/// Everything that is wrong, of all kinds.
fn create_senseless(bench: &Bench<'_>) {
    for (name, spec, _) in senseless::pools() {
        create(bench, "SpiderIPPool", name, &spec);
    }
    for (name, spec) in senseless::subnets() {
        create(bench, "SpiderSubnet", name, &spec);
    }
    for (name, annotations, spec, _) in senseless::networks() {
        create_network(bench, name, &annotations, &spec);
    }
    // Of the other family than what the test gives out: while nobody knows what is reserved, nothing is.
    create(bench, "SpiderReservedIP", "reversed", &json!({"ips": ["fd61::9-fd61::1"]}));
    let coordinator = json!({
        "hijackCIDR": ["x"], "podMACPrefix": "x", "vethLinkAddress": "x", "hostRuleTable": -5, "podRPFilter": 99,
        "policyRoutes": [{"dst": "x", "gw": "y"}], "txQueueLen": -1, "podDefaultRouteNIC": "much-too-long-a-name",
    });
    create(bench, "SpiderCoordinator", "scc", &coordinator);
    deployment(bench, "no-json", "{");
    deployment(bench, "no-name", &json!({"ipv4": ["x".repeat(10_000)]}).to_string());
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress", "metadata": {"name": "junk"},
        "spec": {
            "address": "junk", "pool": "/", "node": "/", "interface": "/", "podNamespace": "/", "podName": "/",
            "podUID": "/", "containerID": "/", "terminationGracePeriodSeconds": -1,
        },
    }));
    let entry = json!({"interface": "/", "ipv4": "x", "ipv6": "y", "ipv4Pool": "/", "routes": [{"dst": "x", "gw": "y"}]});
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderEndpoint",
        "metadata": {"namespace": bench.namespace(), "name": "junk"},
        "status": {
            "current": {"uid": "/", "node": "/", "ips": [entry]}, "ownerControllerType": "/",
            "ownerControllerName": "/",
        },
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_make_no_sense_are_named_and_stop_no_other() {
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "senseless").await;
    // One of each kind is there before, and more come after.
    let good = |name: &str, application: &str, net: u8| {
        let spec = |net: u8| json!({"subnet": format!("10.{net}.0.0/24"), "ips": [format!("10.{net}.0.2-10.{net}.0.9")]});
        create(&bench, "SpiderIPPool", name, &spec(net));
        create(&bench, "SpiderSubnet", name, &spec(net + 1));
        deployment(&bench, application, &json!({"ipv4": [bench.name(name)]}).to_string());
        let macvlan = json!({"cniType": "macvlan", "macvlan": {"master": ["ens192"]}});
        create_network(&bench, application, &json!({}), &macvlan);
    };
    // With the test's prefix as long as a name can be.
    let long = format!("{}x", "x.".repeat(121));
    let all = [("before", "before", 63), ("after", "after", 65), (&*long, "long", 67)];
    good(all[0].0, all[0].1, all[0].2);
    create_senseless(&bench);
    let (folder, namespace, scc) = (bench.folder("controllers"), bench.namespace(), bench.name("scc"));
    let environment = [
        ("SPIDERPOOL_MULTUS_CONFIG_ENABLED", "true"),
        ("SPIDERPOOL_COORDINATOR_DEAFULT_NAME", scc.as_str()),
        ("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "1"),
    ];
    let start = Start { folder: &folder, namespace, name: "a", environment: &environment };
    let file = json!({"enableSpiderSubnet": true, "enableAutoPoolForApplication": true});
    let controller = StandaloneController::start_with(&plane, start, &file).await.unwrap();
    for (name, application, net) in &all[1..] {
        good(name, application, *net);
    }
    check_named(&bench).await;
    for (name, application, _) in &all {
        check_served(&bench, name, application).await;
    }
    let agent = bench.agent("n1").await;
    for (name, application, _) in &all {
        let pod = bench.pod_with_pool(application, "n1", name);
        let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await.unwrap().ok().unwrap();
        assert_eq!(addresses(&answer).len(), 1);
        bench
            .until_ok("the status counts it", async || {
                let pool = plane.find(Kind::spiderpool("SpiderIPPool"), "", &bench.name(name))?.unwrap();
                anyhow::ensure!(pool["status"]["allocatedIPCount"] == json!(1), "{}", pool["status"]);
                Ok(())
            })
            .await;
    }
    let rounds = || controller.log().unwrap().matches("full resync done").count();
    let before = rounds();
    bench.until("garbage is collected", async || rounds() >= before + 2).await;
    assert!(controller.leads().await.unwrap());
    for log in [controller.log().unwrap(), agent.log().unwrap()] {
        assert!(!log.contains("panicked"));
    }
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// Conditions of pools, and Events on objects that have none.
async fn check_named(bench: &Bench<'_>) {
    for (name, _, part) in senseless::pools() {
        bench
            .until_ok("the pool's condition", async || {
                let pool =
                    bench.plane().find(Kind::spiderpool("SpiderIPPool"), "", &bench.name(name))?.unwrap();
                let ready = &pool["status"]["conditions"][0];
                let message = ready["message"].as_str().unwrap_or_default();
                let is_right = ready["reason"] == "InvalidSpec" && message.contains(part);
                anyhow::ensure!(is_right, "{name}: {ready}");
                Ok(())
            })
            .await;
    }
    let says = async |namespace: &str, kind: &str, name: &str, part: &str| {
        bench
            .until_ok("an Event says what is wrong", async || {
                let field =
                    format!("involvedObject.kind={kind},involvedObject.name={name},reason=InvalidSpec");
                let notes = messages(&bench.plane().events(namespace, &field)?);
                anyhow::ensure!(notes.iter().any(|note| note.contains(part)), "{kind} {name}: {notes:?}");
                Ok(())
            })
            .await;
    };
    for (name, _) in senseless::subnets() {
        says("", "SpiderSubnet", &bench.name(name), "is invalid: ").await;
    }
    for (name, _, _, part) in senseless::networks() {
        says(bench.namespace(), "SpiderMultusConfig", name, part).await;
    }
    says("", "SpiderReservedIP", &bench.name("reversed"), "spec.ips[0]: ").await;
}

/// The pool is ready, the subnet has made one for the Deployment, and the network is made.
async fn check_served(bench: &Bench<'_>, name: &str, application: &str) {
    let of = |kind: &'static str, namespace: &str, name: &str| {
        bench.plane().find(Kind::spiderpool(kind), namespace, name).unwrap().unwrap()
    };
    bench
        .until_ok("the pool is ready", async || {
            let status = of("SpiderIPPool", "", &bench.name(name))["status"].clone();
            let is_ready = status["conditions"][0]["status"] == "True" && status["totalIPCount"] == json!(8);
            anyhow::ensure!(is_ready, "{status}");
            Ok(())
        })
        .await;
    bench
        .until_ok("the subnet has a pool", async || {
            let status = of("SpiderSubnet", "", &bench.name(name))["status"].clone();
            anyhow::ensure!(status["allocatedIPCount"].as_i64() >= Some(2), "{status}");
            Ok(())
        })
        .await;
    bench
        .until("the network is made", async || {
            let kind = Kind("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition");
            bench.plane().find(kind, bench.namespace(), application).unwrap().is_some()
        })
        .await;
}
