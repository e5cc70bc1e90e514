//! What the tests of the agent share: pools, pods and agents with names of their own on the shared control plane.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod senseless;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::kubevirt::{Instance, KubeVirt, Migration};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;

/// For everything that follows by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The same after a fault that is over: whoever tries again waits for a minute at most.
const SETTLED: Duration = Duration::from_secs(90);

/// One test's share of the control plane.
pub(crate) struct Bench<'a> {
    plane: &'a ControlPlane,
    client: Client,
    parts: Parts,
}

/// What of it survives a restart of the API server.
pub(crate) struct Parts {
    prefix: String,
    folder: tempfile::TempDir,
}

/// A pod as the runtime knows it.
#[derive(Debug, Clone)]
pub(crate) struct TestPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl TestPod {
    pub(crate) fn add(&self, nic: &str, container: &str) -> Value {
        json!({
            "containerID": container, "ifName": nic, "netNamespace": "/none", "podNamespace": self.namespace,
            "podName": self.name, "podUID": self.uid, "network": format!("network-{nic}"),
        })
    }

    pub(crate) fn del(&self, nic: &str, container: &str) -> Value {
        json!({
            "containerID": container, "ifName": nic, "podNamespace": self.namespace, "podName": self.name,
            "podUID": self.uid,
        })
    }
}

impl Bench<'static> {
    /// On the control plane that all tests of the binary share. `prefix` is the test's own.
    pub(crate) async fn new(prefix: &str) -> Self {
        Self::on(ControlPlane::shared(), prefix).await
    }
}

impl<'a> Bench<'a> {
    pub(crate) async fn on(plane: &'a ControlPlane, prefix: &str) -> Self {
        let parts = Parts { prefix: prefix.to_owned(), folder: tempfile::tempdir().unwrap() };
        let client = plane.client().await.unwrap();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": prefix}});
        plane.apply_object(&namespace).unwrap();
        Self { plane, client, parts }
    }

    pub(crate) fn into_parts(self) -> (Parts, Client) {
        (self.parts, self.client)
    }

    pub(crate) fn from_parts(plane: &'a ControlPlane, (parts, client): (Parts, Client)) -> Self {
        Self { plane, client, parts }
    }

