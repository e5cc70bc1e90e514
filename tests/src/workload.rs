//! Deployments and StatefulSets on a cluster whose pods have an underlay NIC by Multus, and what one knows about their pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::dual::Dual;
use crate::kubectl::Kubectl as _;
use crate::matrix::DefaultRoute;
use crate::poll;

/// Where Multus writes what the networks answered.
const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// How long pods may take to run: Kubernetes' own components wait up to half a minute before they look again for an
/// API server that was away, one after the other.
const START_LIMIT: Duration = Duration::from_mins(2);

/// Which controller makes the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// A Deployment's.
    Deployment,
    /// A StatefulSet's: a pod that ends is followed by one of the same name.
    StatefulSet,
}

/// What a Deployment, or a StatefulSet, is made from; its pods are in the namespace `default`.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// What it is.
    pub controller: Controller,
    /// Its name, and the value of its pods' label `app`.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// The node of all pods; any if none.
    pub node: Option<String>,
    /// The NetworkAttachmentDefinitions of further NICs, `NAMESPACE/NAME`.
    pub networks: Vec<String>,
    /// The NIC with the default route.
    pub default_route: Option<DefaultRoute>,
    /// Further annotations of the pods.
    pub annotations: Vec<(String, String)>,
}

impl Deployment {
    /// One pod with eth0 alone.
    pub fn plain(name: &str) -> Self {
        Self {
            controller: Controller::Deployment,
            name: name.to_owned(),
            replicas: 1,
            node: None,
            networks: Vec::new(),
            default_route: None,
            annotations: Vec::new(),
        }
    }

    /// One pod with net1 on `network`.
    pub fn underlay(name: &str, network: &str) -> Self {
        Self { networks: vec![network.to_owned()], ..Self::plain(name) }
    }

    /// The same on one node.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }

    /// The same with several pods.
    #[must_use]
    pub fn times(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// The same as a StatefulSet.
    #[must_use]
    pub fn stateful(self) -> Self {
        Self { controller: Controller::StatefulSet, ..self }
    }

    /// `KIND/NAME`, as kubectl takes it.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind().to_lowercase(), self.name)
    }

    fn kind(&self) -> &'static str {
        match self.controller {
            Controller::Deployment => "Deployment",
            Controller::StatefulSet => "StatefulSet",
        }
    }

    /// The object as a user writes it.
    pub fn manifest(&self) -> Value {
        let mut annotations: serde_json::Map<String, Value> =
            self.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        if !self.networks.is_empty() {
            annotations.insert("k8s.v1.cni.cncf.io/networks".into(), json!(self.networks.join(",")));
        }
        if let Some(route) = self.default_route {
            annotations.insert("ipam.spidernet.io/default-route-nic".into(), json!(route.nic()));
        }
        let node = self.node.as_ref().map(|node| json!({"kubernetes.io/hostname": node}));
        json!({
            "apiVersion": "apps/v1", "kind": self.kind(), "metadata": {"name": self.name},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}, "annotations": annotations},
                    "spec": {
                        "nodeSelector": node,
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "main", "image": "spiderpool.test/pause:1", "imagePullPolicy": "Never",
                        }],
                    },
                },
            },
        })
    }

    /// Applies it and waits until all its pods run.
    pub fn start(&self, cluster: &Cluster) -> Result<Vec<RunningPod>> {
        cluster.apply(&self.manifest().to_string())?;
        self.wait_running(cluster)
    }

    /// Waits until exactly `replicas` pods are there and all of them run.
    pub fn wait_running(&self, cluster: &Cluster) -> Result<Vec<RunningPod>> {
        poll::until(&format!("{} running pods of {}", self.replicas, self.name), START_LIMIT, || {
            let pods = pods(cluster, &self.name)?;
            ensure!(pods.len() == self.replicas as usize, "{} pods are there", pods.len());
            pods.iter().map(|pod| self.running(pod)).collect()
        })
        .with_context(|| why_not(cluster, &self.name))
    }

    fn running(&self, pod: &core::Pod) -> Result<RunningPod> {
        let pod = RunningPod::of(pod)?;
        ensure!(pod.underlay.len() == self.networks.len(), "{} has {} NICs", pod.name, pod.underlay.len());
        Ok(pod)
    }

    /// Deletes it and waits until its pods are gone.
    pub fn delete(&self, cluster: &Cluster) -> Result<()> {
        cluster.kubectl(&["delete", &self.reference(), "--wait=false"])?;
        self.wait_gone(cluster)
    }

    /// Waits until no pod of it is left.
    pub fn wait_gone(&self, cluster: &Cluster) -> Result<()> {
        poll::until(&format!("the end of the pods of {}", self.name), START_LIMIT, || {
            let left = pods(cluster, &self.name)?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .with_context(|| why_not(cluster, &self.name))
    }
}

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningPod {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// eth0's addresses.
    pub eth0: Dual,
    /// The addresses of net1, net2, ...
    pub underlay: Vec<Dual>,
}

impl RunningPod {
    fn of(pod: &core::Pod) -> Result<Self> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let status = pod.status.as_ref().context("a pod without status")?;
        ensure!(pod.metadata.deletion_timestamp.is_none(), "{name} is being deleted");
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        ensure!(ready, "{name} is {} and not ready", status.phase.as_deref().unwrap_or("without phase"));
        let parse = |texts: Vec<&str>| -> Result<Dual> {
            let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            Dual::from_addresses(&addresses).with_context(|| format!("{name} has the addresses {texts:?}"))
        };
        let eth0 = parse(status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect())?;
        let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(NETWORK_STATUS));
        let networks: Vec<Value> = serde_json::from_str(text.map_or("[]", String::as_str))?;
        let nic = |network: &Value| network["interface"].as_str().unwrap_or_default().starts_with("net");
        let underlay = networks
            .iter()
            .filter(|network| nic(network))
            .map(|network| {
                let ips = network["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
                parse(ips.iter().filter_map(Value::as_str).collect())
            })
            .collect::<Result<_>>()?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        Ok(Self { name, uid: pod.metadata.uid.clone().unwrap_or_default(), node, eth0, underlay })
    }

    /// The addresses of net1.
    pub fn net1(&self) -> Result<Dual> {
        self.underlay.first().copied().with_context(|| format!("{} has no net1", self.name))
    }
}

