//! The agent as a process: its socket, its probes and its end.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{Method, StatusCode};
use serde_json::Value;
use support::{Bench, limit_of_files, lower_limit_of_files};

const LIVENESS: &str = "/v1/runtime/liveness";

/// What happens when the folder or the socket is replaced under the agent: only a restart helps.
#[tokio::test(flavor = "multi_thread")]
async fn liveness_asks_the_own_socket() {
    let bench = Bench::new("liveness").await;
    let agent = bench.agent("n1").await;
    assert_eq!(agent.probe(LIVENESS).await.unwrap().0, StatusCode::OK);
    let socket = bench.folder("n1").join("agent.sock");
    std::fs::remove_file(&socket).unwrap();
    // As a second agent that ended leaves it.
    drop(UnixListener::bind(&socket).unwrap());
    bench
        .until("the probe fails", async || {
            let (status, why) = agent.probe(LIVENESS).await.unwrap();
            status == StatusCode::INTERNAL_SERVER_ERROR && why.contains("own socket")
        })
        .await;
    agent.stop().unwrap();
}

/// The probes are served on their own port alone.
#[tokio::test(flavor = "multi_thread")]
async fn probes_on_the_socket_are_not_implemented() {
    let bench = Bench::new("probes").await;
    let agent = bench.agent("n1").await;
    let answer = agent.ask(Method::GET, LIVENESS, &Value::Null).await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(answer.failure(), "operation runtime.GetRuntimeLiveness has not yet been implemented");
    agent.stop().unwrap();
}

/// Runtimes give few files and allow many.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_raises_its_limit_of_open_files() {
    lower_limit_of_files();
    let bench = Bench::new("agentfiles").await;
    let agent = bench.agent("n1").await;
    let (limit, hard) = limit_of_files(agent.id());
    assert_eq!(limit, hard);
    agent.stop().unwrap();
}

/// As any pod or host that reaches the node can open: with few files, so that hundreds are enough.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_to_the_metrics_starve_neither_probes_nor_plugins() {
    let bench = Bench::new("idleconns").await;
    let agent = bench.agent("n1").await;
    let limit = ["--nofile=256:256".to_owned(), format!("--pid={}", agent.id())];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success());
    // All at once: when the agent accepts no more, the kernel lets the rest wait.
    let mut opening: FuturesUnordered<_> = (0..400).map(|_| agent.connect_to_metrics()).collect();
    let mut idle = Vec::new();
    while let Ok(Some(connection)) = tokio::time::timeout(Duration::from_secs(1), opening.next()).await {
        idle.push(connection.unwrap());
    }
    // More than once: the agent accepts them meanwhile.
    for _ in 0..100 {
        let healthy = in_time(agent.ask(Method::GET, "/v1/ipam/healthy", &Value::Null)).await;
        assert_eq!(healthy.unwrap().status, StatusCode::OK);
        assert_eq!(in_time(agent.probe(LIVENESS)).await.unwrap().0, StatusCode::OK);
    }
    assert!(in_time(agent.metrics()).await.unwrap().contains("spiderpool"));
    drop((idle, opening));
    agent.stop().unwrap();
}

/// As long as the kubelet waits for a probe.
async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap()
}
