//! A server on a thread of its own.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use spiderpool_testbox::probe::Listener;

use crate::namespaces::Namespaces;

/// A running server; dropping it stops it, so that its thread does not hold the namespace.
#[derive(Debug)]
pub struct Server {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Listens on the wildcard address of both families: the kernel chooses by which address a datagram is answered.
    pub fn start(namespaces: &Namespaces) -> Result<Self> {
        Self::start_at(namespaces, &[Ipv6Addr::UNSPECIFIED.into()])
    }

    /// Listens on `addresses` once this returns.
    pub fn start_at(namespaces: &Namespaces, addresses: &[IpAddr]) -> Result<Self> {
        // Not for children: the end must be closed when this process closes it.
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC)?;
        let (ready, listening) = channel();
        let (name, addresses) = (namespaces.name.clone(), addresses.to_owned());
        let thread = namespaces.spawn(move || {
            let listener = Listener::bind(&addresses)?;
            ready.send(())?;
            listener.serve(&name, Some(stopped.as_fd()))
        });
        if listening.recv().is_err() {
            thread.join().map_err(|_| anyhow!("the server panicked"))??;
            bail!("the server ended before it listened");
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            eprintln!("a server failed");
        }
    }
}
