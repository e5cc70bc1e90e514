//! SpiderSubnets: real controllers that make pools for workloads, real agents that give addresses of them, and a real API
//! server. Upstream's cases are named by their numbers. Nobody makes pods of workloads here: the tests do.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "subnets/errors.rs"]
mod errors;
#[path = "subnets/faults.rs"]
mod faults;
#[path = "subnets/life.rs"]
mod life;
#[path = "subnets/workloads.rs"]
mod workloads;

use std::collections::BTreeSet;

use http::Method;
use kube::api::ListParams;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod};

const SUBNET: &str = "ipam.spidernet.io/subnet";
const SUBNETS: &str = "ipam.spidernet.io/subnets";
const IP_NUMBER: &str = "ipam.spidernet.io/ippool-ip-number";
const RECLAIM: &str = "ipam.spidernet.io/ippool-reclaim";
const OWNER_SUBNET: &str = "ipam.spidernet.io/owner-spider-subnet";
const APPLICATION: &str = "ipam.spidernet.io/owner-application-name";
const APPLICATION_UID: &str = "ipam.spidernet.io/owner-application-uid";

/// A pool as a test looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FoundPool {
    name: String,
    ips: Vec<String>,
}

impl FoundPool {
    fn addresses(&self) -> IpSet {
        let family = if self.ips.iter().any(|ip| ip.contains(':')) { Family::V6 } else { Family::V4 };
        IpSet::from_ranges(family, self.ips.iter().map(|range| range.parse::<IpRange>().unwrap()))
    }
}

/// A workload whose pods the test makes.
struct Workload {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    annotations: Vec<(String, String)>,
}

