//! Many pods on many nodes want an address from one pool at once: a real API server with fsync, one agent per node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::stream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Method;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse, IpamDelArgs};
use spiderpool_api::agent::path;
use spiderpool_core::ipam::annotation_key;
use spiderpool_core::names::PodName;
use spiderpool_tests::control_plane::{ControlPlane, Durability, Options};
use spiderpool_tests::exchange::{ask_socket, json_body};
use spiderpool_tests::{poll, tools};
use tokio::sync::Semaphore;

use crate::agents::{Agents, node};
use crate::arguments::IpamArguments;
use crate::memory::{Memory, MemoryRows};
use crate::requests::{RequestRows, Requests};
use crate::samples::{Pair, Report, Samples, Side};

/// How long a kubelet waits before it tries a failed sandbox again.
const RETRY: Duration = Duration::from_secs(10);
/// After this many failed tries a pod is left without an address.
const TRIES: usize = 30;
const NAMESPACE: &str = "default";
/// An API server has read a kind into its cache within so much time.
const CACHE_LIMIT: Duration = Duration::from_secs(30);
/// After a burst, agents hand memory back within so much time.
const SETTLE: Duration = Duration::from_secs(12);

/// A pod that wants an address.
#[derive(Debug, Clone)]
struct PodRequest {
    node: usize,
    name: String,
    uid: String,
}

impl PodRequest {
    fn pod(&self) -> Result<PodName> {
        Ok(PodName::new(NAMESPACE, self.name.as_str())?)
    }
}

/// What one round measured.
#[derive(Debug, Default)]
struct Round {
    wall_s: f64,
    latencies_ms: Samples,
    failed: usize,
    /// Pods that have none in the end.
    without: usize,
    /// Addresses that more than one pod has got.
    duplicates: usize,
    failed_releases: usize,
    memory: Vec<Memory>,
    requests: Requests,
}

pub(crate) fn measure(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    let plane = ControlPlane::start(Options { durability: Durability::Fsync, ..Options::default() })?;
    let runtime = tokio::runtime::Runtime::new()?;
    let ours = tools::spiderpool("spiderpool-agent")?;
    warm_up(&plane)?;
    for (title, spare) in [("roomy pool", 3), ("tight pool", 0)] {
        let mut rows = Rows::default();
        for round in 0..arguments.rounds {
            let mut sides = [(Side::Ours, Some(&ours)), (Side::Peer, arguments.peer_agent.as_ref())];
            // Each is the first in turn.
            if round % 2 == 1 {
                sides.reverse();
            }
            for (side, agent) in sides {
                let Some(agent) = agent else { continue };
                let pool = format!("bench-{}-{round}-{side:?}", title.replace(' ', "-")).to_lowercase();
                let result = runtime
                    .block_on(run(&plane, agent, arguments, &pool, arguments.pods * (spare + 1)))
                    .with_context(|| format!("{side:?}, {title}, round {round}"))?;
                if side == Side::Ours {
                    result.must_be_complete().with_context(|| format!("{title}, round {round}"))?;
                }
                rows.add(side, &result);
            }
        }
        rows.report(title, arguments, report);
    }
    Ok(())
}

impl Round {
    /// What a peer fails at is a figure; the same of ours is a fault.
    fn must_be_complete(&self) -> Result<()> {
        let Self { without, duplicates, failed_releases, .. } = self;
        ensure!(*duplicates == 0, "{duplicates} addresses were given out twice");
        ensure!(*without == 0, "{without} pods have no address after {TRIES} tries");
        ensure!(*failed_releases == 0, "{failed_releases} DELs failed");
        Ok(())
    }
}

/// An API server answers 429 to the first who reads a kind from its cache, for a second or two: that is nobody's figure.
fn warm_up(plane: &ControlPlane) -> Result<()> {
    for kind in
        ["spiderippools", "spiderippoolusages", "spideripaddresses", "spiderreservedips", "spiderendpoints"]
    {
        let path = format!("/apis/spiderpool.spidernet.io/v2beta1/{kind}?limit=1&resourceVersion=0");
        poll::until(kind, CACHE_LIMIT, || plane.kubectl(&["get", "--raw", &path]))?;
    }
    Ok(())
}

