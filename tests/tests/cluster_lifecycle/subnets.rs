//! Pools that are made of SpiderSubnets, with Kubernetes' own controllers and kubelets.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_tests::cluster::Cluster;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::poll;
use spiderpool_tests::release::{self, NETWORK};
use spiderpool_tests::workload::{Deployment, RunningPod};

use crate::pods_and_nodes::{LIMIT, settled};
use crate::shared::on_cluster;

/// SpiderSubnets of both families.
const SUBNETS: [&str; 2] = ["team-v4", "team-v6"];

/// With SpiderSubnets; without them again when `test` has succeeded.
fn with_subnets(name: &str, test: impl FnOnce(&Cluster) -> Result<()>) {
    on_cluster(name, |cluster| {
        release::upgrade(cluster, &["ipam.spiderSubnet.enable=true"])?;
        let specs = [
            json!({"subnet": "10.67.0.0/16", "gateway": "10.67.0.1", "ips": ["10.67.0.100-10.67.0.119"]}),
            json!({"subnet": "fd67::/64", "gateway": "fd67::1", "ips": ["fd67::100-fd67::fff"]}),
        ];
        for (name, spec) in SUBNETS.into_iter().zip(specs) {
            let subnet = json!({
                "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
                "metadata": {"name": name}, "spec": spec,
            });
            cluster.apply(&subnet.to_string())?;
        }
        test(cluster)?;
        let [v4, v6] = SUBNETS;
        cluster.kubectl(&["delete", "spidersubnets", v4, v6, "--wait=true", "--timeout=60s"])?;
        release::upgrade(cluster, &[])
    });
}

fn annotated(deployment: Deployment, size: &str) -> Deployment {
    let entry = json!([{"interface": "net1", "ipv4": [SUBNETS[0]], "ipv6": [SUBNETS[1]]}]).to_string();
    let annotations = [("subnets", entry.as_str()), ("ippool-ip-number", size)];
    let annotations = annotations.map(|(key, text)| (format!("ipam.spidernet.io/{key}"), text.to_owned()));
    Deployment { annotations: annotations.to_vec(), ..deployment }
}

/// The addresses of the IPv4 pool that was made for a workload; `None` if there is no pool.
fn pool_of(cluster: &Cluster, workload: &str) -> Result<Option<IpSet>> {
    let selector =
        format!("ipam.spidernet.io/owner-application-name={workload},ipam.spidernet.io/ip-version=IPv4");
    let pools = cluster.kubectl(&["get", "spiderippools", "-l", &selector, "-o", "json"])?;
    let pools: Value = serde_json::from_str(&pools)?;
    let pools = pools["items"].as_array().context("items")?;
    ensure!(pools.len() <= 1, "{pools:?}");
    let Some(pool) = pools.first() else { return Ok(None) };
    let ranges: Vec<String> = serde_json::from_value(pool["spec"]["ips"].clone()).unwrap_or_default();
    let ranges = ranges.iter().map(|range| range.parse::<IpRange>()).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(IpSet::from_ranges(Family::V4, ranges)))
}

/// All pods have their addresses of the pool, which has so many.
fn check_pool(cluster: &Cluster, workload: &str, addresses: u128, pods: &[RunningPod]) -> Result<()> {
    poll::until(&format!("{addresses} addresses for {workload}"), LIMIT, || {
        let pool = pool_of(cluster, workload)?.context("no pool")?;
        ensure!(pool.len() == addresses, "{pool:?}");
        for pod in pods {
            let address = pod.underlay.first().context("no address")?.v4;
            ensure!(pool.contains(address.into()), "{pod:?} {pool:?}");
        }
        Ok(())
    })
}

/// I00003, I00008 and I00015: the pool is made, scaled and gone with its Deployment, and rolling updates find what old pods give
/// back.
#[test]
fn a_deployments_pool_is_made_scaled_and_gone_with_it() {
    with_subnets("a_deployments_pool_is_made_scaled_and_gone_with_it", |cluster| {
        let web = annotated(Deployment::underlay("web", NETWORK), "+1");
        let pods = web.clone().times(2).start(cluster)?;
        check_pool(cluster, "web", 3, &pods)?;
        settled(cluster, &pods)?;
        let pods = web.clone().times(6).start(cluster)?;
        check_pool(cluster, "web", 7, &pods)?;
        cluster.kubectl(&["rollout", "restart", &web.reference()])?;
        cluster.kubectl(&["rollout", "status", &web.reference(), "--timeout=120s"])?;
        let pods = web.clone().times(6).wait_running(cluster)?;
        check_pool(cluster, "web", 7, &pods)?;
        let pods = web.start(cluster)?;
        check_pool(cluster, "web", 2, &pods)?;
        settled(cluster, &pods)?;
        web.delete(cluster)?;
        poll::until("the end of the pool", LIMIT, || {
            ensure!(pool_of(cluster, "web")?.is_none(), "it is there");
            Ok(())
        })?;
        let given = "jsonpath={.status.allocatedIPCount}";
        let given = cluster.kubectl(&["get", "spidersubnet", SUBNETS[0], "-o", given])?;
        ensure!(given == "0", "{given}");
        settled(cluster, &[])
    });
}

/// The pods of a StatefulSet keep their addresses also of a pool of its own, which has not one address more than pods.
#[test]
fn a_stateful_set_keeps_its_addresses_in_a_pool_of_its_own() {
    with_subnets("a_stateful_set_keeps_its_addresses_in_a_pool_of_its_own", |cluster| {
        let set = annotated(Deployment::underlay("fixed", NETWORK).stateful().times(2), "+0");
        let before = set.start(cluster)?;
        check_pool(cluster, "fixed", 2, &before)?;
        cluster.kubectl(&["rollout", "restart", &set.reference()])?;
        cluster.kubectl(&["rollout", "status", &set.reference(), "--timeout=120s"])?;
        let after = set.wait_running(cluster)?;
        let addresses = |pods: &[RunningPod]| {
            let mut all: Vec<_> =
                pods.iter().map(|pod| (pod.name.clone(), format!("{:?}", pod.underlay))).collect();
            all.sort();
            all
        };
        ensure!(addresses(&after) == addresses(&before), "{after:?} are not as {before:?}");
        check_pool(cluster, "fixed", 2, &after)?;
        set.delete(cluster)?;
        settled(cluster, &[])
    });
}
