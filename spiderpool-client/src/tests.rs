//! The wire format, against a server that answers each connection once.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use spiderpool_core::names::PodName;

use super::*;

/// Answers one request with `answer` and returns the request.
fn serve(folder: &Path, answer: &'static str) -> (Client, JoinHandle<String>) {
    let socket = folder.join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 1024];
        while !request.ends_with(b"}") {
            let length = stream.read(&mut chunk).unwrap();
            assert_ne!(length, 0);
            request.extend_from_slice(&chunk[..length]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (Client::new(socket), server)
}

fn pod() -> PodName {
    PodName::new("n", "p").unwrap()
}

fn add() -> IpamAddArgs {
    IpamAddArgs::new("c".parse().unwrap(), "net1".parse().unwrap(), pod(), None)
}

fn del() -> IpamDelArgs {
    IpamDelArgs::new("c".parse().unwrap(), "net1".parse().unwrap(), pod(), None)
}

#[test]
fn an_allocation_on_the_wire() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"{"ips":[{"version":4,"address":"10.6.0.5/16","nic":"net1"}],"routes":null}"#;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).leak();
    let (client, server) = serve(folder.path(), answer);
    let response = client.allocate(&add(), WRITE_TIMEOUT).unwrap();
    assert_eq!(response.ips[0].address, "10.6.0.5/16");
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /v1/ipam/ip HTTP/1.1\r\nHost: "), "{request}");
    assert!(
        request.contains("\r\nConnection: close\r\n") && request.contains(r#""containerID":"c""#),
        "{request}"
    );
}

#[test]
fn a_get_request_has_a_body() {
    let folder = tempfile::tempdir().unwrap();
    let (client, server) = serve(folder.path(), "HTTP/1.1 500 Error\r\n\r\n\"coordinator config not found\"");
    let args = GetCoordinatorArgs { pod: PodName::new("n", "p").unwrap() };
    let error = client.coordinator_config(&args).unwrap_err();
    assert_eq!(error.to_string(), "coordinator config not found");
    assert!(!error.is_retryable() && !error.is_unreachable());
    assert_eq!(error.reason(), "agent_refused");
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /v1/coordinator/config HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with(r#"{"podNamespace":"n","podName":"p"}"#), "{request}");
}

#[test]
fn refusals_in_every_form() {
    for (answer, text) in [
        (
            "HTTP/1.1 422 Bad\r\n\r\n{\"code\":602,\"message\":\"podName in body is required\"}",
            "podName in body is required",
        ),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\nplain text\n", "plain text"),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "the agent answered with status 503"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (client, server) = serve(folder.path(), answer);
        let error = client.release(&del()).unwrap_err();
        assert_eq!(error.to_string(), text);
        server.join().unwrap();
    }
}

#[test]
fn an_agent_that_is_down_or_hangs_up_is_retryable() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::new(folder.path().join("nobody")).release(&del()).unwrap_err();
    assert!(error.is_unreachable() && error.is_retryable());
    assert_eq!(error.reason(), "agent_unreachable");
    assert!(error.to_string().contains("check that spiderpool-agent runs"), "{error}");
    let (client, server) = serve(folder.path(), "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{");
    let error = client.allocate(&add(), WRITE_TIMEOUT).unwrap_err();
    assert!(matches!(error, ClientError::Io { .. }) && error.is_retryable(), "{error}");
    server.join().unwrap();
}

#[test]
fn an_allocation_takes_no_longer_than_its_caller_has_time() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let (said, hears) = mpsc::channel();
    thread::spawn(move || {
        let client = Client::new(socket);
        [Duration::from_millis(100), Duration::ZERO].map(|left| said.send(client.allocate(&add(), left)))
    });
    for _ in 0..2 {
        let outcome = hears.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(outcome.unwrap_err().is_retryable());
    }
}

/// As one that is stopped, or waits for its disk: first it does not answer, later it does not even accept.
#[test]
fn an_agent_that_hangs_holds_up_a_request_for_its_time_limit_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let operation = Operation { method: "DELETE", path: path::IP, timeout: Duration::from_millis(100) };
    let client = Client::new(socket);
    // On a thread: without a limit it would wait for ever.
    let (said, hears) = mpsc::channel();
    thread::spawn(move || {
        let unanswered = client.exchange(operation, &del()).unwrap_err();
        let mut waiting = Vec::new();
        let refused = loop {
            match connect_within(client.socket(), operation.timeout) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        said.send((unanswered, refused, client.exchange(operation, &del()).unwrap_err()))
    });
    let (unanswered, refused, unaccepted) = hears.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(unanswered, ClientError::Io { .. }), "{unanswered}");
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    assert!(unaccepted.is_unreachable(), "{unaccepted}");
    drop(listener);
}
