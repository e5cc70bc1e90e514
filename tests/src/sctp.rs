//! Associations of SCTP, one message each way. Not every kernel has the protocol: tests of it run where it does, and on other kernels
//! by `cargo xtask vmtest`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::link_kinds::IN_GUEST;
use crate::namespaces::Namespaces;
use crate::poll;

/// Longer than SCTP waits before it repeats an INIT (1 s in Linux), twice: machines that are emulated are slow.
const LIMIT: Duration = Duration::from_secs(5);
const MESSAGE: &[u8; 4] = b"sctp";

/// Whether the kernel has SCTP; if not, says that `test` is skipped, also with `CI=true`.
pub fn known_or_skip(test: &str) -> Result<bool> {
    match open(AddressFamily::Inet) {
        Ok(_) => Ok(true),
        Err(error) if error.downcast_ref() == Some(&Errno::EPROTONOSUPPORT) => {
            ensure!(std::env::var_os(IN_GUEST).is_none(), "{test}: this kernel has no SCTP");
            eprintln!("skipped: {test}: the kernel has no module for SCTP; run it by `cargo xtask vmtest`");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// `from` opens an association with a server at `to`, in the namespace `at`, by a socket that is bound to an address or to none;
/// one message goes there and comes back. Answers whom the server has seen.
pub fn exchange(from: &Namespaces, bound: Option<IpAddr>, at: &Namespaces, to: SocketAddr) -> Result<IpAddr> {
    let (ready, listening) = channel();
    let server = at.spawn(move || {
        let listener = open(family(to.ip()))?;
        bind(listener.as_raw_fd(), &SockaddrStorage::from(to))?;
        listen(&listener, Backlog::new(1)?)?;
        ready.send(())?;
        // What the standard library does with such sockets is the same for every protocol that has connections.
        let (mut stream, peer) = TcpListener::from(listener).accept().context("no association")?;
        let mut message = *b"    ";
        stream.read_exact(&mut message).context("no message")?;
        stream.write_all(&message)?;
        Ok(peer.ip())
    });
    let client = if listening.recv().is_ok() {
        from.run(move || {
            let socket = open(family(to.ip()))?;
            if let Some(bound) = bound {
                bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(bound, 0)))?;
            }
            connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).context("no association")?;
            let mut stream = TcpStream::from(socket);
            stream.write_all(MESSAGE)?;
            let mut answer = *b"    ";
            stream.read_exact(&mut answer).context("no answer")?;
            ensure!(answer == *MESSAGE, "another answer: {answer:?}");
            Ok(())
        })
    } else {
        Ok(())
    };
    let seen = server.join().map_err(|_| anyhow!("the server panicked"))?;
    client.and(seen)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A socket that waits for nothing longer than [`LIMIT`].
fn open(family: AddressFamily) -> Result<OwnedFd> {
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?;
    let limit = TimeVal::new(i64::try_from(poll::scaled(LIMIT).as_secs())?, 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    Ok(socket)
}
