//! Serving a router on a listener until shutdown.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tracing::{debug, warn};

use tokio_util::sync::CancellationToken;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the shutdown waits for requests that have begun.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);

/// Binds a port on all addresses: both families where the host has IPv6, otherwise IPv4.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        outcome => outcome,
    }
}

/// Serves until the shutdown is requested; requests that have begun are answered first, within a limit.
pub async fn serve<L: Listener>(listener: L, router: Router, shutdown: CancellationToken) {
    serve_within(listener, router, shutdown, SHUTDOWN_GRACE).await;
}

async fn serve_within<L: Listener>(
    mut listener: L,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let connections = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection failed");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, connections.shutdown()).await.is_err() {
        warn!("closing connections whose requests did not end in time");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// As a probe leaves it that stops in the middle of its request.
    #[tokio::test]
    async fn an_incomplete_request_does_not_hold_up_the_shutdown() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "complete" }));
        let serving =
            tokio::spawn(serve_within(listener, router, shutdown.clone(), Duration::from_millis(50)));
        let mut incomplete = TcpStream::connect(address).await.unwrap();
        incomplete.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
        // Connections are accepted in order: when this one is answered, the other was accepted.
        let mut complete = TcpStream::connect(address).await.unwrap();
        complete.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        complete.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("complete"), "{answer}");
        shutdown.cancel();
        tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_has_begun_is_answered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (begun, go_on) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
        let handler = {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            move || async move {
                begun.notify_one();
                go_on.notified().await;
                "late"
            }
        };
        let serving = tokio::spawn(serve_within(
            listener,
            Router::new().route("/", get(handler)),
            shutdown.clone(),
            LIMIT,
        ));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        begun.notified().await;
        shutdown.cancel();
        go_on.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("late"), "{answer}");
        tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
    }
}
