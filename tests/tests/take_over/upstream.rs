//! Upstream's agent, as far as an API server sees it: it allocates by rewriting a pool's status, first address first, and then
//! writes the pod's endpoint. The objects have exactly the form of upstream's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::future::join_all;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Kind};

use crate::support::{Bench, TestPod};

const POOL: Kind = Kind::spiderpool("SpiderIPPool");

/// What the agents' service account may do, whoever's chart is installed, and with upstream's.
const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: agents-read}
rules:
  - {apiGroups: [spiderpool.spidernet.io], resources: ["*"], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: spiderpool-admin}
rules:
  - {apiGroups: [spiderpool.spidernet.io], resources: ["*"], verbs: [get, list, watch, create, patch, update, delete]}
"#;

/// The agents of an installation of upstream's.
pub(crate) struct UpstreamAgents<'a> {
    plane: &'a ControlPlane,
    client: Client,
    namespace: String,
}

/// Records as a pool's status has them.
pub(crate) type Records = BTreeMap<String, Value>;

impl<'a> UpstreamAgents<'a> {
    /// In the bench's namespace, with their rights.
    pub(crate) async fn new(plane: &'a ControlPlane, bench: &Bench<'_>) -> Self {
        let namespace = bench.namespace().to_owned();
        let user = format!("system:serviceaccount:{namespace}:spiderpool-agent");
        let kubeconfig = Kubeconfig::read_from(plane.identity(&user, None).unwrap()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let agents = Self { plane, client: Client::try_from(config).unwrap(), namespace };
        agents.grant();
        agents
    }

    fn binding(&self, role: &str) -> String {
        format!("{role}-{}", self.namespace)
    }

    fn bind(&self, role: &str) {
        let subject =
            json!({"kind": "ServiceAccount", "name": "spiderpool-agent", "namespace": self.namespace});
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": self.binding(role)}, "roleRef": reference, "subjects": [subject],
        });
        self.plane.apply(&binding.to_string()).unwrap();
    }

    /// Upstream's chart is installed.
    pub(crate) fn grant(&self) {
        self.plane.apply(RIGHTS).unwrap();
        self.bind("agents-read");
        self.bind("spiderpool-admin");
    }

    /// Ours has replaced it; its agents may still run.
    pub(crate) fn revoke(&self) {
        let binding = self.binding("spiderpool-admin");
        self.plane.kubectl(&["delete", "clusterrolebinding", &binding]).unwrap();
    }

    fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("spiderpool.spidernet.io", "v2beta1", kind);
        let resource = ApiResource::from_gvk(&kind);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// What a pool's status records.
    pub(crate) fn records(&self, pool: &str) -> Records {
        let found = self.plane.find(POOL, "", pool).unwrap().unwrap();
        records(&found)
    }

    /// Writes the whole status of a pool, as upstream's types have it: without what they do not know.
    async fn write(&self, pool: &str, change: impl Fn(&mut Records)) -> kube::Result<()> {
        let api = self.api("SpiderIPPool", None);
        loop {
            let mut found = api.get(pool).await?;
            let mut records = records(&found.data);
            change(&mut records);
            let mut status = json!({"allocatedIPCount": records.len(), "totalIPCount": 8});
            if !records.is_empty() {
                status["allocatedIPs"] = json!(json!(records).to_string());
            }
            found.data["status"] = status;
            match api.replace_status(pool, &PostParams::default(), &found).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                outcome => return outcome.map(drop),
            }
        }
    }

    /// Gives these addresses of the pool to pods.
    pub(crate) async fn record(&self, pool: &str, all: &[(IpAddr, &TestPod)]) -> kube::Result<()> {
        self.write(pool, |records| {
            for (ip, pod) in all {
                let name = format!("{}/{}", pod.namespace, pod.name);
                records.insert(ip.to_string(), json!({"pod": name, "podUid": pod.uid}));
            }
        })
        .await
    }

    /// Takes all records of a pod out.
    pub(crate) async fn release(&self, pool: &str, pod: &TestPod) {
        let uid = json!(pod.uid);
        self.write(pool, |records| records.retain(|_, record| record["podUid"] != uid)).await.unwrap();
    }

    /// The first address of these that the pool's status does not record, for a pod.
    pub(crate) async fn allocate(&self, pool: &str, ips: &[IpAddr], pod: &TestPod) -> kube::Result<IpAddr> {
        let used = self.records(pool);
        let free = ips.iter().find(|ip| !used.contains_key(&ip.to_string())).copied().unwrap();
        self.record(pool, &[(free, pod)]).await.map(|()| free)
    }

    /// Writes the endpoints of pods, each with its NICs.
    pub(crate) async fn endpoints(&self, all: &[(&TestPod, Endpoint)]) {
        for chunk in all.chunks(32) {
            join_all(chunk.iter().map(|(pod, endpoint)| self.endpoint(pod, endpoint))).await;
        }
    }

    async fn endpoint(&self, pod: &TestPod, endpoint: &Endpoint) {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid});
        let outlives = ["StatefulSet", "VirtualMachineInstance"].contains(&endpoint.owner);
        let owners = if outlives { json!([]) } else { json!([owner]) };
        let object = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderEndpoint",
            "metadata": {
                "name": pod.name, "namespace": pod.namespace, "finalizers": ["spiderpool.spidernet.io"],
                "ownerReferences": owners,
            },
            "status": {
                "current": {"uid": pod.uid, "node": endpoint.node, "ips": endpoint.ips},
                "ownerControllerType": endpoint.owner, "ownerControllerName": "web",
            },
        });
        let api = self.api("SpiderEndpoint", Some(&pod.namespace));
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let parameters = PatchParams::apply("upstream").force();
        api.patch(&pod.name, &parameters, &Patch::Apply(&object)).await.unwrap();
    }
}

/// What upstream writes of a pod beside the records.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) node: String,
    /// The kind of its workload.
    pub(crate) owner: &'static str,
    pub(crate) ips: Value,
}

/// An entry of an endpoint with an address of each family.
pub(crate) fn nic(name: &str, v4: (&str, &str), v6: Option<(&str, &str)>) -> Value {
    let mut entry =
        json!({"interface": name, "ipv4": v4.0, "ipv4Pool": v4.1, "vlan": 0, "cleanGateway": false});
    if let Some((address, pool)) = v6 {
        entry["ipv6"] = json!(address);
        entry["ipv6Pool"] = json!(pool);
    }
    entry
}

fn records(pool: &Value) -> Records {
    let text = pool["status"]["allocatedIPs"].as_str().unwrap_or("{}");
    serde_json::from_str(text).unwrap()
}
