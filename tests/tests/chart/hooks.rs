//! Hooks: what a Job needs is there when it runs, and goes with it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use spiderpool_tests::control_plane::ControlPlane;

use crate::render::{containers, find, helm, objects, pods, title};

const HOOK: &str = "helm.sh/hook";
const WEIGHT: &str = "helm.sh/hook-weight";
const POLICY: &str = "helm.sh/hook-delete-policy";

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

fn weight(object: &Value) -> i64 {
    annotation(object, WEIGHT).unwrap().parse().unwrap()
}

#[test]
fn accounts_and_rights_of_a_job_come_before_it() {
    for verb in [&[][..], &["--is-upgrade"]] {
        let objects = objects(verb);
        let jobs: Vec<&Value> = objects.iter().filter(|o| o["kind"] == "Job" || o["kind"] == "Pod").collect();
        assert_eq!(jobs.len(), 3);
        check_order(&objects, &jobs);
    }
}

fn check_order(objects: &[Value], jobs: &[&Value]) {
    for job in jobs {
        let pod = if job["kind"] == "Pod" { &job["spec"] } else { &job["spec"]["template"]["spec"] };
        let account = pod["serviceAccountName"].as_str().unwrap();
        let event = annotation(job, HOOK).unwrap();
        let needed = objects.iter().filter(|o| {
            o["kind"] == "ServiceAccount" && o["metadata"]["name"] == account
                || o["subjects"]
                    .as_array()
                    .is_some_and(|s| s.iter().any(|subject| subject["name"] == account))
        });
        for object in needed {
            match annotation(object, HOOK) {
                // Objects of the release are there at the end of an install or upgrade, and until the end of an
                // uninstallation; before an upgrade there are those of the older chart, if it had them.
                None => assert_ne!(event, "pre-upgrade", "{} for {}", title(object), title(job)),
                Some(own) => {
                    assert_eq!(own, event, "{}", title(object));
                    assert!(weight(object) < weight(job), "{}", title(object));
                }
            }
        }
    }
}

#[test]
fn nothing_of_a_hook_stays_but_the_job_that_the_uninstallation_removes() {
    let objects = objects(&[]);
    for object in objects.iter().filter(|o| annotation(o, HOOK).is_some()) {
        let policy = annotation(object, POLICY).unwrap();
        assert!(policy.contains("before-hook-creation"), "{}", title(object));
        let stays = !policy.contains("hook-succeeded");
        // What is left of a failure is what says why.
        let says_why = object["kind"] == "Pod" || object["kind"] == "Job";
        assert_eq!(policy.contains("hook-failed"), !says_why, "{}: {policy}", title(object));
        assert_eq!(stays, title(object) == "Job spiderpool-init", "{}: {policy}", title(object));
    }
    let clean = find(&objects, "Job", "spiderpool-controller-hook-pre-delete");
    // It names nodes that were not cleaned, and is gone in a moment.
    let printed = annotation(clean, "helm.sh/hook-output-log-policy").unwrap();
    assert!(printed.contains("hook-succeeded"), "{printed}");
    let environment = clean["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(environment.contains(r#""value":"spiderpool-init""#), "{environment}");
}

#[test]
fn every_hook_has_a_deadline_below_helms_and_time_to_pull_its_images() {
    for values in [&[][..], &["--is-upgrade"]] {
        let objects = objects(values);
        for object in objects.iter().filter(|o| o["kind"] == "Job" || o["kind"] == "Pod") {
            let seconds = object["spec"]["activeDeadlineSeconds"].as_u64().unwrap();
            let is_first = title(object).ends_with("spiderpool-apply-crds");
            assert!(seconds < 300 && (!is_first || seconds >= 180), "{}: {seconds}", title(object));
        }
    }
}

/// Else an upgrade would end agents whose successors nobody can start.
#[test]
fn the_first_hook_pulls_every_image_that_agents_start_with() {
    let images = |pod: &Value| {
        let images = containers(pod).into_iter().map(|c| c["image"].as_str().unwrap().to_owned());
        images.collect::<BTreeSet<_>>()
    };
    for values in [&[][..], &["--is-upgrade"], &["--is-upgrade", "--set=multus.multusCNI.install=false"]] {
        let more = "--set=plugins.installCNI=true,multus.multusCNI.image.tag=other,plugins.image.imagePullSecrets={p}";
        let objects = objects(&[values, &[more]].concat());
        let pods = pods(&objects);
        let of = |name: &str| pods.iter().find(|(owner, _)| owner.ends_with(name)).unwrap().1.clone();
        let (hook, agent) = (of("spiderpool-apply-crds"), of("DaemonSet spiderpool-agent"));
        let unproven: Vec<_> = images(&agent).difference(&images(&hook)).cloned().collect();
        assert_eq!(unproven, Vec::<String>::new(), "{values:?}");
        assert_eq!(hook["imagePullSecrets"], json!([{"name": "p"}]));
    }
}

/// Helm leaves definitions alone that are there, as after an uninstallation that kept addresses.
#[test]
fn an_installation_brings_kept_definitions_up_to_date() {
    let pod = find(&objects(&[]), "Pod", "spiderpool-apply-crds").clone();
    assert_eq!(
        (annotation(&pod, HOOK), &pod["spec"]["containers"][0]["args"][0]),
        (Some("pre-install"), &"apply-crds".into())
    );
    let job = find(&objects(&["--is-upgrade"]), "Job", "spiderpool-apply-crds").clone();
    assert_eq!(annotation(&job, HOOK), Some("pre-upgrade"));
}

/// Helm creates it itself, so that it gets the API server's words; of a Job's or DaemonSet's pods it hears nothing.
#[test]
fn a_namespace_that_forbids_agents_refuses_the_first_object_of_an_installation() {
    let plane = ControlPlane::shared();
    let namespace = "baseline-by-label";
    let label = "pod-security.kubernetes.io/enforce: baseline";
    let manifest = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{{label}}}}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: spiderpool-apply-crds, namespace: {namespace}}}\n"
    );
    plane.apply(&manifest).unwrap();
    let mut pod = find(&objects(&[]), "Pod", "spiderpool-apply-crds").clone();
    pod["metadata"]["namespace"] = namespace.into();
    let refused = plane.apply(&pod.to_string()).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("violates PodSecurity") && refused.contains("hostNetwork"), "{refused}");
}

