//! One flow of the matrix: what is sent, who must answer, and by which NIC the answer must leave.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use spiderpool_core::ip::Family;

use crate::capture::Capture;
use crate::namespaces::Namespaces;
use crate::probe::{Answer, Probe, Protocol, send};

/// How often a Service with several endpoints is asked until each has answered.
const ATTEMPTS: usize = 64;

/// A flow and what is expected of it.
#[derive(Debug, Clone)]
pub struct Flow {
    /// What it is, in words; the same in every mode and family.
    pub name: String,
    /// Who sends.
    pub from: Namespaces,
    /// What is sent.
    pub probe: Probe,
    /// Who must answer, each at least once; none for ping.
    pub servers: Vec<Expected>,
    /// Where the answer must leave: the server's namespaces and NIC.
    pub replies: Option<(Namespaces, &'static str)>,
}

/// A server that must answer.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The server's name.
    pub server: String,
    /// The client's address as the server must see it: one of these.
    pub sources: Vec<IpAddr>,
}

/// How a flow went.
#[derive(Debug)]
pub struct Outcome {
    /// How long its first answer took.
    pub time: Duration,
    /// Why it failed.
    pub result: Result<()>,
}

impl Flow {
    /// The family that it is sent in.
    pub fn family(&self) -> Family {
        Family::of(self.probe.to)
    }

    /// Name and protocol: the row of a report.
    pub fn row(&self) -> (String, Protocol) {
        (self.name.clone(), self.probe.protocol)
    }

    /// Sends it and checks the answer.
    pub fn run(&self) -> Outcome {
        let started = Instant::now();
        let capture = self.replies.as_ref().map(|(namespaces, nic)| (Capture::start(namespaces), *nic));
        let answered = self.ask();
        let time = started.elapsed();
        let result = match capture {
            None => answered,
            Some((capture, nic)) => self.check_replies(capture, nic, answered),
        };
        Outcome { time, result }
    }

    fn ask(&self) -> Result<()> {
        let mut missing: BTreeSet<&str> =
            self.servers.iter().map(|expected| expected.server.as_str()).collect();
        for _ in 0..ATTEMPTS {
            let answer = send(&self.from, self.probe)?;
            self.check_source(&answer)?;
            missing.remove(answer.server.as_str());
            if missing.is_empty() {
                return Ok(());
            }
        }
        bail!("no answer from {missing:?} in {ATTEMPTS} attempts")
    }

    fn check_source(&self, answer: &Answer) -> Result<()> {
        let Some(seen) = answer.seen else { return Ok(()) };
        let expected = self.servers.iter().find(|expected| expected.server == answer.server);
        let expected = expected.with_context(|| format!("answered by {}", answer.server))?;
        ensure!(
            expected.sources.contains(&seen),
            "{} saw the source {seen}, not {:?}",
            answer.server,
            expected.sources
        );
        Ok(())
    }

    fn check_replies(&self, capture: Result<Capture>, nic: &str, answered: Result<()>) -> Result<()> {
        let leaving = capture?.finish()?;
        answered?;
        let replies: Vec<_> = leaving.iter().filter(|packet| packet.source == self.probe.to).collect();
        ensure!(!replies.is_empty(), "answered, but no reply was seen leaving: {leaving:?}");
        for packet in replies {
            ensure!(packet.nic == nic, "a reply left by {} in place of {nic}", packet.nic);
        }
        Ok(())
    }
}

/// Runs flows in parallel, without looking at replies: for comparison, where many fail and each failure takes time.
pub fn run_in_parallel(flows: &[Flow]) -> Result<Vec<bool>> {
    thread::scope(|scope| {
        let running: Vec<_> = flows
            .iter()
            .map(|flow| {
                let flow = Flow { replies: None, ..flow.clone() };
                scope.spawn(move || flow.run().result.is_ok())
            })
            .collect();
        running.into_iter().map(|flow| flow.join().ok().context("a flow panicked")).collect()
    })
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe { protocol, to, bound } = self.probe;
        write!(f, "{} ({protocol}, IPv{}: {} to {to}", self.name, self.family().version(), self.from.name)?;
        if let Some(bound) = bound {
            write!(f, ", socket bound to {bound}")?;
        }
        f.write_str(")")
    }
}
