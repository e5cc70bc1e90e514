//! ADD and DEL as the plugin asks the agent for them, tried again as a kubelet does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use kube::Client;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse, IpamDelArgs};
use spiderpool_api::agent::path;
use spiderpool_tests::exchange::{ask_socket, json_body};
use tokio::sync::Semaphore;

use crate::agents::Agents;
use crate::pods::{PodRequest, delete_pod};
use crate::pool::Pool;

/// How long a kubelet waits before it tries a failed sandbox again.
const RETRY: Duration = Duration::from_secs(10);
/// After this many failed tries a pod is left without an address.
pub(crate) const TRIES: usize = 30;
const NIC: &str = "net1";
/// DELs in flight, of all agents.
const RELEASES: usize = 16;

/// What came of one pod's tries.
pub(crate) struct Outcome {
    pub(crate) got: Option<AllocatedPod>,
    pub(crate) failed: usize,
}

/// One pod that has got its address.
pub(crate) struct AllocatedPod {
    pub(crate) address: String,
    /// Since its first try.
    pub(crate) latency: Duration,
}

/// All pods, at most `in_flight` of each node at a time, failed ones again after [`RETRY`]. They are ordered by node.
pub(crate) async fn add_all(
    agents: &Agents,
    wants: &[PodRequest],
    pool: &Pool,
    in_flight: usize,
) -> Result<Vec<Outcome>> {
    let of_nodes = wants.chunk_by(|a, b| a.node == b.node).map(|wants| {
        let socket = agents.socket(wants[0].node).to_owned();
        tokio::spawn(add_all_of_node(socket, wants.to_vec(), pool.clone(), in_flight))
    });
    let mut outcomes = Vec::new();
    for of_node in of_nodes.collect::<Vec<_>>() {
        outcomes.extend(of_node.await??);
    }
    Ok(outcomes)
}

async fn add_all_of_node(
    socket: PathBuf,
    wants: Vec<PodRequest>,
    pool: Pool,
    in_flight: usize,
) -> Result<Vec<Outcome>> {
    let slots = Semaphore::new(in_flight);
    let wants_at_once = wants.len();
    let add_one = |want: PodRequest| {
        let (slots, socket, pool) = (&slots, &socket, &pool);
        async move {
            let mut first = None;
            for failed in 0..TRIES {
                if failed > 0 {
                    tokio::time::sleep(RETRY).await;
                }
                let _slot = slots.acquire().await?;
                let start = *first.get_or_insert_with(Instant::now);
                match add(socket, &want, pool).await {
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
    stream::iter(wants).map(add_one).buffer_unordered(wants_at_once).try_collect().await
}

/// One ADD; the address.
pub(crate) async fn add(socket: &Path, want: &PodRequest, pool: &Pool) -> Result<String> {
    let [ipv4, ipv6] = pool.asked_for();
    let arguments = IpamAddArgs {
        net_namespace: "/proc/self/ns/net".into(),
        default_ipv4_ip_pool: ipv4,
        default_ipv6_ip_pool: ipv6,
        ..IpamAddArgs::new(want.uid.parse()?, NIC.parse()?, want.pod()?, Some(want.uid.parse()?))
    };
    let (status, body) = ask_socket(socket, Method::POST, path::IP, json_body(&arguments)?).await?;
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let answer: IpamAddResponse = serde_json::from_slice(&body)?;
    Ok(answer.ips.into_iter().next().context("no address in the answer")?.address)
}

/// One DEL.
pub(crate) async fn del(socket: &Path, want: &PodRequest) -> Result<()> {
    let uid = Some(want.uid.parse()?);
    let arguments = IpamDelArgs::new(want.uid.parse()?, NIC.parse()?, want.pod()?, uid);
    let (status, body) = ask_socket(socket, Method::DELETE, path::IP, json_body(&arguments)?).await?;
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Deletes the pods and releases their addresses; how many DELs failed.
pub(crate) async fn release_all(client: &Client, agents: &Agents, wants: &[PodRequest]) -> Result<usize> {
    let release = |want: &PodRequest| {
        let (client, socket, want) = (client.clone(), agents.socket(want.node).to_owned(), want.clone());
        async move {
            delete_pod(&client, &want).await?;
            let released = del(&socket, &want).await;
            if let Err(error) = &released {
                eprintln!("pod {}: DEL failed: {error:#}", want.name);
            }
            Ok::<_, anyhow::Error>(usize::from(released.is_err()))
        }
    };
    let releases: Vec<_> = wants.iter().map(release).collect();
    let failed = stream::iter(releases).buffer_unordered(RELEASES).try_collect::<Vec<_>>().await?;
    Ok(failed.into_iter().sum())
}