/// Helm knows the namespace's labels before it makes anything, if the namespace is there.
#[test]
fn what_the_cluster_does_not_allow_is_said_before_anything_is_made() {
    let plane = ControlPlane::shared();
    let kubeconfig = format!("--kubeconfig={}", plane.admin().display());
    let render = |namespace: &str| {
        let verb = ["template", "second", "--namespace", namespace];
        helm(&verb, &["--dry-run=server", &kubeconfig, "--set=spiderpoolAgent.name=of-another"])
            .map_err(|error| format!("{error:#}"))
    };
    let labelled = "apiVersion: v1\nkind: Namespace\nmetadata: {name: labelled-baseline, labels: {pod-security.kubernetes.io/enforce: baseline}}\n";
    plane.apply(labelled).unwrap();
    plane.apply(&labelled.replace("baseline", "restricted")).unwrap();
    for standard in ["baseline", "restricted"] {
        let refused = render(&format!("labelled-{standard}")).unwrap_err();
        let advice = format!("kubectl label --overwrite namespace labelled-{standard}");
        assert!(refused.contains(&advice), "{refused}");
    }
    let role = |namespace: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "of-another", "annotations": {
                "meta.helm.sh/release-name": "first", "meta.helm.sh/release-namespace": namespace}},
        })
    };
    plane.apply(&role("default").to_string()).unwrap();
    let refused = render("second").unwrap_err();
    assert!(refused.contains("in this cluster already, as release first in namespace default"), "{refused}");
    plane.apply(&role("deleted-by-hand").to_string()).unwrap();
    let refused = render("second").unwrap_err();
    assert!(refused.contains("was not uninstalled before its namespace deleted-by-hand"), "{refused}");
    // Everything outside of the namespace, also in that of kubeadm's and Cilium's ConfigMaps.
    for part in [
        "mutatingwebhookconfigurations,validatingwebhookconfigurations",
        "roles,rolebindings --all-namespaces",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    plane.kubectl(&["delete", "clusterrole", "of-another"]).unwrap();
    // Kept by an uninstallation that could not clean every node.
    let kept = role("default").to_string().replace("of-another", "multus-of-another");
    plane.apply(&kept).unwrap();
    let refused = helm(
        &["template", "second", "--namespace", "second"],
        &[
            "--dry-run=server",
            &kubeconfig,
            "--set=spiderpoolAgent.name=of-another,multus.multusCNI.name=multus-of-another",
        ],
    );
    let refused = format!("{:#}", refused.unwrap_err());
    assert!(
        refused.contains("release first of Spiderpool in namespace default has left Multus"),
        "{refused}"
    );
    plane.kubectl(&["delete", "clusterrole", "multus-of-another"]).unwrap();
    // Without nodes and another release: nothing in the way.
    render("second").unwrap();
}

/// A Job tolerates everything, so it may be put on a node that does not answer.
#[test]
fn a_jobs_pod_does_not_wait_for_a_dead_node() {
    for values in [&["--set=spiderpoolController.tolerations=null"][..], &[]] {
        for job in objects(values).iter().filter(|object| object["kind"] == "Job") {
            let first = &job["spec"]["template"]["spec"]["tolerations"][0];
            assert_eq!(first["key"], "node.kubernetes.io/unreachable", "{}", title(job));
            assert!(first["tolerationSeconds"].as_u64().is_some_and(|seconds| seconds < 30), "{first}");
        }
    }
}
