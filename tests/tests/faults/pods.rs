//! Pods that come and go, as kubelets and runtimes treat them: an ADD that fails is followed by a DEL and by another sandbox, a DEL
//! that gets no answer by the pod's end all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::Method;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::agents::Agent;
use super::ledger::{Ledger, Live};

/// Within this time an ADD must succeed: it is repeated while something is away.
const ADD_LIMIT: Duration = Duration::from_mins(2);
/// So often a DEL is repeated.
const DELS: usize = 8;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Where pods live.
pub(crate) struct Cluster {
    pub(crate) namespace: String,
    pub(crate) client: Client,
    pub(crate) agents: Vec<Agent>,
    pub(crate) annotation: (String, String),
    pub(crate) ledger: Ledger,
    /// No pod is made any more.
    pub(crate) over: AtomicBool,
}

/// What pods are made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// All pods of a maker have one name, and keep their address.
    StatefulSet,
    /// They have one name, and keep nothing.
    ThirdParty,
    /// Each has a name of its own.
    ReplicaSet,
    /// So has each of these.
    Nothing,
}

impl Workload {
    fn owner(self) -> Value {
        let (version, kind, name) = match self {
            Self::StatefulSet => ("apps/v1", "StatefulSet", "web"),
            Self::ThirdParty => ("apps.kruise.io/v1beta1", "StatefulSet", "cache"),
            Self::ReplicaSet => ("apps/v1", "ReplicaSet", "shop-1"),
            Self::Nothing => return json!([]),
        };
        json!([{"apiVersion": version, "kind": kind, "name": name, "uid": name, "controller": true}])
    }
}

/// One that makes pods, one after the other; the last one lives on.
pub(crate) struct Maker {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) number: usize,
    pub(crate) workload: Workload,
    pub(crate) random: fastrand::Rng,
}

impl Maker {
    pub(crate) async fn run(mut self) {
        for life in 0.. {
            if let Err(error) = self.live(life).await {
                self.cluster.ledger.violated(format!("maker {}: {error:#}", self.number));
                return;
            }
            if self.cluster.over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn live(&mut self, life: usize) -> Result<()> {
        let cluster = Arc::clone(&self.cluster);
        let agent = &cluster.agents[self.random.usize(..cluster.agents.len())];
        let name = match self.workload {
            Workload::StatefulSet => format!("web-{}", self.number),
            Workload::ThirdParty => format!("cache-{}", self.number),
            Workload::ReplicaSet => format!("shop-1-{}-{life}", self.number),
            Workload::Nothing => format!("pod-{}-{life}", self.number),
        };
        let uid = self.create(&name, agent.node()).await?;
        let pod = Live { uid, name };
        let mut sandbox = 0;
        let address = self.add(agent, &pod, &mut sandbox).await?;
        cluster.ledger.given(&pod, &address);
        if self.workload == Workload::StatefulSet {
            cluster.ledger.expect_kept(&pod.name, &address);
        }
        tokio::time::sleep(Duration::from_millis(self.random.u64(20..900))).await;
        if self.random.u8(..5) == 0 {
            // Its sandbox dies, and another one follows.
            self.del(agent, &pod, sandbox).await;
            sandbox += 1;
            let again = self.add(agent, &pod, &mut sandbox).await?;
            ensure!(again == address, "{pod:?} had {address}, and its next sandbox was given {again}");
        }
        if cluster.over.load(Ordering::Relaxed) && self.random.bool() {
            return Ok(());
        }
        cluster.ledger.ends(&pod);
        let torn_down = self.random.u8(..4) != 0;
        if torn_down && self.random.bool() {
            // The runtime is quicker than the kubelet.
            self.end(&pod).await?;
            self.del(agent, &pod, sandbox).await;
            return self.delete(&pod).await;
        }
        self.end(&pod).await?;
        self.delete(&pod).await?;
        if torn_down {
            self.del(agent, &pod, sandbox).await;
        }
        Ok(())
    }

    /// All pods end, whoever has made them. No DEL comes.
    pub(crate) async fn end_all(&self) -> Result<()> {
        for pod in self.cluster.ledger.live().into_values() {
            self.cluster.ledger.ends(&pod);
            self.end(&pod).await?;
            self.delete(&pod).await?;
        }
        Ok(())
    }

    fn pods(&self) -> Api<core::Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace)
    }

