//! The Lease by which an agent says what runs on its node while that is not ready: a real agent, processes in cgroups with
//! the names that a kubelet gives them, and the node's status by hand.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use spiderpool_api::agent::path;
use spiderpool_api::node_lease;
use spiderpool_testbox::cgroup;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::process::Process;
use spiderpool_tests::{poll, privilege};
use support::{Bench, LIMIT, TestPod};

/// The namespace of the agents of these tests.
const NAMESPACE: &str = "kube-system";

/// A process in the cgroup of a pod.
struct Sandbox {
    process: Option<Process>,
    group: PathBuf,
}

impl Sandbox {
    fn start(bench: &Bench<'_>, pod: &TestPod) -> Self {
        let group = PathBuf::from(format!("spiderpool-test-{}", pod.uid));
        let leaf = group.join("kubepods/besteffort").join(format!("pod{}", pod.uid)).join("container");
        cgroup::create(&leaf).unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("infinity");
        fs::create_dir_all(bench.folder("sandboxes")).unwrap();
        let log = bench.folder("sandboxes").join(&pod.uid);
        let process = Process::start(&format!("sandbox of {}", pod.name), &sleep, &log).unwrap();
        let sandbox = Self { process: Some(process), group };
        for hierarchy in cgroup::hierarchies().unwrap() {
            let processes = hierarchy.mount.join(&leaf).join("cgroup.procs");
            fs::write(processes, sandbox.process.as_ref().unwrap().id().to_string()).unwrap();
        }
        sandbox
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.process.take());
        // A cgroup is empty a moment after its last process was waited for.
        let removed = poll::until("removal of the cgroup", LIMIT, || {
            anyhow::ensure!(cgroup::remove(&self.group)?, "it is in use");
            Ok(())
        });
        if let Err(error) = removed {
            eprintln!("{}: {error:#}", self.group.display());
        }
    }
}

fn lease(bench: &Bench<'_>, node: &str) -> Option<Lease> {
    let name = node_lease::name(&bench.name(node).parse().unwrap());
    let arguments = ["get", "lease", "-n", NAMESPACE, &name, "-o", "json", "--ignore-not-found"];
    let text = ControlPlane::shared().kubectl(&arguments).unwrap();
    (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())
}

fn running(lease: &Lease) -> BTreeSet<String> {
    node_lease::running_pods(lease).map(|uid| uid.as_str().to_owned()).collect()
}

/// When it was last written.
fn renewed(lease: &Lease) -> k8s_openapi::jiff::Timestamp {
    lease.spec.as_ref().unwrap().renew_time.as_ref().unwrap().0
}

/// The Lease once it is as `check` wants it.
async fn lease_that(
    bench: &Bench<'_>,
    node: &str,
    what: &str,
    check: impl Fn(&Lease) -> anyhow::Result<()>,
) -> Lease {
    poll::until_async(what, LIMIT, || async {
        let lease = lease(bench, node).ok_or_else(|| anyhow::anyhow!("there is no Lease"))?;
        check(&lease).map(|()| lease)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_its_node_is_not_ready_an_agent_renews_a_lease_with_the_pods_that_have_processes() {
    if !privilege::root_or_skip("cgroups of pods") {
        return;
    }
    let bench = Bench::new("node-lease").await;
    bench.pool("p", "10.140.0.0/24", &["10.140.0.2-10.140.0.9"], &json!({}));
    bench.node("n1", true);
    let (runs, ended) = (bench.pod_with_pool("runs", "n1", "p"), bench.pod_with_pool("ended", "n1", "p"));
    let without_address = bench.pod_with_pool("without-address", "n1", "p");
    let sandboxes = [&runs, &without_address].map(|pod| Sandbox::start(&bench, pod));
    let agent = bench.agent("n1").await;
    for pod in [&runs, &ended] {
        agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap().ok().unwrap();
    }
    assert!(lease(&bench, "n1").is_none(), "the node is ready");

    bench.node("n1", false);
    let first = lease_that(&bench, "n1", "a Lease", |_| Ok(())).await;
    assert_eq!(running(&first), [runs.uid.clone()].into());
    assert_eq!(node_lease::node(&first).unwrap().as_str(), bench.name("n1"));
    let owner = &first.metadata.owner_references.as_ref().unwrap()[0];
    let uid =
        ControlPlane::shared().kubectl(&["get", "node", &bench.name("n1"), "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!((owner.kind.as_str(), &owner.uid), ("Node", &uid.unwrap()));

    // By an agent that has just started as well.
    agent.kill().unwrap();
    let agent = bench.agent("n1").await;
    let again = lease_that(&bench, "n1", "a renewal", |lease| {
        anyhow::ensure!(renewed(lease) > renewed(&first), "it is the old one");
        Ok(())
    })
    .await;
    assert_eq!((&again.metadata.uid, running(&again)), (&first.metadata.uid, running(&first)));
    drop(sandboxes);
    lease_that(&bench, "n1", "a renewal without the pod that has ended", |lease| {
        anyhow::ensure!(running(lease).is_empty(), "{:?}", running(lease));
        Ok(())
    })
    .await;

    bench.node("n1", true);
    bench.until("the Lease is deleted", async || lease(&bench, "n1").is_none()).await;
    assert_eq!(agent.log().unwrap().matches("cannot be written or deleted").count(), 0);
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_an_earlier_agent_left_is_deleted_when_the_node_is_ready() {
    let bench = Bench::new("lease-left").await;
    bench.node("n1", false);
    let agent = bench.agent("n1").await;
    lease_that(&bench, "n1", "a Lease", |_| Ok(())).await;
    agent.stop().unwrap();
    assert!(lease(&bench, "n1").is_some(), "the next agent renews it");
    bench.node("n1", true);
    let agent = bench.agent("n1").await;
    bench.until("the Lease is deleted", async || lease(&bench, "n1").is_none()).await;
    agent.stop().unwrap();
}
