//! Pods come and go on several nodes while agents, controllers, the API server and etcd are killed at random moments: no address
//! is ever given to two pods, and none is lost. The order comes from a seed, which is printed; `SPIDERPOOL_FAULT_SEED` repeats it.
#![forbid(unsafe_code)]

#[path = "faults/agents.rs"]
mod agents;
#[path = "faults/ledger.rs"]
mod ledger;
#[path = "faults/pods.rs"]
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::Client;
use kube::api::{Api, ListParams};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use spiderpool_api::crd::{AddressState, SpiderEndpoint, SpiderIPAddress, SpiderIPPool};
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use spiderpool_tests::{long_form, poll};
use tokio::task::JoinSet;

use agents::{Agent, signal};
use ledger::Ledger;
use pods::{Cluster, Maker, Workload};

const NAMESPACE: &str = "faults";
const POOL: &str = "faults";
const NODES: usize = 3;
/// Makers of pods; the first ones are StatefulSet pods'.
const MAKERS: usize = 20;
const STATEFUL: usize = 4;
/// Hardly more addresses than pods at a time.
const ADDRESSES: &str = "10.66.0.10-10.66.0.39";
/// A term of the leader is over after this time.
const FREEZE: Duration = Duration::from_secs(4);
const CONTROLLER: [(&str, &str); 4] = [
    ("SPIDERPOOL_LEADER_DURATION", "3"),
    ("SPIDERPOOL_LEADER_RENEW_DEADLINE", "2"),
    ("SPIDERPOOL_LEADER_RETRY_PERIOD", "1"),
    ("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "10"),
];
/// One round of garbage collection, and the start of what was killed last.
const SETTLE: Duration = Duration::from_mins(1);

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Agent(usize),
    Controller(usize),
    /// Stopped for longer than its term, and then on: two leaders for a moment.
    FrozenController(usize),
    ApiServer,
    Etcd,
}

impl Victim {
    fn choose(random: &mut fastrand::Rng) -> Self {
        match random.u8(..20) {
            0..9 => Self::Agent(random.usize(..NODES)),
            9..13 => Self::Controller(random.usize(..2)),
            13..15 => Self::FrozenController(random.usize(..2)),
            15..18 => Self::ApiServer,
            _ => Self::Etcd,
        }
    }
}

/// What can be killed.
struct Processes {
    plane: ControlPlane,
    controllers: [Option<StandaloneController>; 2],
    folder: tempfile::TempDir,
    cluster: Arc<Cluster>,
}

impl Processes {
    async fn start_controller(&mut self, index: usize) -> Result<()> {
        let folder = self.folder.path().join("controllers");
        let name = ["a", "b"][index];
        self.controllers[index] = None;
        let start = Start { folder: &folder, namespace: NAMESPACE, name, environment: &CONTROLLER };
        self.controllers[index] = Some(StandaloneController::start(&self.plane, start).await?);
        Ok(())
    }

    /// Strikes, waits for a moment, and starts what is gone.
    async fn strike(&mut self, victim: Victim, pause: Duration) -> Result<()> {
        match victim {
            Victim::Agent(index) => {
                self.cluster.agents[index].kill().await;
                tokio::time::sleep(pause).await;
                self.cluster.agents[index].start().await
            }
            Victim::Controller(index) => {
                self.controllers[index].take().map_or(Ok(()), StandaloneController::kill)?;
                tokio::time::sleep(pause).await;
                self.start_controller(index).await
            }
            Victim::FrozenController(index) => {
                let Some(id) = self.controllers[index].as_ref().map(StandaloneController::id) else {
                    return Ok(());
                };
                signal(id, Signal::SIGSTOP);
                tokio::time::sleep(FREEZE).await;
                signal(id, Signal::SIGCONT);
                // It ends by itself, having lost its Lease, or has not led.
                let ended = async || {
                    let controller = self.controllers[index].as_ref();
                    let lives = match controller {
                        Some(controller) => controller.leads().await.is_ok(),
                        None => false,
                    };
                    ensure!(!lives, "it answers");
                    Ok(())
                };
                drop(poll::until_async("the end of the controller", Duration::from_secs(2), ended).await);
                self.controllers[index].take().map_or(Ok(()), StandaloneController::kill)?;
                self.start_controller(index).await
            }
            Victim::ApiServer => {
                self.plane.kill_api_server()?;
                tokio::time::sleep(pause).await;
                tokio::task::block_in_place(|| self.plane.start_api_server())
            }
            Victim::Etcd => {
                self.plane.kill_etcd()?;
                tokio::time::sleep(pause).await;
                tokio::task::block_in_place(|| self.plane.start_etcd())
            }
        }
    }
}

/// The StatefulSet of the pods that keep their addresses.
fn stateful_set(replicas: usize) -> Value {
    let labels = json!({"app": "web"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}});
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": NAMESPACE, "name": "web"},
        "spec": {"replicas": replicas, "serviceName": "web", "selector": {"matchLabels": labels}, "template": template},
    })
}

