//! Serving a router on a listener until shutdown.

mod arrival;
mod bind;
mod connections;
mod tls;

use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use arrival::Arriving;
pub use bind::{bind_all, bind_loopback};
pub use connections::Limits;
use connections::{Clients, Connections, Progress};
pub use tls::{TlsConnection, TlsListener};

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may wait with its next request. Longer than Go's clients keep a connection (90 s), so that none sends a
/// request by a connection that is about to be closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// How long the shutdown waits for requests that have begun.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(8);

/// Serves until the shutdown is requested; requests that have begun are answered first, within a limit.
pub async fn serve<L: Listener>(listener: L, router: Router, limits: Limits, shutdown: CancellationToken) {
    serve_within(listener, router, limits, shutdown, SHUTDOWN_GRACE).await;
}

async fn serve_within<L: Listener>(
    mut listener: L,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::new(limits);
    let reuses = limits.clients == Clients::Returning;
    loop {
        let stream = tokio::select! {
            stream = connections.accept(&mut listener) => stream,
            () = shutdown.cancelled() => break,
        };
        let (inner, progress) = (TowerToHyperService::new(router.clone()), Progress::default());
        let begun = progress.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let begun = begun.clone();
            let answer = inner.call(request.map(|body| Arriving::new(body, begun.clone())));
            async move {
                let answer = answer.await;
                begun.request_is_answered();
                answer
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(if reuses { IDLE_TIMEOUT } else { HEAD_TIMEOUT })
            .keep_alive(limits.clients == Clients::Trusted || reuses)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        let connection = async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection failed");
            }
        };
        connections.spawn(connection, progress);
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        warn!("closing connections whose requests did not end in time");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::body::Bytes;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(50);

    async fn start(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "complete" }));
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        address
    }

    /// Asks by a connection that stays open.
    async fn ask_again(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"complete") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "it is closed");
        }
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn idle_connections_to_a_port_give_way_to_a_request() {
        let address = start(Limits { connections: 3, ..Limits::PORT }).await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = tokio::time::timeout(LIMIT, ask(address)).await.unwrap();
        assert!(answer.ends_with("complete"), "{answer}");
        let closed = tokio::time::timeout(LIMIT, idle[0].read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "the oldest is closed: {closed:?}");
        let open = tokio::time::timeout(SHORT, idle[2].read(&mut [0])).await;
        assert!(open.is_err(), "the others are not: {open:?}");
    }

    #[tokio::test]
    async fn a_connection_to_a_port_ends_whatever_its_client_does() {
        let address = start(Limits { connections: 3, clients: Clients::Anybody { lifetime: SHORT } }).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let closed = tokio::time::timeout(LIMIT, slow.read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }

    #[tokio::test]
    async fn clients_of_a_socket_wait_for_each_other() {
        let address = start(Limits { connections: 1, ..Limits::SOCKET }).await;
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = tokio::spawn(ask(address));
        assert!(tokio::time::timeout(SHORT, &mut second).await.is_err(), "it waits");
        drop(first);
        let answer = tokio::time::timeout(LIMIT, second).await.unwrap().unwrap();
        assert!(answer.ends_with("complete"), "{answer}");
    }

    /// As a probe leaves it that stops in the middle of its request.
    #[tokio::test]
    async fn an_incomplete_request_does_not_hold_up_the_shutdown() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "complete" }));
        let serving = tokio::spawn(serve_within(listener, router, Limits::SOCKET, shutdown.clone(), SHORT));
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
    async fn an_answer_that_takes_long_is_not_lost_to_idle_connections() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, go_on) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
        let handler = {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            move || async move {
                begun.notify_one();
                go_on.notified().await;
                "slow"
            }
        };
        let router = Router::new().route("/", get(handler));
        let limits = Limits { connections: 3, ..Limits::PORT };
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        let slow = tokio::spawn(ask(address));
        begun.notified().await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let closed = tokio::time::timeout(LIMIT, idle[0].read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "the oldest that asks nothing is closed: {closed:?}");
        go_on.notify_one();
        let answer = tokio::time::timeout(LIMIT, slow).await.unwrap().unwrap();
        assert!(answer.ends_with("slow"), "{answer}");
    }

    /// Else every review would cost a handshake.
    #[tokio::test]
    async fn a_client_that_comes_again_is_answered_by_its_connection_and_keeps_it() {
        let address = start(Limits { connections: 3, ..Limits::WEBHOOK }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::time::timeout(LIMIT, ask_again(&mut stream)).await.unwrap();
        let mut idle = Vec::new();
        for _ in 0..4 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let closed = tokio::time::timeout(LIMIT, idle[0].read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "who has never asked gives way: {closed:?}");
        tokio::time::timeout(LIMIT, ask_again(&mut stream)).await.unwrap();
    }

    /// Else who sends no body would push out the API server.
    #[tokio::test]
    async fn who_keeps_a_request_without_its_body_gives_way_to_a_client_that_comes_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "complete" }).post(|_: Bytes| async { "read" }));
        let limits = Limits { connections: 3, ..Limits::WEBHOOK };
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::time::timeout(LIMIT, ask_again(&mut stream)).await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
            stream.write_all(head).await.unwrap();
            // The body is being waited for.
            let mut goes_on = Vec::new();
            while !goes_on.ends_with(b"\r\n\r\n") {
                let read = tokio::time::timeout(LIMIT, stream.read_buf(&mut goes_on)).await.unwrap();
                assert!(read.unwrap() > 0, "it is closed");
            }
            silent.push(stream);
        }
        let closed = tokio::time::timeout(LIMIT, silent[0].read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        tokio::time::timeout(LIMIT, ask_again(&mut stream)).await.unwrap();
    }

    /// As many reviews at once as a large `kubectl apply` makes.
    #[tokio::test]
    async fn more_requests_at_once_than_there_is_room_for_are_all_answered() {
        let address = start(Limits { connections: 3, ..Limits::WEBHOOK }).await;
        let asking: Vec<_> = (0..12).map(|_| tokio::spawn(ask(address))).collect();
        for asked in asking {
            let answer = tokio::time::timeout(LIMIT, asked).await.unwrap().unwrap();
            assert!(answer.ends_with("complete"), "{answer}");
        }
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
            Limits::PORT,
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
