//! Applications with pools of their own, and pods that keep their addresses: what Kubernetes' own controllers are needed for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_tests::cluster::Cluster;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::poll;
use spiderpool_tests::release::NETWORK;
use spiderpool_tests::workload::{Deployment, RunningPod};

use crate::show::title;

/// What the demo's installation sets for it.
pub(crate) const VALUES: [&str; 1] = ["ipam.spiderSubnet.enable=true"];

/// SpiderSubnets of both families, beside the default pools' network.
const SUBNETS: [&str; 2] = ["team-v4", "team-v6"];
const LIMIT: Duration = Duration::from_secs(30);

/// What runs.
pub(crate) struct Applications {
    web: Deployment,
    db: Deployment,
}

impl Applications {
    /// Starts a Deployment and a StatefulSet, scales the one, replaces the pod of the other, and shows what became of their
    /// addresses.
    pub(crate) fn show(cluster: &Cluster, step: impl Fn(&str)) -> Result<Self> {
        let specs = [
            json!({"subnet": "10.67.0.0/16", "gateway": "10.67.0.1", "ips": ["10.67.0.100-10.67.0.119"]}),
            json!({"subnet": "fd67::/64", "gateway": "fd67::1", "ips": ["fd67::100-fd67::113"]}),
        ];
        for (name, spec) in SUBNETS.into_iter().zip(specs) {
            let subnet = json!({
                "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
                "metadata": {"name": name}, "spec": spec,
            });
            cluster.apply(&subnet.to_string())?;
        }
        let this = Self {
            web: annotated(Deployment::underlay("web", NETWORK), "+1").times(2),
            db: annotated(Deployment::underlay("db", NETWORK), "+0").stateful(),
        };
        this.web.start(cluster)?;
        let before = this.db.start(cluster)?;
        step(
            "a SpiderSubnet of each family, a Deployment of 2 pods and a StatefulSet of 1 with pools of their own",
        );
        title(
            "kubectl get spidersubnets; kubectl get spiderippools -l ipam.spidernet.io/owner-spider-subnet=team-v4",
        );
        print!("{}", cluster.kubectl(&["get", "spidersubnets"])?);
        show_pools(cluster)?;

        this.web.clone().times(4).start(cluster)?;
        poll::until("the Deployment's pool with 5 addresses", LIMIT, || {
            let total = pool_size(cluster, &this.web.name)?;
            ensure!(total == Some(5), "it has {total:?}");
            Ok(())
        })?;
        title("kubectl scale deployment web --replicas=4");
        show_pools(cluster)?;

        cluster.kubectl(&["delete", "pod", "db-0"])?;
        let after = this.db.wait_running(cluster)?;
        title("kubectl delete pod db-0");
        let [(old, before), (new, after)] = [one(&before)?, one(&after)?];
        println!("before: UID {old}, {before}\nafter:  UID {new}, {after}");
        ensure!(old != new && before == after, "the pod of a StatefulSet has other addresses");
        Ok(this)
    }

    /// Deletes everything, which ends the pools.
    pub(crate) fn delete(&self, cluster: &Cluster) -> Result<()> {
        self.web.delete(cluster)?;
        self.db.delete(cluster)?;
        let [v4, v6] = SUBNETS;
        cluster.kubectl(&["delete", "spidersubnets", v4, v6, "--wait=true", "--timeout=60s"])?;
        Ok(())
    }
}

fn annotated(deployment: Deployment, size: &str) -> Deployment {
    let [v4, v6] = SUBNETS;
    let entry = json!([{"interface": "net1", "ipv4": [v4], "ipv6": [v6]}]).to_string();
    let annotations = [("subnets", entry.as_str()), ("ippool-ip-number", size)];
    let annotations = annotations.map(|(key, text)| (format!("ipam.spidernet.io/{key}"), text.to_owned()));
    Deployment { annotations: annotations.to_vec(), ..deployment }
}

fn show_pools(cluster: &Cluster) -> Result<()> {
    let of_subnet = format!("ipam.spidernet.io/owner-spider-subnet={}", SUBNETS[0]);
    print!("\n{}", cluster.kubectl(&["get", "spiderippools", "-l", &of_subnet])?);
    Ok(())
}

/// The number of addresses of an application's IPv4 pool, as its status says.
fn pool_size(cluster: &Cluster, application: &str) -> Result<Option<u64>> {
    let selector =
        format!("ipam.spidernet.io/owner-application-name={application},ipam.spidernet.io/ip-version=IPv4");
    let pools: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "spiderippools", "-l", &selector, "-o", "json"])?)?;
    Ok(pools["items"][0]["status"]["totalIPCount"].as_u64())
}

/// UID and addresses of the only pod.
fn one(pods: &[RunningPod]) -> Result<(String, String)> {
    let pod = pods.first().context("no pod")?;
    let net1 = pod.net1()?;
    Ok((pod.uid.clone(), format!("net1 {} and {}", net1.v4, net1.v6)))
}