async fn start(folder: tempfile::TempDir) -> Result<Processes> {
    let plane = ControlPlane::start(Options::default())?;
    let object = |value: &Value| plane.apply_object(value);
    object(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
    object(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": POOL},
        "spec": {"subnet": "10.66.0.0/24", "ips": [ADDRESSES]},
    }))?;
    object(&stateful_set(STATEFUL))?;
    let node = |index: usize| format!("node-{index}");
    for index in 0..NODES {
        object(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node(index)}}))?;
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        plane.patch_status(spiderpool_tests::control_plane::Kind("v1", "Node"), "", &node(index), &ready)?;
    }
    let agent = |index: usize| {
        let folder = folder.path().join(node(index));
        Ok(Agent::new(node(index), folder, plane.agent(&node(index))?))
    };
    let cluster = Arc::new(Cluster {
        namespace: NAMESPACE.to_owned(),
        client: plane.client().await?,
        agents: (0..NODES).map(agent).collect::<Result<_>>()?,
        annotation: ("ipam.spidernet.io/ippool".to_owned(), json!({"ipv4": [POOL]}).to_string()),
        ledger: Ledger::default(),
        over: AtomicBool::new(false),
    });
    let mut processes = Processes { plane, controllers: [None, None], folder, cluster };
    for index in 0..2 {
        processes.start_controller(index).await?;
    }
    for agent in &processes.cluster.agents {
        agent.start().await?;
    }
    Ok(processes)
}

/// What the API server has must be exactly what runtimes were told.
async fn check(cluster: &Cluster) -> Result<()> {
    let client: &Client = &cluster.client;
    let all = ListParams::default();
    let addresses = Api::<SpiderIPAddress>::all(client.clone()).list(&all).await?.items;
    let live = cluster.ledger.live();
    let kept: BTreeMap<_, _> = cluster.ledger.kept().into_iter().map(|(name, ip)| (ip, name)).collect();
    let mut bound = BTreeSet::new();
    for object in &addresses {
        let spec = &object.spec;
        let ip = spec.address.split('/').next().unwrap_or_default().to_owned();
        match spec.state {
            AddressState::Bound => {
                let owner = live.get(&ip).map(|pod| pod.uid.as_str());
                ensure!(owner == Some(spec.pod_uid.as_str()), "{spec:?} is used by {owner:?}");
                bound.insert(ip);
            }
            AddressState::Kept => {
                ensure!(kept.get(&ip) == Some(&spec.pod_name) && !live.contains_key(&ip), "{spec:?} is kept");
            }
            AddressState::Quarantined => ensure!(false, "{spec:?} is quarantined"),
        }
    }
    ensure!(bound.len() == live.len(), "of {live:?} only {bound:?} have objects");
    for (ip, name) in &kept {
        ensure!(
            addresses.iter().any(|object| object.spec.address.starts_with(&format!("{ip}/"))),
            "{ip} of {name} is free"
        );
    }
    let endpoints = Api::<SpiderEndpoint>::namespaced(client.clone(), NAMESPACE).list(&all).await?.items;
    let named: BTreeSet<String> =
        endpoints.iter().filter_map(|endpoint| endpoint.metadata.name.clone()).collect();
    let wanted: BTreeSet<String> =
        live.values().map(|pod| pod.name.clone()).chain(kept.into_values()).collect();
    ensure!(named == wanted, "endpoints {named:?}, pods {wanted:?}");
    let pool = Api::<SpiderIPPool>::all(client.clone()).get(POOL).await?;
    let status = pool.status.unwrap_or_default();
    let (count, has_records) = (status.allocated_ip_count, status.allocated_ips.is_some());
    ensure!(
        count == i64::try_from(addresses.len()).ok() && has_records != addresses.is_empty(),
        "the status counts {count:?} of {}, and has records: {has_records}",
        addresses.len()
    );
    Ok(())
}

/// G00012 among others.
#[tokio::test(flavor = "multi_thread")]
async fn no_address_is_given_twice_or_lost_whatever_is_killed() {
    let kills = if long_form::is_asked_for() { 300 } else { 30 };
    let seed = std::env::var("SPIDERPOOL_FAULT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SPIDERPOOL_FAULT_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut processes = start(tempfile::tempdir().unwrap()).await.unwrap();
    let cluster = Arc::clone(&processes.cluster);
    let mut makers = JoinSet::new();
    for number in 0..MAKERS {
        let (cluster, random) = (Arc::clone(&cluster), random.fork());
        let workload = match number {
            ..STATEFUL => Workload::StatefulSet,
            _ => [Workload::ThirdParty, Workload::ReplicaSet, Workload::Nothing][number % 3],
        };
        makers.spawn(Maker { cluster, number, workload, random }.run());
    }
    let begun = Instant::now();
    let mut struck = BTreeMap::<String, usize>::new();
    for number in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.u64(50..700))).await;
        let victim = Victim::choose(&mut random);
        let pause = Duration::from_millis(random.u64(..400));
        let outcome = processes.strike(victim, pause).await;
        outcome.unwrap_or_else(|error| panic!("seed {seed}, kill {number} of {victim:?}: {error:#}"));
        *struck.entry(format!("{victim:?}")).or_default() += 1;
        assert_eq!(cluster.ledger.violations(), [""; 0], "seed {seed}, after kill {number} of {victim:?}");
    }
    cluster.over.store(true, Ordering::Relaxed);
    makers.join_all().await;
    println!("{} ADDs in {:?}, struck: {struck:?}", cluster.ledger.adds(), begun.elapsed());
    assert_eq!(cluster.ledger.violations(), [""; 0], "seed {seed}");
    let settled =
        poll::until_async("every address is a living pod's or kept", SETTLE, async || check(&cluster).await);
    settled.await.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    let last = Maker { cluster: Arc::clone(&cluster), number: 0, workload: Workload::Nothing, random };
    last.end_all().await.unwrap();
    processes.plane.apply_object(&stateful_set(0)).unwrap();
    cluster.ledger.expect_none_kept();
    let emptied = poll::until_async("nothing is in use", SETTLE, async || check(&cluster).await);
    emptied.await.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    for agent in &cluster.agents {
        agent.kill().await;
    }
}
