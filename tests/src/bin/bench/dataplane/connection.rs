//! A connection for a few bytes, and a stream of many.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::poll;
use spiderpool_tests::probe::{LIMIT, PORT};

use crate::samples::Samples;

/// Where a stream ends.
const SINK: u16 = 7300;
/// An answer that takes longer is lost; the median is what counts.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// What is written at once.
const CHUNK: usize = 256 * 1024;
const MEBIBYTE: usize = 1024 * 1024;

/// Microseconds of each of `count` connections: set up, the four bytes that the server waits for, its answer, closed.
pub(super) fn connections(from: &Namespaces, to: IpAddr, count: usize) -> Result<Samples> {
    from.run(|| {
        let mut samples = Samples::default();
        for index in 0..=count {
            let start = Instant::now();
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), LIMIT)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.write_all(b"who?")?;
            stream
                .read_to_end(&mut Vec::new())
                .with_context(|| format!("no answer to connection {index}"))?;
            drop(stream);
            if index > 0 {
                samples.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(samples)
    })
}

/// Milliseconds in which one stream carries this much, until the other end has all of it.
pub(super) fn stream(from: &Namespaces, at: &Namespaces, to: IpAddr, mebibytes: usize) -> Result<f64> {
    let (ready, listening) = channel();
    let sink = at.spawn(move || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, SINK))?;
        ready.send(())?;
        listener.set_nonblocking(true)?;
        let (mut stream, _) = poll::until("the stream", LIMIT, || Ok(listener.accept()?))?;
        stream.set_nonblocking(false)?;
        let mut buffer = vec![0; CHUNK];
        while stream.read(&mut buffer)? > 0 {}
        stream.write_all(b"x")?;
        Ok(())
    });
    listening.recv().context("no sink")?;
    let milliseconds = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, SINK), LIMIT)?;
        let (start, chunk) = (Instant::now(), vec![0; CHUNK]);
        for _ in 0..mebibytes * MEBIBYTE / CHUNK {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_exact(&mut [0])?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    })?;
    sink.join().map_err(|_| anyhow!("the sink panicked"))??;
    Ok(milliseconds)
}
