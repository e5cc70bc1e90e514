//! Hooks: what a Job needs is there when it runs, and goes with it.

use serde_json::Value;

use crate::render::{find, objects, title};

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
    let objects = objects(&[]);
    let jobs: Vec<&Value> = objects.iter().filter(|o| o["kind"] == "Job").collect();
    assert_eq!(jobs.len(), 3);
    for job in jobs {
        let account = job["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap();
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
        assert_eq!(stays, title(object) == "Job spiderpool-init", "{}: {policy}", title(object));
    }
    let clean = find(&objects, "Job", "spiderpool-controller-hook-pre-delete");
    let environment = clean["spec"]["template"]["spec"]["containers"][0]["env"].to_string();
    assert!(environment.contains(r#""value":"spiderpool-init""#), "{environment}");
}

#[test]
fn every_job_has_a_deadline_below_helms() {
    for job in objects(&[]).iter().filter(|o| o["kind"] == "Job") {
        let seconds = job["spec"]["activeDeadlineSeconds"].as_u64().unwrap();
        assert!(seconds < 300, "{}", title(job));
    }
}

/// Helm leaves definitions alone that are there, as after an uninstallation that kept addresses.
#[test]
fn an_installation_brings_kept_definitions_up_to_date() {
    let first = |values: &[&str]| {
        let objects = objects(values);
        find(&objects, "Job", "spiderpool-init")["spec"]["template"]["spec"]["initContainers"][0]["args"][0]
            .clone()
    };
    assert_eq!(first(&[]), "apply-crds");
    assert_eq!(first(&["--is-upgrade"]), Value::Null, "the hook before the upgrade has done it");
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
