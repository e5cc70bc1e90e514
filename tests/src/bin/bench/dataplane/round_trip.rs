//! A small datagram and its answer.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::probe::{LIMIT, PORT};

use crate::samples::Samples;

/// Microseconds of each of `count` round trips of a small datagram; the first of the flow is not counted.
pub(super) fn round_trips(
    from: &Namespaces,
    to: IpAddr,
    bound: Option<IpAddr>,
    count: usize,
) -> Result<Samples> {
    from.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
        let socket = UdpSocket::bind(SocketAddr::new(bound.unwrap_or(any), 0))?;
        socket.connect(SocketAddr::new(to, PORT))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut samples = Samples::default();
        for index in 0..=count {
            let start = Instant::now();
            socket.send(&[0; 16])?;
            let size = socket.recv(&mut [0; 128]).with_context(|| format!("no answer to packet {index}"))?;
            ensure!(size > 0, "an empty answer");
            if index > 0 {
                samples.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(samples)
    })
}
