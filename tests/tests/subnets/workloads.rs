//! All kinds of workloads.

use serde_json::json;
use spiderpool_tests::control_plane::ControlPlane;

use super::*;

/// I00003.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_workload_gets_a_pool_of_its_size() {
    let bench = Bench::new("kinds").await;
    bench.subnet("s", "10.125.0.0/24", &["10.125.0.10-10.125.0.250"], &json!({}));
    let controller = bench.controller("a").await;
    let annotations = [bench.subnet_annotation("s")];
    // One more each, as the controller is configured.
    for (api_version, kind, spec, addresses) in [
        ("apps/v1", "Deployment", json!({"replicas": 2}), 3),
        ("apps/v1", "ReplicaSet", json!({"replicas": 3}), 4),
        ("apps/v1", "StatefulSet", json!({"replicas": 1}), 2),
        ("batch/v1", "Job", json!({"completions": 4, "parallelism": 2}), 5),
        ("batch/v1", "CronJob", json!({"parallelism": 3}), 4),
    ] {
        let name = kind.to_lowercase();
        let workload = bench.workload((api_version, kind), &name, &spec, &annotations);
        bench.pool_of(&name, addresses).await;
        bench.delete_workload(&workload);
        bench.until("its pool goes", async || bench.pools_of(&name).is_empty()).await;
    }
    let workload = bench.workload(("apps/v1", "DaemonSet"), "daemonset", &json!({}), &annotations);
    bench.pool_of("daemonset", 1).await;
    let status = json!({"desiredNumberScheduled": 6, "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
    let patch = json!({"status": status}).to_string();
    bench.kubectl(&["patch", "daemonset", "daemonset", "--subresource=status", "--type=merge", "-p", &patch]);
    bench.pool_of("daemonset", 7).await;
    bench.delete_workload(&workload);
    bench.until("its pool goes", async || bench.pools_of("daemonset").is_empty()).await;
    controller.stop().unwrap();
}

/// I00017.
#[tokio::test(flavor = "multi_thread")]
async fn workloads_with_long_names_have_pools_of_their_own() {
    let bench = Bench::new("long").await;
    bench.subnet("s", "10.126.0.0/24", &["10.126.0.10-10.126.0.250"], &json!({}));
    let controller = bench.controller("a").await;
    let agent = bench.subnet_agent("n1").await;
    let annotations = [bench.subnet_annotation("s")];
    let mut all = BTreeSet::new();
    for end in ["a", "b"] {
        let name = format!("{}{end}", "very-long.".repeat(25));
        // A name of a label's length at most has a label of its own: what kubectl apply selects by.
        let workload = bench.workload(
            ("batch/v1", "CronJob"),
            &format!("{}{end}", "x".repeat(51)),
            &json!({}),
            &annotations,
        );
        let pod = bench.pod_of_workload(&workload, &format!("pod-{end}"));
        all.extend(add(&agent, &pod, "eth0").await.unwrap());
        let replica_set = long_replica_set(&bench, &name, &annotations);
        let pod = bench.pod_of_workload(&replica_set, &format!("pod-of-set-{end}"));
        all.extend(add(&agent, &pod, "eth0").await.unwrap());
    }
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(bench.records("s").as_object().unwrap().len(), 4, "{}", bench.records("s"));
    controller.stop().unwrap();
}

fn long_replica_set(bench: &Bench<'_>, name: &str, annotations: &[(String, String)]) -> Workload {
    let labels = json!({"app": "long"});
    let all: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let template = json!({
        "metadata": {"labels": labels, "annotations": all},
        "spec": {"containers": [{"name": "c", "image": "none"}]},
    });
    bench.apply(&json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"namespace": bench.namespace(), "name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }));
    let uid = bench.kubectl(&["get", "replicaset", name, "-o", "jsonpath={.metadata.uid}"]);
    let [api_version, kind, name] = ["apps/v1", "ReplicaSet", name].map(str::to_owned);
    Workload { api_version, kind, name, uid, annotations: annotations.to_owned() }
}

/// OpenKruise's kinds of this name, without its programs.
fn define_third_parties(kind: &str) {
    let (plane, singular) = (ControlPlane::shared(), kind.to_lowercase());
    let name = format!("{singular}s.apps.kruise.io");
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {
            "group": "apps.kruise.io", "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": format!("{singular}s"),
                "singular": singular,
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            }],
        },
    });
    plane.apply(&definition.to_string()).unwrap();
    let definition = format!("crd/{name}");
    plane.kubectl(&["wait", "--for=condition=Established", &definition, "--timeout=20s"]).unwrap();
}