#[derive(Default)]
struct Rows {
    wall: Pair,
    p50: Pair,
    p99: Pair,
    failed: Pair,
    without: Pair,
    duplicates: Pair,
    failed_releases: Pair,
    memory: MemoryRows,
    requests: RequestRows,
}

impl Rows {
    fn add(&mut self, side: Side, round: &Round) {
        self.wall.side(side).push(round.wall_s);
        for (pair, count) in [
            (&mut self.failed, round.failed),
            (&mut self.without, round.without),
            (&mut self.duplicates, round.duplicates),
            (&mut self.failed_releases, round.failed_releases),
        ] {
            pair.side(side).push(count as f64);
        }
        for (pair, share) in [(&mut self.p50, 0.5), (&mut self.p99, 0.99)] {
            if let Some(value) = round.latencies_ms.quantile(share) {
                pair.side(side).push(value);
            }
        }
        for memory in &round.memory {
            self.memory.add(side, *memory);
        }
        self.requests.add(side, &round.requests);
    }

    fn report(&self, title: &str, arguments: &IpamArguments, report: &mut Report) {
        let name = |what: &str| format!("{} ADDs, {title}: {what}", arguments.pods);
        report.add(name("all have one"), "s", &self.wall);
        report.add(name("p50"), "ms", &self.p50);
        report.add(name("p99"), "ms", &self.p99);
        report.add(name("failed"), "", &self.failed);
        report.add(name("pods without an address"), "", &self.without);
        report.add(name("addresses given out twice"), "", &self.duplicates);
        report.add(name("failed DELs"), "", &self.failed_releases);
        self.memory.report(report, &name("agent memory after"));
        self.requests.report(report, title);
    }
}

/// One round: pool and pods are made, agents started, every pod gets its address; then all is removed.
async fn run(
    plane: &ControlPlane,
    agent: &Path,
    arguments: &IpamArguments,
    pool: &str,
    size: usize,
) -> Result<Round> {
    let client = plane.client().await?;
    plane.apply(&pool_manifest(pool, size).to_string())?;
    let wants = create_pods(&client, arguments, pool).await?;
    let agents = Agents::start(plane, agent, arguments.agents).await?;

    let before = Requests::read(plane)?;
    let start = Instant::now();
    let adds = wants.chunk_by(|a, b| a.node == b.node).map(|wants| {
        let socket = agents.sockets[wants[0].node].clone();
        tokio::spawn(add_all(socket, wants.to_vec(), pool.to_owned(), arguments.in_flight))
    });
    let mut round = Round::default();
    let mut addresses = BTreeSet::new();
    for add in adds.collect::<Vec<_>>() {
        for outcome in add.await?? {
            round.failed += outcome.failed;
            let Some(got) = outcome.got else {
                round.without += 1;
                continue;
            };
            round.latencies_ms.push(got.latency.as_secs_f64() * 1000.0);
            round.duplicates += usize::from(!addresses.insert(got.address));
        }
    }
    round.wall_s = start.elapsed().as_secs_f64();
    round.requests = Requests::read(plane)?.since(&before);
    tokio::time::sleep(SETTLE).await;
    round.memory = agents.memory()?;

    round.failed_releases = release_all(&client, &agents, &wants).await?;
    drop(agents);
    plane.kubectl(&["delete", "--wait=false", "spiderippool", pool])?;
    Ok(round)
}

fn pool_manifest(pool: &str, size: usize) -> serde_json::Value {
    let last = Ipv4Addr::from(0x0a40_0001 + size as u32 - 1);
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": pool},
        "spec": {"ipVersion": 4, "subnet": "10.64.0.0/16", "ips": [format!("10.64.0.1-{last}")]},
    })
}