impl Bench<'_> {
    async fn controller(&self, name: &str) -> StandaloneController {
        self.controller_with(name, &subnets_enabled()).await
    }

    async fn controller_with(&self, name: &str, file: &Value) -> StandaloneController {
        let folder = self.folder("controllers");
        let start = Start { folder: &folder, namespace: self.namespace(), name, environment: &[] };
        StandaloneController::start_with(self.plane(), start, file).await.unwrap()
    }

    async fn subnet_agent(&self, node: &str) -> StandaloneAgent {
        let file = json!({"enableSpiderSubnet": true, "enableAutoPoolForApplication": true});
        self.agent_with(node, &file).await
    }

    fn subnet(&self, name: &str, cidr: &str, ips: &[&str], more: &Value) {
        let mut spec = json!({"subnet": cidr, "ips": ips});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
            "metadata": {"name": self.name(name)}, "spec": spec,
        }));
    }

    /// `ipv4` and `ipv6`, with the names that the test calls them by.
    fn of_subnets(&self, ipv4: &str, ipv6: Option<&str>) -> Value {
        let names = |name: Option<&str>| name.into_iter().map(|name| self.name(name)).collect::<Vec<_>>();
        json!({"ipv4": names(Some(ipv4)), "ipv6": names(ipv6)})
    }

    /// The annotation for one NIC.
    fn subnet_annotation(&self, ipv4: &str) -> (String, String) {
        (SUBNET.to_owned(), self.of_subnets(ipv4, None).to_string())
    }

    /// Creates or changes it; `spec` is that of the workload beside its pod template.
    fn workload(
        &self,
        (api_version, kind): (&str, &str),
        name: &str,
        spec: &Value,
        annotations: &[(String, String)],
    ) -> Workload {
        let labels = json!({"app": name});
        let all: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let never = if kind.ends_with("Job") { json!("Never") } else { json!("Always") };
        let template = json!({
            "metadata": {"labels": labels, "annotations": all},
            "spec": {"restartPolicy": never, "containers": [{"name": "c", "image": "none"}]},
        });
        let mut full = spec.clone();
        match kind {
            "CronJob" => {
                let mut job = spec.clone();
                job["template"] = template;
                full = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}});
            }
            "Job" => full["template"] = template,
            _ => {
                full["template"] = template;
                full["selector"] = json!({"matchLabels": labels});
            }
        }
        if kind == "StatefulSet" {
            full["serviceName"] = json!(name);
        }
        self.apply(&json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"namespace": self.namespace(), "name": name}, "spec": full,
        }));
        let qualified = qualified(api_version, kind);
        let uid = self.kubectl(&["get", &qualified, name, "-o", "jsonpath={.metadata.uid}"]);
        let [api_version, kind, name] = [api_version, kind, name].map(str::to_owned);
        Workload { api_version, kind, name, uid, annotations: annotations.to_owned() }
    }

    fn deployment(&self, name: &str, replicas: u32, annotations: &[(String, String)]) -> Workload {
        self.workload(("apps/v1", "Deployment"), name, &json!({"replicas": replicas}), annotations)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let arguments = [arguments, &["-n", self.namespace()]].concat();
        self.plane().kubectl(&arguments).unwrap()
    }

    /// Nobody collects its pods here.
    fn delete_workload(&self, workload: &Workload) {
        self.kubectl(&["delete", &qualified(&workload.api_version, &workload.kind), &workload.name]);
    }

    /// A pod of the workload, which owns it.
    fn pod_of_workload(&self, workload: &Workload, name: &str) -> TestPod {
        let mut object = self.pod_object(name, "n1", &workload.annotations);
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": workload.api_version, "kind": workload.kind, "name": workload.name,
            "uid": workload.uid, "controller": true,
        }]);
        self.wait(self.create_pods(vec![object])).remove(0)
    }

    /// The pools that were made for a workload of the test.
    fn pools_of(&self, workload: &str) -> Vec<FoundPool> {
        let selector = format!(
            "{APPLICATION}={workload},ipam.spidernet.io/owner-application-namespace={}",
            self.namespace()
        );
        let pools = self
            .plane()
            .list(Kind::spiderpool("SpiderIPPool"), "", &ListParams::default().labels(&selector))
            .unwrap();
        let mut found: Vec<_> = pools
            .iter()
            .map(|pool| FoundPool {
                name: pool["metadata"]["name"].as_str().unwrap().to_owned(),
                ips: serde_json::from_value(pool["spec"]["ips"].clone()).unwrap_or_default(),
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Waits for one pool with so many addresses.
    async fn pool_of(&self, workload: &str, addresses: u128) -> FoundPool {
        let what = format!("a pool of {addresses} for {workload}");
        self.until_ok(&what, async || {
            let pools = self.pools_of(workload);
            anyhow::ensure!(pools.len() == 1 && pools[0].addresses().len() == addresses, "{pools:?}");
            Ok(())
        })
        .await;
        self.pools_of(workload).remove(0)
    }

    fn found_subnet(&self, name: &str) -> Option<Value> {
        self.plane().find(Kind::spiderpool("SpiderSubnet"), "", &self.name(name)).unwrap()
    }

    /// What the subnet's status says that pools have.
    fn records(&self, subnet: &str) -> Value {
        let subnet = self.found_subnet(subnet).unwrap();
        let text = subnet["status"]["controlledIPPools"].as_str().unwrap_or("{}");
        serde_json::from_str(text).unwrap()
    }

    fn given(&self, subnet: &str) -> Value {
        self.found_subnet(subnet).unwrap()["status"]["allocatedIPCount"].clone()
    }
}

/// A controller's configuration.
fn subnets_enabled() -> Value {
    json!({
        "enableSpiderSubnet": true, "enableAutoPoolForApplication": true,
        "clusterSubnetAutoPoolDefaultRedundantIPNumber": 1,
    })
}

/// A kind as kubectl tells it from others of its name.
fn qualified(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap();
    format!("{kind}.{version}.{group}")
}

/// ADD; the addresses of the NIC.
async fn add(agent: &StandaloneAgent, pod: &TestPod, nic: &str) -> anyhow::Result<BTreeSet<String>> {
    let answer = agent.ask(Method::POST, path::IP, &pod.add(nic, &pod.uid)).await?.ok()?;
    let ips = answer["ips"].as_array().unwrap().iter().filter(|ip| ip["nic"] == json!(nic));
    Ok(ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect())
}

async fn del(agent: &StandaloneAgent, pod: &TestPod, nic: &str) {
    agent.ask(Method::DELETE, path::IP, &pod.del(nic, &pod.uid)).await.unwrap().ok().unwrap();
}

fn found_pool(name: &str) -> Option<Value> {
    ControlPlane::shared().find(Kind::spiderpool("SpiderIPPool"), "", name).unwrap()
}

/// Whether a pool has the address.
fn has(pool: &FoundPool, address: &str) -> bool {
    pool.addresses().contains(address.parse().unwrap())
}
