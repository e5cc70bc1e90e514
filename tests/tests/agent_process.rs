//! The agent as a process: its socket, its probes and its end.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::net::UnixListener;

use http::{Method, StatusCode};
use serde_json::Value;
use support::Bench;

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
