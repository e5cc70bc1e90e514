//! Deployments whose pods are replaced: those of the old template and of the new one are there at a time.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::*;

/// A00009 of a Deployment: the pods of both templates run at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_takes_a_deployment_to_the_pool_of_its_new_template() {
    let bench = Bench::new("case-rollout").await;
    for (index, pool) in ["old", "new"].iter().enumerate() {
        let ips = format!("10.218.{index}.2-10.218.{index}.4");
        bench.pool(pool, &format!("10.218.{index}.0/24"), &[&ips], &json!({}));
    }
    for name in ["web-1", "web-2"] {
        bench.apply(&owned(&bench, "apps/v1", "ReplicaSet", name, ("Deployment", "web")));
    }
    let create = |replica_set: &str, number: usize, pool: &str| {
        let (name, ippool) =
            (format!("{replica_set}-{number}"), json!({"ipv4": [bench.name(pool)]}).to_string());
        bench.pod_of("apps/v1", "ReplicaSet", replica_set, &name, "n1", &[(IPPOOL, &ippool)])
    };
    let agent = bench.agent("n1").await;
    let before: Vec<_> = (0..3).map(|number| create("web-1", number, "old")).collect();
    for pod in &before {
        let address = addresses(&add(&agent, pod).await).pop_first().unwrap();
        assert!(address.starts_with("10.218.0."), "{address}");
        bench.endpoint(pod).await;
    }
    // One more pod at a time than there are to be.
    for (number, old) in before.iter().enumerate() {
        let new = create("web-2", number, "new");
        let address = addresses(&add(&agent, &new).await).pop_first().unwrap();
        assert!(address.starts_with("10.218.1."), "{address}");
        let status = bench.endpoint(&new).await["status"].clone();
        assert_eq!(status["ownerControllerName"], json!("web"));
        let entry = &status["current"]["ips"][0];
        assert_eq!(
            (&status["current"]["uid"], &entry["ipv4"], &entry["ipv4Pool"]),
            (&json!(new.uid), &json!(address), &json!(bench.name("new")))
        );
        bench.delete_pod(old);
        del(&agent, old).await;
        assert!(bench.held(old).is_empty() && bench.find_endpoint(old).is_none());
        assert_eq!(bench.held(&new).len(), 1);
    }
    agent.stop().unwrap();
}

/// The pods of a Deployment on two nodes, and the pools that they have.
struct Web<'a> {
    bench: &'a Bench<'static>,
    agents: [StandaloneAgent; 2],
    pools: String,
}

/// A pod, and which of the nodes it is on.
type Placed = (TestPod, usize);

impl Web<'_> {
    /// Pods of a ReplicaSet of the Deployment.
    fn create(&self, replica_set: &str, count: usize) -> Vec<Placed> {
        let bench = self.bench;
        bench.apply(&owned(bench, "apps/v1", "ReplicaSet", replica_set, ("Deployment", "web")));
        let create = |number: usize| {
            let (name, node) = (format!("{replica_set}-{number}"), number % self.agents.len());
            let annotations = [(IPPOOL, self.pools.as_str())];
            let pod =
                bench.pod_of("apps/v1", "ReplicaSet", replica_set, &name, ["n1", "n2"][node], &annotations);
            (pod, node)
        };
        (0..count).map(create).collect()
    }

    /// All of them get an address of each family, sooner or later.
    async fn all_get(&self, pods: &[Placed], limit: Duration) {
        let asked = pods.iter().map(|(pod, node)| async move {
            let what = format!("addresses for {}", pod.name);
            let ask =
                async || self.agents[*node].ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await?.ok();
            addresses(&poll::until_async(&what, limit, ask).await.unwrap())
        });
        let given: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 2 * pods.len(), "{given:?}");
    }

    async fn end_all(&self, pods: &[Placed]) {
        for (pod, node) in pods {
            self.bench.delete_pod(pod);
            del(&self.agents[*node], pod).await;
        }
    }

    /// Waits until the statuses of both pools have exactly these pods, each once.
    async fn until_used_by(&self, pods: &[Placed]) {
        let expect: BTreeSet<_> = pods.iter().map(|(pod, _)| pod.uid.as_str()).collect();
        for pool in ["p4", "p6"] {
            self.bench
                .until_ok("the status names each pod once", async || {
                    let status = status(&self.bench.name(pool));
                    let text = status["allocatedIPs"].as_str().unwrap_or("{}");
                    let records: BTreeMap<String, Value> = serde_json::from_str(text)?;
                    let found: BTreeSet<_> =
                        records.values().filter_map(|record| record["podUid"].as_str()).collect();
                    let is_right = records.len() == pods.len() && found == expect;
                    anyhow::ensure!(is_right && status["allocatedIPCount"] == json!(pods.len()), "{status}");
                    Ok(())
                })
                .await;
        }
    }
}

/// P00002. As a Deployment does it, a quarter more pods come than there are addresses before as many of the old ones go.
#[tokio::test(flavor = "multi_thread")]
async fn forty_pods_are_made_replaced_and_deleted_on_pools_of_forty_addresses() {
    const PODS: usize = 40;
    const SURGE: usize = 10;
    const LIMIT: Duration = Duration::from_mins(4);
    let bench = Bench::new("case-exact").await;
    bench.pool("p4", "10.219.0.0/24", &["10.219.0.1-10.219.0.40"], &json!({}));
    bench.pool("p6", "fd24::/64", &["fd24::1-fd24::28"], &json!({}));
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "one", environment: &[] };
    let controller = StandaloneController::start(ControlPlane::shared(), start).await.unwrap();
    let agents = [bench.agent("n1").await, bench.agent("n2").await];
    let pools = json!({"ipv4": [bench.name("p4")], "ipv6": [bench.name("p6")]}).to_string();
    let web = Web { bench: &bench, agents, pools };
    let check = |what: &str, begun: Instant, limit: Duration| {
        assert!(begun.elapsed() < poll::scaled(limit), "{what}: {:?}", begun.elapsed());
    };

    let begun = Instant::now();
    let before = web.create("web-1", PODS);
    web.all_get(&before, LIMIT).await;
    web.until_used_by(&before).await;
    check("created", begun, LIMIT);

    let begun = Instant::now();
    let mut after = Vec::new();
    for (round, old) in before.chunks(SURGE).enumerate() {
        let new = web.create(&format!("web-2-{round}"), old.len());
        failure(&web.agents[0], &new[0].0.add("eth0", "c1"), "all IP addresses used out").await;
        tokio::join!(web.all_get(&new, LIMIT), web.end_all(old));
        after.extend(new);
    }
    web.until_used_by(&after).await;
    check("replaced", begun, LIMIT);

    let begun = Instant::now();
    web.end_all(&after).await;
    web.until_used_by(&[]).await;
    assert!(after.iter().all(|(pod, _)| bench.held(pod).is_empty()));
    check("deleted", begun, Duration::from_mins(1));
    for agent in web.agents {
        agent.stop().unwrap();
    }
    controller.stop().unwrap();
}
