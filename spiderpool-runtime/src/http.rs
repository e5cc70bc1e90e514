//! Serving a router on a listener until shutdown.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::Router;
use axum::serve::Listener;
use tokio::net::TcpListener;

use crate::shutdown::Shutdown;

/// Binds a port on all addresses: both families where the host has IPv6, otherwise IPv4.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        outcome => outcome,
    }
}

/// Serves until the shutdown is requested; requests that have begun are answered first.
pub async fn serve<L>(listener: L, router: Router, shutdown: Shutdown) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.requested().await }).await
}