    /// The control plane that it is a part of.
    pub(crate) fn plane(&self) -> &'a ControlPlane {
        self.plane
    }

    /// The full name of something that the test calls by a short one.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.parts.prefix)
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.plane.apply_object(object).unwrap();
    }

    pub(crate) fn pool(&self, name: &str, subnet: &str, ips: &[&str], more: &Value) {
        let mut spec = json!({"subnet": subnet, "ips": ips});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": self.name(name)}, "spec": spec,
        }));
    }

    pub(crate) fn pool_annotation(&self, pool: &str) -> Vec<(String, String)> {
        vec![("ipam.spidernet.io/ippool".to_owned(), json!({"ipv4": [self.name(pool)]}).to_string())]
    }

    pub(crate) fn pod_object(&self, name: &str, node: &str, annotations: &[(String, String)]) -> Value {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        json!({
            "metadata": {"namespace": self.parts.prefix, "name": name, "annotations": annotations},
            "spec": {
                "nodeName": self.name(node), "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "none"}],
            },
        })
    }

    pub(crate) async fn create_pods(&self, objects: Vec<Value>) -> Vec<TestPod> {
        let api = Api::<core::Pod>::namespaced(self.client.clone(), &self.parts.prefix);
        join_all(objects.into_iter().map(|object| {
            let api = api.clone();
            async move {
                let pod = serde_json::from_value(object).unwrap();
                let meta = api.create(&PostParams::default(), &pod).await.unwrap().metadata;
                TestPod {
                    namespace: meta.namespace.unwrap(),
                    name: meta.name.unwrap(),
                    uid: meta.uid.unwrap(),
                }
            }
        }))
        .await
    }

    /// A pod bound to a node of this test.
    pub(crate) fn pod(&self, name: &str, node: &str, annotations: &[(&str, &str)]) -> TestPod {
        self.labelled_pod(name, node, &json!({}), annotations)
    }

    /// The same with labels.
    pub(crate) fn labelled_pod(
        &self,
        name: &str,
        node: &str,
        labels: &Value,
        annotations: &[(&str, &str)],
    ) -> TestPod {
        let annotations: Vec<_> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut object = self.pod_object(name, node, &annotations);
        object["metadata"]["labels"] = labels.clone();
        self.wait(self.create_pods(vec![object])).remove(0)
    }

    /// A pod that this workload controls, with the label that its template has in these tests.
    pub(crate) fn pod_of(
        &self,
        api_version: &str,
        kind: &str,
        workload: &str,
        name: &str,
        node: &str,
        annotations: &[(&str, &str)],
    ) -> TestPod {
        let annotations: Vec<_> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut object = self.pod_object(name, node, &annotations);
        // It runs on for long where its kubelet is not heard of.
        object["spec"]["terminationGracePeriodSeconds"] = json!(600);
        object["metadata"]["labels"] = json!({"app": workload});
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": api_version, "kind": kind, "name": workload, "uid": workload, "controller": true,
        }]);
        self.wait(self.create_pods(vec![object])).remove(0)
    }

    /// A pod of a StatefulSet, whether that exists or not.
    pub(crate) fn pod_of_stateful_set(
        &self,
        set: &str,
        ordinal: u32,
        node: &str,
        annotations: &[(&str, &str)],
    ) -> TestPod {
        self.pod_of("apps/v1", "StatefulSet", set, &format!("{set}-{ordinal}"), node, annotations)
    }

    /// KubeVirt's objects in the test's namespace.
    pub(crate) fn kubevirt(&self) -> KubeVirt<'_> {
        KubeVirt::install(self.plane, &self.parts.prefix).unwrap()
    }

    /// The pod that an instance runs in, as KubeVirt makes it; with a migration, the one that it moves to.
    pub(crate) fn launcher(
        &self,
        instance: &Instance,
        suffix: &str,
        node: &str,
        migration: Option<&Migration>,
        annotations: &[(String, String)],
    ) -> TestPod {
        let name = format!("virt-launcher-{}-{suffix}", instance.name);
        let mut object = self.pod_object(&name, node, annotations);
        object["spec"]["terminationGracePeriodSeconds"] = json!(600);
        let meta = &mut object["metadata"];
        meta["labels"] = json!({"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": instance.uid});
        meta["annotations"]["kubevirt.io/domain"] = json!(instance.name);
        if let Some(migration) = migration {
            meta["labels"]["kubevirt.io/migrationJobUID"] = json!(migration.uid);
            meta["annotations"]["kubevirt.io/migrationJobName"] = json!(migration.name);
        }
        meta["ownerReferences"] = json!([{
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": instance.name,
            "uid": instance.uid, "controller": true, "blockOwnerDeletion": true,
        }]);
        self.wait(self.create_pods(vec![object])).remove(0)
    }

    /// A StatefulSet with so many pods. No controller makes them.
    pub(crate) fn stateful_set(&self, name: &str, replicas: u32) {
        let labels = json!({"app": name});
        let containers = json!([{"name": "c", "image": "none"}]);
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
        self.apply(&json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"namespace": self.parts.prefix, "name": name},
            "spec": {
                "replicas": replicas, "serviceName": name, "selector": {"matchLabels": labels}, "template": template,
            },
        }));
    }

    pub(crate) fn delete_stateful_set(&self, name: &str) {
        self.plane.kubectl(&["delete", "statefulset", "-n", &self.parts.prefix, name]).unwrap();
    }

    /// The object of an address.
    pub(crate) fn address(&self, name: &str) -> Option<Value> {
        self.plane.find(Kind::spiderpool("SpiderIPAddress"), "", name).unwrap()
    }

    pub(crate) fn delete_address(&self, name: &str) {
        self.plane.kubectl(&["delete", "spideripaddress", name]).unwrap();
    }

    /// The same, with this grace period.
    pub(crate) fn pod_with_grace(&self, name: &str, node: &str, pool: &str, seconds: u32) -> TestPod {
        let mut object = self.pod_object(name, node, &self.pool_annotation(pool));
        object["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
        self.wait(self.create_pods(vec![object])).remove(0)
    }

    pub(crate) fn pod_with_pool(&self, name: &str, node: &str, pool: &str) -> TestPod {
        let object = self.pod_object(name, node, &self.pool_annotation(pool));
        self.wait(self.create_pods(vec![object])).remove(0)
    }

    /// A pod whose pool the agent has to know by its watch: it is named by a wildcard, and nobody reads it therefore.
    pub(crate) fn pod_with_watched_pool(&self, name: &str, node: &str, pool: &str) -> TestPod {
        let pools = json!({"ipv4": [format!("{}*", self.name(pool))]}).to_string();
        self.pod(name, node, &[("ipam.spidernet.io/ippool", &pools)])
    }

    /// Its kubelet says that its container runs.
    pub(crate) fn run_pod(&self, pod: &TestPod) {
        let running = container(&json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}));
        self.pod_status(pod, &json!({"phase": "Running", "containerStatuses": running}));
    }

    /// As a kubelet ends it: first it says that nothing of the pod runs, then it deletes it.
    pub(crate) fn delete_pod(&self, pod: &TestPod) {
        let ended = container(&json!({"terminated": {"exitCode": 143}}));
        self.pod_status(pod, &json!({"phase": "Failed", "containerStatuses": ended}));
        self.force_delete_pod(pod);
    }

    /// As `kubectl delete --force` does it: its kubelet has not heard of it yet.
    pub(crate) fn force_delete_pod(&self, pod: &TestPod) {
        let api = Api::<core::Pod>::namespaced(self.client.clone(), &pod.namespace);
        let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.wait(async { api.delete(&pod.name, &parameters).await }).unwrap();
    }

    /// The pod begins its grace period, which is long.
    pub(crate) fn terminate_pod(&self, pod: &TestPod) {
        self.terminate_pod_in(pod, 600);
    }

    /// The pod begins its grace period of so many seconds.
    pub(crate) fn terminate_pod_in(&self, pod: &TestPod, seconds: u32) {
        let api = Api::<core::Pod>::namespaced(self.client.clone(), &pod.namespace);
        let parameters = DeleteParams { grace_period_seconds: Some(seconds), ..DeleteParams::default() };
        self.wait(async { api.delete(&pod.name, &parameters).await }).unwrap();
    }

    /// A node of this test, and whether it says that it is ready.
    pub(crate) fn node(&self, name: &str, is_ready: bool) {
        self.labelled_node(name, is_ready, &json!({}));
    }

    /// The same with these labels.
    pub(crate) fn labelled_node(&self, name: &str, is_ready: bool, labels: &Value) {
        let (name, status) = (self.name(name), if is_ready { "True" } else { "Unknown" });
        self.apply(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}),
        );
        let status = json!({"conditions": [{"type": "Ready", "status": status}]});
        self.plane.patch_status(Kind("v1", "Node"), "", &name, &status).unwrap();
    }

    /// The test's own namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.parts.prefix
    }

    pub(crate) fn label_namespace(&self, label: &str) {
        self.plane.kubectl(&["label", "namespace", &self.parts.prefix, "--overwrite", label]).unwrap();
    }

    pub(crate) fn annotate_namespace(&self, key: &str, value: &str) {
        let annotation = format!("{key}={value}");
        let arguments = ["annotate", "namespace", &self.parts.prefix, "--overwrite", &annotation];
        self.plane.kubectl(&arguments).unwrap();
    }

    /// The pod ends and will not be restarted.
    pub(crate) fn end_pod(&self, pod: &TestPod) {
        self.fail_pod(pod, "Evicted");
    }

    /// The pod ends for this reason.
    pub(crate) fn fail_pod(&self, pod: &TestPod, reason: &str) {
        self.pod_status(pod, &json!({"phase": "Failed", "reason": reason}));
    }

    /// The pod's container has ended well.
    pub(crate) fn succeed_pod(&self, pod: &TestPod) {
        let ended = container(&json!({"terminated": {"exitCode": 0}}));
        self.pod_status(pod, &json!({"phase": "Succeeded", "containerStatuses": ended}));
    }

    fn pod_status(&self, pod: &TestPod, status: &Value) {
        self.plane.patch_status(Kind("v1", "Pod"), &pod.namespace, &pod.name, status).unwrap();
    }

    /// A SpiderCoordinator with a status, as the controller writes it.
    pub(crate) fn coordinator(&self, name: &str, status: &Value) {
        self.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator",
            "metadata": {"name": name}, "spec": {},
        }));
        self.plane.patch_status(Kind::spiderpool("SpiderCoordinator"), "", name, status).unwrap();
    }

    /// Waits for what follows by itself.
    pub(crate) async fn until(&self, what: &str, check: impl AsyncFn() -> bool) {
        self.until_ok(what, async || {
            anyhow::ensure!(check().await, "not so");
            Ok(())
        })
        .await;
    }

    /// As [`Self::until`], with an error that says what was there instead.
    pub(crate) async fn until_ok(&self, what: &str, check: impl AsyncFn() -> anyhow::Result<()>) {
        poll::until_async(what, LIMIT, &check).await.unwrap();
    }

    #[expect(clippy::unused_self, reason = "reads as the bench's own")]
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
    }

    /// The folder of a node's agent, the same for each agent of the node.
    pub(crate) fn folder(&self, node: &str) -> PathBuf {
        self.parts.folder.path().join(node)
    }

    pub(crate) fn identity(&self, node: &str) -> PathBuf {
        self.plane.agent(&self.name(node)).unwrap()
    }

    pub(crate) async fn agent(&self, node: &str) -> StandaloneAgent {
        self.agent_by(node, self.identity(node)).await
    }

    /// An agent with these keys in its configuration file.
    pub(crate) async fn agent_with(&self, node: &str, file: &Value) -> StandaloneAgent {
        let (folder, name, access) = (self.folder(node), self.name(node), self.identity(node));
        StandaloneAgent::start_with(&folder, &name, &access, file).await.unwrap()
    }

    pub(crate) async fn agent_by(&self, node: &str, kubeconfig: PathBuf) -> StandaloneAgent {
        StandaloneAgent::start(&self.folder(node), &self.name(node), &kubeconfig).await.unwrap()
    }

    /// The addresses that a pod holds, as objects.
    pub(crate) fn held(&self, pod: &TestPod) -> Vec<Value> {
        let of_pod = ListParams::default().labels(&format!("ipam.spidernet.io/pod-uid={}", pod.uid));
        self.plane.list(Kind::spiderpool("SpiderIPAddress"), "", &of_pod).unwrap()
    }

    /// Waits until the addresses of a pool are exactly those that these pods were given: none is lost, and nobody else has one.
    pub(crate) async fn until_exactly(&self, pool: &str, given: &[(&TestPod, BTreeSet<String>)]) {
        let of_pool = ListParams::default().labels(&format!("ipam.spidernet.io/ippool={}", self.name(pool)));
        let given: BTreeSet<(String, String)> = given
            .iter()
            .flat_map(|(pod, addresses)| addresses.iter().map(|address| (address.clone(), pod.uid.clone())))
            .collect();
        poll::until_async(&format!("the addresses of {pool} are the living pods'"), SETTLED, async || {
            let listed = self.plane.list(Kind::spiderpool("SpiderIPAddress"), "", &of_pool)?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let owner = |object: &Value| (text(&object["spec"]["address"]), text(&object["spec"]["podUID"]));
            let held: BTreeSet<_> = listed.iter().map(owner).collect();
            anyhow::ensure!(held == given, "given {given:?}, held {held:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    pub(crate) fn find_endpoint(&self, pod: &TestPod) -> Option<Value> {
        self.plane.find(Kind::spiderpool("SpiderEndpoint"), &pod.namespace, &pod.name).unwrap()
    }

    /// The endpoint of this name.
    pub(crate) fn endpoint_named(&self, name: &str) -> Option<Value> {
        self.plane.find(Kind::spiderpool("SpiderEndpoint"), &self.parts.prefix, name).unwrap()
    }

    /// What the Events on a pod say.
    pub(crate) fn events(&self, pod: &TestPod) -> Vec<String> {
        messages(&self.plane.events(&pod.namespace, &format!("involvedObject.uid={}", pod.uid)).unwrap())
    }

    /// The endpoint, which follows the answer.
    pub(crate) async fn endpoint(&self, pod: &TestPod) -> Value {
        poll::until_async("the pod's SpiderEndpoint", LIMIT, || async {
            self.find_endpoint(pod).ok_or_else(|| anyhow::anyhow!("there is none"))
        })
        .await
        .unwrap()
    }
}

/// Does `work` for so many numbers at the same moment.
pub(crate) fn at_once(count: usize, work: impl Fn(usize) + Sync) {
    let (start, work) = (&Barrier::new(count), &work);
    thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || {
                start.wait();
                work(number);
            });
        }
    });
}

/// From now on, processes that this one starts have a lower limit of open files than they may have.
pub(crate) fn lower_limit_of_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
}

/// The limit of open files of a process, and what it may be.
pub(crate) fn limit_of_files(process: u32) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The addresses of an answer.
pub(crate) fn addresses(answer: &Value) -> BTreeSet<String> {
    answer["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

/// ADD must fail with 500 and a text that contains `part`.
pub(crate) async fn failure(agent: &StandaloneAgent, add: &Value, part: &str) {
    refused(agent, add, 500, part).await;
}

/// ADD must fail with 503, which the plugin takes for "try again later", and a text that contains `part`.
pub(crate) async fn outage(agent: &StandaloneAgent, add: &Value, part: &str) {
    refused(agent, add, 503, part).await;
}

async fn refused(agent: &StandaloneAgent, add: &Value, status: u16, part: &str) {
    let answer = agent.ask(http::Method::POST, spiderpool_api::agent::path::IP, add).await.unwrap();
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.failure().contains(part), "{part:?} is not in {answer:?}");
}

/// What Events say.
pub(crate) fn messages(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The status of a pod's only container.
fn container(state: &Value) -> Value {
    json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}