    async fn create(&self, name: &str, node: &str) -> Result<String> {
        let Cluster { namespace, annotation: (key, value), .. } = &*self.cluster;
        let owners = self.workload.owner();
        let object: core::Pod = serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "annotations": {key: value}, "ownerReferences": owners},
            "spec": {
                "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "none"}],
            },
        }))?;
        let (pods, parameters) = (&self.pods(), &PostParams::default());
        let object = &object;
        persist("create a pod", || async move {
            let made = match pods.create(parameters, object).await {
                // The answer to an earlier attempt was lost.
                Err(kube::Error::Api(status)) if status.code == 409 => pods.get(name).await?,
                made => made?,
            };
            ensure!(made.metadata.deletion_timestamp.is_none(), "it is that of an earlier pod");
            Ok(made.metadata.uid.unwrap_or_default())
        })
        .await
    }

    /// ADDs, each for another sandbox, until one succeeds. The number of that sandbox stays in `sandbox`.
    async fn add(&self, agent: &Agent, pod: &Live, sandbox: &mut usize) -> Result<String> {
        let deadline = Instant::now() + ADD_LIMIT;
        loop {
            let answer = agent.ask(Method::POST, &self.request(pod, *sandbox)).await;
            let error = match answer {
                Ok(body) => {
                    let address = body["ips"][0]["address"].as_str().unwrap_or_default();
                    return Ok(address.split('/').next().unwrap_or_default().to_owned());
                }
                Err(error) => error,
            };
            ensure!(Instant::now() < deadline, "{pod:?} gets no address: {error:#}");
            self.del(agent, pod, *sandbox).await;
            *sandbox += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// DEL, repeated a few times. A runtime that gets no answer takes it for done.
    async fn del(&self, agent: &Agent, pod: &Live, sandbox: usize) {
        for _ in 0..DELS {
            if agent.ask(Method::DELETE, &self.request(pod, sandbox)).await.is_ok() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn request(&self, pod: &Live, sandbox: usize) -> Value {
        json!({
            "containerID": format!("{}-{sandbox}", pod.uid), "ifName": "eth0", "netNamespace": "/none",
            "podNamespace": self.cluster.namespace, "podName": pod.name, "podUID": pod.uid,
        })
    }

    /// The kubelet says that nothing of the pod runs.
    async fn end(&self, pod: &Live) -> Result<()> {
        let ended = json!([{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0}},
        }]);
        let status = json!({"status": {"phase": "Failed", "containerStatuses": ended}});
        let (pods, patch, parameters) = (&self.pods(), &Patch::Merge(&status), &PatchParams::default());
        persist("end a pod", || async move {
            pods.patch_status(&pod.name, parameters, patch).await?;
            Ok(())
        })
        .await
    }

    async fn delete(&self, pod: &Live) -> Result<()> {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let (pods, at_once) = (&self.pods(), &at_once);
        persist("delete a pod", || async move {
            match pods.delete(&pod.name, at_once).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                outcome => Ok(outcome.map(drop)?),
            }
        })
        .await
    }
}

/// Repeats a request while the API server is away.
async fn persist<T, F: Future<Output = Result<T>>>(what: &str, request: impl Fn() -> F) -> Result<T> {
    let deadline = Instant::now() + ADD_LIMIT;
    loop {
        match request().await {
            Err(error) if Instant::now() >= deadline => return Err(error.context(what.to_owned())),
            Err(_) => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}