/// The pods as API objects, bound to their nodes; ordered by node.
async fn create_pods(client: &Client, arguments: &IpamArguments, prefix: &str) -> Result<Vec<PodRequest>> {
    let nodes: Api<Node> = Api::all(client.clone());
    for index in 0..arguments.agents {
        let object = serde_json::from_value(json!({"metadata": {"name": node(index)}}))?;
        match nodes.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let created = stream::iter(0..arguments.pods).map(|index| {
        let (pods, node_index) = (&pods, index * arguments.agents / arguments.pods);
        async move {
            let name = format!("{prefix}-{index}");
            let object = serde_json::from_value(json!({
                // As a real pod says which NIC it wants: upstream's agent refuses one that has no annotation of Multus.
                "metadata": {"name": name, "annotations": {annotation_key::MULTUS_NETWORKS: "kube-system/bench"}},
                "spec": {
                    "nodeName": node(node_index), "automountServiceAccountToken": false,
                    "containers": [{"name": "main", "image": "none"}],
                },
            }))?;
            let pod = pods.create(&PostParams::default(), &object).await?;
            let uid = pod.metadata.uid.context("the API server gave no UID")?;
            Ok::<_, anyhow::Error>(PodRequest { node: node_index, name, uid })
        }
    });
    created.buffered(16).try_collect().await
}

/// What came of one pod's tries.
struct Outcome {
    got: Option<AllocatedPod>,
    failed: usize,
}

/// One pod that has got its address.
struct AllocatedPod {
    address: String,
    /// Since its first try.
    latency: Duration,
}

/// All pods of one node, at most `in_flight` at a time, failed ones again after [`RETRY`] as a kubelet does.
async fn add_all(
    socket: PathBuf,
    wants: Vec<PodRequest>,
    pool: String,
    in_flight: usize,
) -> Result<Vec<Outcome>> {
    let slots = Semaphore::new(in_flight);
    let wants_at_once = wants.len();
    let add = |want: PodRequest| {
        let (slots, socket, pool) = (&slots, &socket, &pool);
        async move {
            let mut first = None;
            for failed in 0..TRIES {
                if failed > 0 {
                    tokio::time::sleep(RETRY).await;
                }
                let _slot = slots.acquire().await?;
                let start = *first.get_or_insert_with(Instant::now);
                match add_one(socket, &want, pool).await {
                    Ok(address) => {
                        let got = Some(AllocatedPod { address, latency: start.elapsed() });
                        return Ok(Outcome { got, failed });
                    }
                    Err(reason) => eprintln!("pod {}: ADD failed: {reason:#}", want.name),
                }
            }
            Ok(Outcome { got: None, failed: TRIES })
        }
    };
    stream::iter(wants).map(add).buffer_unordered(wants_at_once).try_collect().await
}

async fn add_one(socket: &Path, want: &PodRequest, pool: &str) -> Result<String> {
    let arguments = IpamAddArgs {
        net_namespace: "/proc/self/ns/net".into(),
        default_ipv4_ip_pool: Some(vec![pool.to_owned()]),
        ..IpamAddArgs::new(want.uid.parse()?, "net1".parse()?, want.pod()?, Some(want.uid.parse()?))
    };
    let (status, body) = ask_socket(socket, Method::POST, path::IP, json_body(&arguments)?).await?;
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let answer: IpamAddResponse = serde_json::from_slice(&body)?;
    Ok(answer.ips.into_iter().next().context("no address in the answer")?.address)
}

/// Deletes the pods and releases their addresses as a kubelet does; how many DELs failed.
async fn release_all(client: &Client, agents: &Agents, wants: &[PodRequest]) -> Result<usize> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let release = |want: &PodRequest| {
        let (pods, socket, want) = (pods.clone(), agents.sockets[want.node].clone(), want.clone());
        async move {
            pods.delete(&want.name, &DeleteParams::default().grace_period(0)).await?;
            let uid = Some(want.uid.parse()?);
            let arguments = IpamDelArgs::new(want.uid.parse()?, "net1".parse()?, want.pod()?, uid);
            let released = ask_socket(&socket, Method::DELETE, path::IP, json_body(&arguments)?).await;
            Ok::<_, anyhow::Error>(match released {
                Ok((status, _)) if status.is_success() => 0,
                Ok((status, body)) => {
                    eprintln!("pod {}: DEL failed: {status}: {}", want.name, String::from_utf8_lossy(&body));
                    1
                }
                Err(error) => {
                    eprintln!("pod {}: DEL failed: {error:#}", want.name);
                    1
                }
            })
        }
    };
    let releases: Vec<_> = wants.iter().map(release).collect();
    let failed = stream::iter(releases).buffer_unordered(16).try_collect::<Vec<usize>>().await?;
    Ok(failed.into_iter().sum())
}