/// T00002: the controller learns of them by their pods, and asks for them when no pod is left.
#[tokio::test(flavor = "multi_thread")]
async fn workloads_of_third_parties_get_pools_of_a_fixed_size() {
    let bench = Bench::new("third").await;
    define_third_parties("CloneSet");
    bench.subnet("s", "10.127.0.0/24", &["10.127.0.10-10.127.0.99"], &json!({}));
    let controller = bench.controller("a").await;
    let agent = bench.subnet_agent("n1").await;
    let kind = ("apps.kruise.io/v1alpha1", "CloneSet");
    let fixed = [bench.subnet_annotation("s"), (IP_NUMBER.to_owned(), "2".to_owned())];
    let web = bench.workload(kind, "web", &json!({}), &fixed);
    let pod = bench.pod_of_workload(&web, "web-1");
    let address = add(&agent, &pod, "eth0").await.unwrap();
    let pool = bench.pool_of("web", 2).await;
    assert!(address.iter().all(|address| has(&pool, address)));
    assert_eq!(
        bench.records("s")[&pool.name]["application"],
        json!("apps.kruise.io_v1alpha1_CloneSet_third_web")
    );
    // Scaled to nothing: the workload is still there.
    bench.delete_pod(&pod);
    del(&agent, &pod, "eth0").await;
    let asked = || controller.log().unwrap();
    bench.until("nothing is in use", async || bench.held(&pod).is_empty()).await;
    let again = bench.pod_of_workload(&web, "web-2");
    add(&agent, &again, "eth0").await.unwrap();
    assert_eq!(bench.pools_of("web"), [pool], "{}", asked());
    bench.delete_workload(&web);
    bench.delete_pod(&again);
    del(&agent, &again, "eth0").await;
    bench.until("the pool goes", async || bench.pools_of("web").is_empty()).await;

    let flexible = bench.workload(kind, "flexible", &json!({}), &[bench.subnet_annotation("s")]);
    let pod = bench.pod_of_workload(&flexible, "flexible-1");
    support::failure(&agent, &pod.add("eth0", "c"), "only supports fixed auto-created IPPool IP Number")
        .await;
    controller.stop().unwrap();
}

/// T00004 and T00005.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_pool_of_a_third_partys_waits_for_the_next_workload_of_its_name_and_kind() {
    let bench = Bench::new("third-stays").await;
    for kind in ["CloneSet", "StatefulSet"] {
        define_third_parties(kind);
    }
    bench.subnet("s", "10.136.0.0/24", &["10.136.0.10-10.136.0.99"], &json!({}));
    let controller = bench.controller("a").await;
    let agent = bench.subnet_agent("n1").await;
    let start = |kind: &str, reclaim: &str| {
        let annotations = [
            bench.subnet_annotation("s"),
            (IP_NUMBER.to_owned(), "2".to_owned()),
            (RECLAIM.to_owned(), reclaim.to_owned()),
        ];
        bench.workload(("apps.kruise.io/v1alpha1", kind), "web", &json!({}), &annotations)
    };
    let end = async |workload: &Workload, pod: &TestPod| {
        bench.delete_workload(workload);
        bench.delete_pod(pod);
        del(&agent, pod, "eth0").await;
    };
    let first = start("CloneSet", "false");
    let pod = bench.pod_of_workload(&first, "web-1");
    add(&agent, &pod, "eth0").await.unwrap();
    let kept = bench.pool_of("web", 2).await;
    end(&first, &pod).await;

    let other = start("StatefulSet", "true");
    let pod = bench.pod_of_workload(&other, "web-2");
    let given = add(&agent, &pod, "eth0").await.unwrap();
    assert!(given.len() == 1 && !given.iter().any(|address| has(&kept, address)), "{given:?} {kept:?}");
    end(&other, &pod).await;
    bench.until("its pool goes", async || bench.pools_of("web").len() == 1).await;
    assert_eq!(bench.pools_of("web"), std::slice::from_ref(&kept));

    let second = start("CloneSet", "false");
    let pod = bench.pod_of_workload(&second, "web-3");
    let given = add(&agent, &pod, "eth0").await.unwrap();
    assert!(given.len() == 1 && given.iter().all(|address| has(&kept, address)), "{given:?} {kept:?}");
    let label = found_pool(&kept.name).unwrap()["metadata"]["labels"][APPLICATION_UID].clone();
    assert_eq!(label, json!(second.uid));
    controller.stop().unwrap();
}
