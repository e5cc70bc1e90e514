//! One flow of the matrix: what is sent, who must answer, and by which NIC of the pod it must go.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use spiderpool_core::ip::Family;

use crate::capture::{Capture, Direction, Packet};
use crate::namespaces::Namespaces;
use crate::probe::{Answer, Probe, Protocol, send_to};

/// How often a Service with several endpoints is asked until each has answered.
const ATTEMPTS: usize = 64;
/// How many flows of a pod run at a time.
const AT_A_TIME: usize = 12;
/// The same of flows that wait for an answer that does not come.
const WAITING_AT_A_TIME: usize = 64;

/// A flow and what is expected of it.
#[derive(Debug, Clone)]
pub struct Flow {
    /// What it is, in words; the same in every mode and family.
    pub name: String,
    /// Who sends.
    pub from: Namespaces,
    /// What is sent.
    pub probe: Probe,
    /// To this port; ping has none.
    pub port: u16,
    /// Who must answer, each at least once; none for ping.
    pub servers: Vec<Expected>,
    /// The pod whose NICs are looked at.
    pub pod: Namespaces,
    /// The NIC of the pod by which its request leaves and the answer comes in.
    pub client_nic: Option<&'static str>,
    /// The NIC of the pod by which the request comes in and its answer leaves, and the address that is asked there.
    pub server_nic: Option<(&'static str, IpAddr)>,
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

/// What a flow needs to be recognised in a capture.
#[derive(Debug, Default)]
struct Answered {
    answers: Vec<Answer>,
    time: Duration,
}

impl Flow {
    /// The family that it is sent in.
    pub fn family(&self) -> Family {
        Family::of(self.probe.to)
    }

    /// Sends it and checks the answer and the NICs.
    pub fn run(&self) -> Outcome {
        run_together(std::slice::from_ref(self))
            .pop()
            .unwrap_or_else(|| Outcome { time: Duration::ZERO, result: Err(anyhow!("it did not run")) })
    }

    fn ask(&self) -> Result<Answered> {
        let mut missing: BTreeSet<&str> =
            self.servers.iter().map(|expected| expected.server.as_str()).collect();
        let (started, mut answered) = (Instant::now(), Answered::default());
        for attempt in 0..ATTEMPTS {
            let answer = send_to(&self.from, self.probe, self.port)?;
            if attempt == 0 {
                answered.time = started.elapsed();
            }
            self.check_source(&answer)?;
            missing.remove(answer.server.as_str());
            answered.answers.push(answer);
            if missing.is_empty() {
                return Ok(answered);
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

    /// Each answer's packets must have gone by the NICs that are expected.
    fn check_nics(&self, answered: &Answered, packets: &BTreeSet<Packet>) -> Result<()> {
        for answer in &answered.answers {
            if let Some(nic) = self.client_nic {
                let is_request = |packet: &&Packet| self.is_request(answer, packet);
                check_nic("request", nic, Direction::Out, packets.iter().filter(is_request))?;
                let is_reply = |packet: &&Packet| self.is_request(answer, &reversed(packet));
                check_nic("answer", nic, Direction::In, packets.iter().filter(is_reply))?;
            }
            if let Some((nic, own)) = self.server_nic {
                let is_request = |packet: &&Packet| self.is_delivered(answer, own, packet);
                check_nic("request", nic, Direction::In, packets.iter().filter(is_request))?;
                let is_reply = |packet: &&Packet| self.is_delivered(answer, own, &reversed(packet));
                check_nic("answer", nic, Direction::Out, packets.iter().filter(is_reply))?;
            }
        }
        Ok(())
    }

    /// The request as the client sends it.
    fn is_request(&self, answer: &Answer, packet: &Packet) -> bool {
        let to = self.probe.protocol == Protocol::Ping || packet.ports.1 == self.port;
        self.is_of(packet) && packet.destination == self.probe.to && packet.ports.0 == answer.own_port && to
    }

    /// The request as the server gets it.
    fn is_delivered(&self, answer: &Answer, own: IpAddr, packet: &Packet) -> bool {
        let from = answer.seen.is_none_or(|seen| packet.source == seen);
        self.is_of(packet) && from && packet.destination == own && packet.ports.0 == answer.seen_port
    }

    fn is_of(&self, packet: &Packet) -> bool {
        packet.protocol == Some(self.probe.protocol)
    }
}

/// The packet as its answer has addresses and ports.
fn reversed(packet: &Packet) -> Packet {
    let ports = (packet.ports.1, packet.ports.0);
    Packet { source: packet.destination, destination: packet.source, ports, ..packet.clone() }
}

fn check_nic<'a>(
    what: &str,
    nic: &str,
    direction: Direction,
    packets: impl Iterator<Item = &'a Packet>,
) -> Result<()> {
    let mut of_direction = packets.filter(|packet| packet.direction == direction).peekable();
    let way = if direction == Direction::In { "came in" } else { "left" };
    ensure!(of_direction.peek().is_some(), "answered, but no {what} was seen that {way}");
    for packet in of_direction {
        ensure!(packet.nic == nic, "the {what} {way} by {} in place of {nic}: {packet:?}", packet.nic);
    }
    Ok(())
}

/// Runs flows of one pod, several at a time, under one capture; how each went, in their order.
pub fn run_together(flows: &[Flow]) -> Vec<Outcome> {
    run_at_once(flows, AT_A_TIME)
}

/// As [`run_together`], flows that will hardly be answered: they wait, and need no processor.
pub fn run_without_hope(flows: &[Flow]) -> Vec<Outcome> {
    run_at_once(flows, WAITING_AT_A_TIME)
}

fn run_at_once(flows: &[Flow], at_a_time: usize) -> Vec<Outcome> {
    let Some(first) = flows.first() else { return Vec::new() };
    let capture = Capture::start(&first.pod);
    let answers = ask_all(flows, at_a_time);
    let packets = capture.and_then(Capture::finish);
    let check = |flow: &Flow, answered: Result<Answered>| -> Outcome {
        let time = answered.as_ref().map_or(Duration::ZERO, |answered| answered.time);
        let result = answered.and_then(|answered| match &packets {
            Ok(packets) => flow.check_nics(&answered, packets),
            Err(error) => bail!("capture: {error:#}"),
        });
        Outcome { time, result }
    };
    flows.iter().zip(answers).map(|(flow, answered)| check(flow, answered)).collect()
}

fn ask_all(flows: &[Flow], at_a_time: usize) -> Vec<Result<Answered>> {
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((index, flow)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            flows.get(index).map(|flow| (index, flow))
        } {
            let answer = flow.ask();
            answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, answer));
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_a_time.min(flows.len()) {
            scope.spawn(work);
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Runs flows without looking at NICs: for comparison, where many fail and each failure takes time.
pub fn run_in_parallel(flows: &[Flow]) -> Vec<bool> {
    ask_all(flows, AT_A_TIME).iter().map(Result::is_ok).collect()
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe { protocol, to, bound } = self.probe;
        write!(f, "{} ({protocol}, IPv{}: {} to {to}", self.name, self.family().version(), self.from.name)?;
        if protocol != Protocol::Ping {
            write!(f, " port {}", self.port)?;
        }
        if let Some(bound) = bound {
            write!(f, ", socket bound to {bound}")?;
        }
        f.write_str(")")
    }
}