/// The pods with the label `app`, in whatever state.
pub fn pods(cluster: &Cluster, app: &str) -> Result<Vec<core::Pod>> {
    cluster.with_client(async |client| {
        let wanted = ListParams::default().labels(&format!("app={app}"));
        Ok(Api::<core::Pod>::default_namespaced(client).list(&wanted).await?.items)
    })
}

/// What `kubectl describe` says of pods that do not do what was expected.
fn why_not(cluster: &Cluster, app: &str) -> String {
    let described = cluster.kubectl(&["describe", "pods", "--selector", &format!("app={app}")]);
    let text = described.unwrap_or_else(|error| format!("{error:#}"));
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("Events:")).collect();
    lines.join("\n")
}

/// An address in use, as its object says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldAddress {
    /// The address, without prefix length.
    pub address: IpAddr,
    /// The UID of its pod.
    pub pod_uid: String,
    /// The pod's node.
    pub node: Option<String>,
}

/// All SpiderIPAddress objects.
pub fn held_addresses(cluster: &Cluster) -> Result<Vec<HeldAddress>> {
    let list: Value = serde_json::from_str(&cluster.kubectl(&["get", "spideripaddresses", "-o", "json"])?)?;
    let mut held = Vec::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let spec = &item["spec"];
        let text = spec["address"].as_str().and_then(|text| text.split('/').next()).unwrap_or_default();
        held.push(HeldAddress {
            address: text.parse().with_context(|| format!("{item}"))?,
            pod_uid: spec["podUID"].as_str().unwrap_or_default().to_owned(),
            node: spec["node"].as_str().map(str::to_owned),
        });
    }
    held.sort();
    Ok(held)
}

/// Fails unless the objects hold exactly what the pods have: nothing lost, nothing doubled, nothing left.
pub fn check_addresses(cluster: &Cluster, pods: &[RunningPod]) -> Result<()> {
    let mut expected = Vec::new();
    for pod in pods {
        for dual in &pod.underlay {
            for address in [dual.v4.into(), dual.v6.into()] {
                expected.push(HeldAddress {
                    address,
                    pod_uid: pod.uid.clone(),
                    node: Some(pod.node.clone()),
                });
            }
        }
    }
    expected.sort();
    if let Some(twice) = expected.windows(2).find(|pair| pair[0].address == pair[1].address) {
        bail!("two pods have {}", twice[0].address);
    }
    let held = held_addresses(cluster)?;
    let lost: Vec<_> = expected.iter().filter(|address| !held.contains(address)).collect();
    let left: Vec<_> = held.iter().filter(|address| !expected.contains(address)).collect();
    ensure!(lost.is_empty() && left.is_empty(), "lost: {lost:?}; left: {left:?}");
    Ok(())
}
