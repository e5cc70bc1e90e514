//! Does each step to both pods and compares what leaves them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use aya::maps::{HashMap, Map, MapData};
use proptest::test_runner::TestCaseError;
use spiderpool_dataplane::{Dataplane, Reason};
use spiderpool_ebpf_common::headers::{ACK, FIN, RST, SYN};
use spiderpool_ebpf_common::maps::{ArrivalEntry, EPHEMERAL_PORTS, FlowKey, LinkFlow, NatEntry};
use spiderpool_ebpf_common::model::pod::{self, ETH0, Endpoint, Family, NET1, SP0, at};
use spiderpool_ebpf_common::protocol::TCP;

use super::difference::{Context, Exception};
use super::step::{Protocol, SERVERS, Step, Turn, binding};
use super::topology::{FAMILIES, GATEWAY, NEIGHBOR, NODE, Setting, hijacked};
use super::wire::{self, Kind, Mac};
use super::world::{self, Captured, Connection, Left, Received, Via, World};

type Checked<T = ()> = Result<T, TestCaseError>;

/// One value for the pod with programs and one for the other.
#[derive(Debug, Clone, Copy)]
struct Both<T> {
    ours: T,
    kernels: T,
}

/// The programs' maps of flows.
struct FlowMaps {
    arrivals: HashMap<MapData, FlowKey, ArrivalEntry>,
    nat: HashMap<MapData, FlowKey, NatEntry>,
    link_flows: HashMap<MapData, FlowKey, LinkFlow>,
}

/// The other end of a TCP connection.
#[derive(Debug, Clone, Copy)]
struct Peer {
    via: Via,
    address: SocketAddr,
    /// The pod's address, as the other end knows it.
    pod: SocketAddr,
}

struct Open {
    peer: Both<Peer>,
    connection: Both<Connection>,
    /// What the other end sends next.
    next: u32,
    is_called: bool,
}

/// A datagram that a server on the wildcard address has got.
#[derive(Debug, Clone, Copy)]
struct Called {
    at: IpAddr,
    by_net1: bool,
}

/// What has happened since all flows have expired.
#[derive(Default)]
struct Memory {
    /// By a server's port and its caller.
    called: BTreeMap<(u16, SocketAddr), Called>,
    /// The same of all calls, also of servers that have an address where both ports are fixed: by which NIC, at which address.
    calls: BTreeMap<(u16, SocketAddr), BTreeSet<(&'static str, SocketAddr)>>,
    /// Servers on the wildcard address that have spoken first, from one fixed port to another.
    spoke_first: BTreeSet<(u16, SocketAddr)>,
    /// By the pod's port.
    senders: BTreeMap<(Protocol, u16, SocketAddr), BTreeSet<Mac>>,
    /// The pod's ports that have sent to somebody before that has called.
    has_spoken: BTreeSet<(u16, SocketAddr)>,
    /// Those that have sent to a caller by themselves.
    has_answered: BTreeSet<(u16, SocketAddr)>,
    /// The last datagram from a caller: by which NIC it came, for which address.
    last_calls: BTreeMap<(u16, SocketAddr), (&'static str, SocketAddr)>,
    /// By the pod's port, who gets datagrams by eth0, which may be translated.
    translated: BTreeSet<(u16, SocketAddr)>,
    /// Ports that the kernel has translated to others: it goes on with those, whoever is called.
    remapped: BTreeSet<u16>,
    /// By the pod's port, who gets datagrams whose port is not the same in both pods.
    other_port: BTreeSet<(u16, SocketAddr)>,
    /// Which of its addresses have flows with a port and another side.
    users: BTreeMap<(Protocol, u16, SocketAddr), BTreeSet<IpAddr>>,
}

/// What was compared.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) packets: BTreeMap<(&'static str, &'static str), u64>,
    /// Steps that nothing left the pod for.
    pub(crate) silent: u64,
    pub(crate) received: u64,
    pub(crate) exceptions: BTreeMap<Exception, u64>,
}

pub(crate) struct Pair {
    ours: World,
    kernels: World,
    dataplane: Dataplane,
    maps: FlowMaps,
    setting: Setting,
    memory: Memory,
    open: BTreeMap<(SocketAddr, SocketAddr), Open>,
    sequence: u32,
    has_failed: bool,
    /// What was repeated because its acknowledgment came late.
    last: Both<Vec<(Left, u32)>>,
    pub(crate) tally: Tally,
}

fn fail<T>(what: &str, ours: &impl std::fmt::Debug, kernels: &impl std::fmt::Debug) -> Checked<T> {
    Err(TestCaseError::fail(format!("{what}\n  the programs: {ours:?}\n  the kernel:   {kernels:?}")))
}

const fn is_v4(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Steered, and no Service: by net1 its flows are recorded.
fn is_steered_caller(ip: IpAddr) -> bool {
    let family = is_v4(ip);
    [at(Endpoint::OverlayPod, family), at(Endpoint::Node, family), hijacked(family)].contains(&ip)
}

/// By which way the other side answers what has left by a NIC.
fn way_back(nic: &str, from: IpAddr) -> Via {
    let family = is_v4(from);
    match nic {
        "eth0" => Via::Eth0,
        "sp0" => Via::Node,
        _ if from == at(Endpoint::Neighbor, family) => Via::Net1(NEIGHBOR),
        _ if from == at(Endpoint::Node, family) => Via::Net1(NODE),
        _ => Via::Net1(GATEWAY),
    }
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp(_) => "tcp",
        Kind::Udp => "udp",
        Kind::EchoRequest => "echo request",
        Kind::EchoReply => "echo reply",
        Kind::Error => "error",
    }
}

fn map<V>(pins: &Path, name: &str) -> HashMap<MapData, FlowKey, V>
where
    V: aya::Pod,
{
    Map::from_map_data(MapData::from_pin(pins.join(name)).unwrap()).unwrap().try_into().unwrap()
}

/// Makes entries old, or removes them: all, or those of TCP, which last for longer than a machine has been up.
fn expire<V: aya::Pod>(map: &mut HashMap<MapData, FlowKey, V>, removed: bool, age: impl Fn(&mut V)) {
    let entries: Vec<(FlowKey, V)> = map.iter().map(Result::unwrap).collect();
    for (key, mut entry) in entries {
        if removed || key.protocol == TCP {
            map.remove(&key).unwrap();
        } else {
            age(&mut entry);
            map.insert(key, entry, 0).unwrap();
        }
    }
}

impl Pair {
    pub(crate) fn new(
        ours: World,
        kernels: World,
        dataplane: Dataplane,
        pins: &Path,
        setting: Setting,
    ) -> Self {
        let maps = FlowMaps {
            arrivals: map(pins, "arrivals"),
            nat: map(pins, "nat"),
            link_flows: map(pins, "link_flows"),
        };
        let mut pair = Self {
            ours,
            kernels,
            dataplane,
            maps,
            setting,
            memory: Memory::default(),
            open: BTreeMap::new(),
            sequence: 0,
            has_failed: false,
            last: Both { ours: Vec::new(), kernels: Vec::new() },
            tally: Tally::default(),
        };
        for (family, (port, nic)) in FAMILIES.into_iter().flat_map(|f| SERVERS.map(|server| (f, server))) {
            for world in [&mut pair.ours, &mut pair.kernels] {
                world.open_datagrams(binding(nic, port, family));
                world.listen(binding(nic, port, family));
            }
        }
        pair
    }

    /// Both pods as new, then all steps. Tells about the step that fails.
    pub(crate) fn run(&mut self, steps: &[Step]) -> Checked {
        self.begin();
        for (number, step) in steps.iter().enumerate() {
            self.step(step).map_err(|error| {
                let before: Vec<_> = steps[..=number].iter().map(|step| format!("  {step:?}")).collect();
                // Proptest tells only about the last one, which may come of what this one leaves behind.
                if !std::mem::replace(&mut self.has_failed, true) {
                    eprintln!("first failure: {error}\nafter\n{}", before.join("\n"));
                }
                TestCaseError::fail(format!("{error}\nafter\n{}\n", before.join("\n")))
            })?;
        }
        let stats = self.dataplane.stats(SP0).unwrap();
        let denied = stats.iter().find(|(reason, ..)| *reason == Reason::LinkDenied).unwrap().1;
        if denied != 0 {
            return Err(TestCaseError::fail(format!(
                "{denied} replies are denied by the node link: {steps:?}"
            )));
        }
        Ok(())
    }

    fn begin(&mut self) {
        for (_, open) in std::mem::take(&mut self.open) {
            world::reset(open.connection.ours.stream);
            world::reset(open.connection.kernels.stream);
        }
        self.memory = Memory::default();
        self.last = Both { ours: Vec::new(), kernels: Vec::new() };
        for world in [&mut self.ours, &mut self.kernels] {
            world.close_datagrams(|local| SERVERS.iter().any(|(port, _)| *port == local.port()));
            world.settle();
            world.take_seen();
            world.receive();
        }
        self.dataplane.pod_flush(pod::POD).unwrap();
        // Its counters become zero, too.
        let nic = self.dataplane.nic(SP0).unwrap().unwrap();
        self.dataplane.nic_remove(SP0).unwrap();
        self.dataplane.nic_put(SP0, &nic).unwrap();
        self.kernels.forget_flows();
    }

    fn step(&mut self, step: &Step) -> Checked {
        match *step {
            Step::Call { protocol: Protocol::Tcp, via, from, to, turn } => self.call_tcp(via, from, to, turn),
            Step::Call { protocol: Protocol::Udp, via, from, to, .. } => self.call_udp(via, from, to),
            Step::Call { protocol: Protocol::Echo, via, from, to, .. } => {
                self.remember_sender(Protocol::Echo, via, from, to);
                self.inject(via, &wire::echo(from, to, true));
                let context = self.context(Protocol::Echo, from, to);
                self.compare(&context).map(drop)
            }
            Step::Send { from, to, answered } => self.send(from, to, answered),
            Step::Ping { from, to } => self.ping(from, to),
            Step::Connect { from, to, turn } => self.connect(from, to, turn),
            Step::Expire { removed } => self.expire(removed),
        }
    }

    fn inject(&mut self, via: Via, frame: &spiderpool_ebpf_common::model::Frame) {
        self.ours.inject(via, frame.clone());
        self.kernels.inject(via, frame.clone());
    }

    /// What leaves both pods after what was done: the same, or what differs has its explanation.
    fn compare(&mut self, context: &Context) -> Checked<Both<Vec<Captured>>> {
        let seen = Both {
            ours: look(&mut self.ours, &mut self.last.ours),
            kernels: look(&mut self.kernels, &mut self.last.kernels),
        };
        let left = |seen: &[Captured]| seen.iter().map(|captured| captured.left).collect::<Vec<_>>();
        let (ours, kernels) = (left(&seen.ours), left(&seen.kernels));
        if let ([], [kernels]) = (&ours[..], &kernels[..])
            && let Some(exception) = self.explain_missing(kernels)
        {
            *self.tally.exceptions.entry(exception).or_default() += 1;
            return Ok(seen);
        }
        if ours.len() != kernels.len() {
            return fail("not as many packets", &ours, &kernels);
        }
        for (ours, kernels) in ours.iter().zip(&kernels) {
            let kind = kind_name(ours.header.kind);
            *self.tally.packets.entry((ours.nic, kind)).or_default() += 1;
            if !context.allows_next_hop(ours) {
                return fail(&format!("not to the last sender ({context:?})"), ours, kernels);
            }
            if ours == kernels {
                continue;
            }
            match context.explain(ours, kernels) {
                Some(exception) => {
                    *self.tally.exceptions.entry(exception).or_default() += 1;
                    if exception == Exception::TakenPort {
                        let ports = [ours.header.src.port(), kernels.header.src.port()];
                        self.memory.other_port.extend(ports.map(|port| (port, ours.header.dst)));
                        self.memory.remapped.insert(context.own_port);
                    }
                }
                None => return fail(&format!("another way ({context:?})"), ours, kernels),
            }
        }
        self.tally.silent += u64::from(ours.is_empty());
        Ok(seen)
    }

    fn explain_missing(&self, kernels: &Left) -> Option<Exception> {
        let net1 = at(Endpoint::Nic(NET1), Family::V6);
        let is_steered = |ip| is_steered_caller(ip) || ip == at(Endpoint::Service, Family::V6);
        let is_unknown_flow = kernels.nic == "net1" && kernels.header.src.ip() == net1;
        (self.setting.hints && is_unknown_flow && is_steered(kernels.header.dst.ip()))
            .then_some(Exception::HintAhead)
    }

    /// The same of what sockets get.
    fn compare_received(&mut self) -> Checked<Vec<Received>> {
        self.ours.settle();
        self.kernels.settle();
        let (ours, kernels) = (self.ours.receive(), self.kernels.receive());
        if ours != kernels {
            return fail("other datagrams arrive at sockets", &ours, &kernels);
        }
        self.tally.received += ours.len() as u64;
        Ok(ours)
    }

    fn context(&self, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Context {
        let memory = &self.memory;
        let senders = memory.senders.get(&(protocol, to.port(), from)).cloned().unwrap_or_default();
        let is_recorded = protocol != Protocol::Udp && is_steered_caller(from.ip());
        let context = Context { senders, is_recorded, own_port: to.port(), ..Context::default() };
        if protocol != Protocol::Udp {
            return context;
        }
        let key = (to.port(), from);
        Context {
            calls: memory.calls.get(&key).cloned().unwrap_or_default(),
            is_fixed: from.port().max(to.port()) < EPHEMERAL_PORTS.0,
            is_translated: self.setting.translates_unbound(from.ip()),
            is_called_by_net1: memory.called.get(&key).is_some_and(|called| called.by_net1),
            has_spoken_first: memory.has_spoken.contains(&key),
            called_first: memory.has_answered.contains(&key),
            last_call: memory.last_calls.get(&key).copied(),
            ..context
        }
    }

    fn remember_sender(&mut self, protocol: Protocol, via: Via, from: SocketAddr, to: SocketAddr) {
        let is_wildcard = protocol == Protocol::Udp && SERVERS.contains(&(to.port(), None));
        if let Via::Net1(mac) = via
            && to.ip() == at(Endpoint::Nic(NET1), is_v4(to.ip()))
            && (is_steered_caller(from.ip()) || is_wildcard)
        {
            self.memory.senders.entry((protocol, to.port(), from)).or_default().insert(mac);
        }
    }

    fn call_udp(&mut self, via: Via, from: SocketAddr, to: SocketAddr) -> Checked {
        // The kernel's translation would give this caller another port.
        if via == Via::Node && self.memory.translated.contains(&(to.port(), from)) {
            return Ok(());
        }
        // To the port that the programs have chosen, or to the one that the kernel has.
        if via == Via::Eth0 && self.memory.other_port.contains(&(to.port(), from)) {
            return Ok(());
        }
        self.remember_sender(Protocol::Udp, via, from, to);
        self.memory.last_calls.insert((to.port(), from), (via.nic(), to));
        if via == Via::Eth0 {
            self.memory.users.entry((Protocol::Udp, to.port(), from)).or_default().insert(to.ip());
        }
        self.inject(via, &wire::udp(from, to));
        for (local, peer) in self.compare_received()? {
            if local.ip().is_unspecified() {
                self.remember_call(via, peer, to);
            } else if peer.port().max(to.port()) < EPHEMERAL_PORTS.0 {
                self.memory.calls.entry((to.port(), peer)).or_default().insert((via.nic(), to));
            }
            if SERVERS.iter().any(|(port, _)| *port == local.port()) {
                self.send_datagram(local, peer)?;
            }
        }
        let users = self.memory.users.get(&(Protocol::Udp, to.port(), from));
        let port_is_taken = users.is_some_and(|users| users.iter().any(|ip| *ip != to.ip()))
            || self.memory.remapped.contains(&to.port());
        let context = Context { port_is_taken, ..self.context(Protocol::Udp, from, to) };
        let seen = self.compare(&context)?;
        self.remember_translated(&seen.kernels);
        Ok(())
    }

    /// Datagrams that leave by eth0 with a port of what is not bound there.
    fn remember_translated(&mut self, seen: &[Captured]) {
        for left in seen.iter().map(|captured| captured.left).filter(|left| left.nic == "eth0") {
            self.memory.translated.insert((left.header.src.port(), left.header.dst));
        }
    }

    /// A server on the wildcard address is called. Whom it has spoken to first, and who cannot be told from those that it has,
    /// does not call it.
    fn remember_call(&mut self, via: Via, from: SocketAddr, to: SocketAddr) {
        let key = (to.port(), from);
        let by_net1 = matches!(via, Via::Net1(_));
        let is_service = from.ip() == at(Endpoint::Service, is_v4(from.ip()));
        // The node lets nobody borrow its address on the node link. Where it has called the same side is a caller.
        let is_believed = via == Via::Node || self.memory.called.contains_key(&key);
        let is_ephemeral = to.port() >= EPHEMERAL_PORTS.0 && !is_believed;
        if is_ephemeral || (by_net1 && is_service) || self.memory.spoke_first.contains(&key) {
            return;
        }
        self.memory.called.insert(key, Called { at: to.ip(), by_net1 });
        self.memory.calls.entry(key).or_default().insert((via.nic(), to));
    }

    fn send_datagram(&mut self, local: SocketAddr, to: SocketAddr) -> Checked {
        let source = local
            .ip()
            .is_unspecified()
            .then(|| self.memory.called.get(&(local.port(), to)).map(|called| called.at))
            .flatten();
        let (ours, kernels) = (self.ours.send(local, None, to), self.kernels.send(local, source, to));
        if ours.as_ref().err().map(std::io::Error::kind) != kernels.as_ref().err().map(std::io::Error::kind) {
            return fail("a socket cannot send", &ours, &kernels);
        }
        Ok(())
    }

    /// What is known when the pod itself sends.
    fn own_context(&mut self, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Context {
        let eth0 = at(Endpoint::Nic(ETH0), is_v4(to.ip()));
        let users = self.memory.users.entry((protocol, from.port(), to)).or_default();
        users.insert(from.ip());
        let is_shared = users.len() > 1;
        let has_socket = protocol == Protocol::Udp
            && from.ip() != eth0
            && self.ours.has_datagrams(SocketAddr::new(eth0, from.port()));
        let port_is_taken = is_shared || has_socket || self.memory.remapped.contains(&from.port());
        Context { port_is_taken, ..self.context(protocol, to, from) }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, answered: bool) -> Checked {
        self.ours.open_datagrams(from);
        self.kernels.open_datagrams(from);
        let key = (from.port(), to);
        let is_server = SERVERS.contains(&(from.port(), None)) && from.port() < EPHEMERAL_PORTS.0;
        let is_own = to.port() < EPHEMERAL_PORTS.0 || self.setting.translates_unbound(to.ip());
        if is_server && is_own && !self.memory.called.contains_key(&key) {
            self.memory.spoke_first.insert(key);
        }
        let context = self.own_context(Protocol::Udp, from, to);
        if self.memory.last_calls.contains_key(&key) {
            self.memory.has_answered.insert(key);
        } else {
            self.memory.has_spoken.insert(key);
        }
        self.send_datagram(from, to)?;
        let seen = self.compare(&context)?;
        self.remember_translated(&seen.kernels);
        if !answered {
            return Ok(());
        }
        for (world, seen) in [(&mut self.ours, &seen.ours), (&mut self.kernels, &seen.kernels)] {
            for left in seen.iter().map(|captured| captured.left).filter(|left| left.header.kind == Kind::Udp)
            {
                world.inject(way_back(left.nic, to.ip()), wire::udp(to, left.header.src));
            }
        }
        self.compare_received()?;
        self.compare(&Context::default()).map(drop)
    }

    fn ping(&mut self, from: SocketAddr, to: IpAddr) -> Checked {
        self.ours.open_ping(from);
        self.kernels.open_ping(from);
        let (ours, kernels) = (self.ours.ping(from, to), self.kernels.ping(from, to));
        if ours.is_ok() != kernels.is_ok() {
            return fail("a socket cannot send", &ours, &kernels);
        }
        let seen = self.compare(&Context::default())?;
        for (world, seen) in [(&mut self.ours, &seen.ours), (&mut self.kernels, &seen.kernels)] {
            for left in seen.iter().map(|captured| captured.left) {
                let other_side = SocketAddr::new(to, 0);
                world.inject(way_back(left.nic, to), wire::echo(other_side, left.header.src, false));
            }
        }
        self.compare_received()?;
        self.compare(&Context::default()).map(drop)
    }

    /// A sequence number that is greater than all before: the pod may remember connections with the same ports.
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(100_000);
        self.sequence
    }

    fn call_tcp(&mut self, via: Via, from: SocketAddr, to: SocketAddr, turn: Turn) -> Checked {
        if self.open.contains_key(&(to, from)) {
            return self.turn((to, from), turn);
        }
        self.remember_sender(Protocol::Tcp, via, from, to);
        let context = self.context(Protocol::Tcp, from, to);
        let first = self.next_sequence();
        self.inject(via, &wire::tcp(from, to, SYN, (first, 0)));
        let seen = self.compare(&context)?;
        let is_open = |seen: &[Captured]| match seen {
            [c] => (c.left.header.kind, c.left.header.src) == (Kind::Tcp(SYN | ACK), to),
            _ => false,
        };
        if !is_open(&seen.ours) || !is_open(&seen.kernels) {
            // One that has got no answer gives up.
            self.inject(via, &wire::tcp(from, to, RST, (first + 1, 0)));
            return self.compare(&Context::default()).map(drop);
        }
        let (ours, kernels) = (seen.ours[0], seen.kernels[0]);
        let next = Both { ours: ours.sequence.wrapping_add(1), kernels: kernels.sequence.wrapping_add(1) };
        self.ours.inject(via, wire::tcp(from, to, ACK, (first + 1, next.ours)));
        self.kernels.inject(via, wire::tcp(from, to, ACK, (first + 1, next.kernels)));
        self.compare(&Context::default())?;
        let unbound = binding(None, to.port(), is_v4(to.ip()));
        let listener = if self.ours.has_listener(unbound) { unbound } else { to };
        match (self.ours.accept(listener), self.kernels.accept(listener)) {
            (Some(ours), Some(kernels)) => {
                let connection = Both {
                    ours: Connection { stream: ours, next: next.ours },
                    kernels: Connection { stream: kernels, next: next.kernels },
                };
                let peer = Peer { via, address: from, pod: to };
                let peer = Both { ours: peer, kernels: peer };
                self.open.insert((to, from), Open { peer, connection, next: first + 1, is_called: true });
                Ok(())
            }
            (ours, kernels) => fail("a connection is not accepted", &ours, &kernels),
        }
    }

    fn connect(&mut self, from: SocketAddr, to: SocketAddr, turn: Turn) -> Checked {
        if self.open.contains_key(&(from, to)) {
            return self.turn((from, to), turn);
        }
        let context = self.own_context(Protocol::Tcp, from, to);
        let (ours, kernels) = match (self.ours.connect(from, to), self.kernels.connect(from, to)) {
            (Ok(ours), Ok(kernels)) => (ours, kernels),
            (Err(ours), Err(kernels)) if ours.kind() == kernels.kind() => return Ok(()),
            (ours, kernels) => return fail("a socket cannot connect", &ours, &kernels),
        };
        let seen = self.compare(&context)?;
        let ([our_syn], [kernels_syn]) = (&seen.ours[..], &seen.kernels[..]) else {
            return fail("no SYN", &seen.ours, &seen.kernels);
        };
        let peer = |syn: &Captured| Peer {
            via: way_back(syn.left.nic, to.ip()),
            address: to,
            pod: syn.left.header.src,
        };
        let peer = Both { ours: peer(our_syn), kernels: peer(kernels_syn) };
        let first = self.next_sequence();
        let connection = Both {
            ours: Connection { stream: ours, next: our_syn.sequence.wrapping_add(1) },
            kernels: Connection { stream: kernels, next: kernels_syn.sequence.wrapping_add(1) },
        };
        self.open.insert((from, to), Open { peer, connection, next: first, is_called: false });
        self.segment((from, to), SYN | ACK);
        // The pod's ACK.
        self.compare(&context).map(drop)
    }

    /// The other end sends a segment.
    fn segment(&mut self, key: (SocketAddr, SocketAddr), flags: u8) {
        let open = self.open.get_mut(&key).unwrap();
        let ends = [
            (&mut self.ours, open.peer.ours, &open.connection.ours),
            (&mut self.kernels, open.peer.kernels, &open.connection.kernels),
        ];
        for (world, peer, connection) in ends {
            let frame = wire::tcp(peer.address, peer.pod, flags, (open.next, connection.next));
            world.inject(peer.via, frame);
        }
        open.next += u32::from(flags & (SYN | FIN) != 0);
    }

    /// The next thing that happens to an open connection.
    fn turn(&mut self, key: (SocketAddr, SocketAddr), turn: Turn) -> Checked {
        let (local, remote) = key;
        let mut context = self.context(Protocol::Tcp, remote, local);
        if !self.open[&key].is_called {
            context = self.own_context(Protocol::Tcp, local, remote);
        }
        if turn == Turn::Push {
            let open = self.open.get_mut(&key).unwrap();
            for connection in [&mut open.connection.ours, &mut open.connection.kernels] {
                connection.stream.write_all(b"x").unwrap();
                connection.next = connection.next.wrapping_add(1);
            }
            self.compare(&context)?;
            self.segment(key, ACK);
            return self.compare(&context).map(drop);
        }
        if turn == Turn::PeerResets {
            self.segment(key, RST);
            self.compare(&context)?;
        }
        if turn != Turn::PodCloses {
            let open = self.open.remove(&key).unwrap();
            world::reset(open.connection.ours.stream);
            world::reset(open.connection.kernels.stream);
            return self.compare(&context).map(drop);
        }
        let open = self.open.get_mut(&key).unwrap();
        for connection in [&mut open.connection.ours, &mut open.connection.kernels] {
            connection.stream.shutdown(std::net::Shutdown::Write).unwrap();
            connection.next = connection.next.wrapping_add(1);
        }
        self.compare(&context)?;
        self.segment(key, FIN | ACK);
        self.compare(&context)?;
        self.open.remove(&key);
        self.compare(&context).map(drop)
    }

    fn expire(&mut self, removed: bool) -> Checked {
        // Without route hints the kernel gives these net1's address, which is translated while the flow is known.
        let unbound = |key: &(SocketAddr, SocketAddr)| key.0.ip().is_unspecified();
        let unbound: Vec<_> = self.open.keys().copied().filter(unbound).collect();
        unbound.into_iter().try_for_each(|key| self.turn(key, Turn::PodResets))?;
        let maps = &mut self.maps;
        expire(&mut maps.arrivals, removed, |entry| (entry.last_seen, entry.heard) = (0, 0));
        expire(&mut maps.nat, removed, |entry| entry.last_seen = 0);
        expire(&mut maps.link_flows, removed, |flow| flow.last_seen = 0);
        self.kernels.forget_flows();
        self.memory = Memory::default();
        // What was translated nobody can answer any more.
        let own: Vec<_> = self.open.iter().filter(|(_, open)| !open.is_called).map(|(key, _)| *key).collect();
        own.into_iter().try_for_each(|key| self.turn(key, Turn::PodResets))
    }
}

/// What has left a pod, in an order that does not depend on NICs; without what it repeats.
fn look(world: &mut World, last: &mut Vec<(Left, u32)>) -> Vec<Captured> {
    world.settle();
    let mut seen = world.take_seen();
    let mut known = std::mem::take(last);
    seen.retain(|captured| {
        let this = (captured.left, captured.sequence);
        // A RST is not repeated, and may have no number.
        let may_be_repeated = matches!(captured.left.header.kind, Kind::Tcp(flags) if flags & RST == 0);
        let is_repeated = may_be_repeated && known.contains(&this);
        known.push(this);
        !is_repeated
    });
    last.extend(seen.iter().map(|captured| (captured.left, captured.sequence)));
    seen.sort_by_key(|captured| (captured.left.header.dst, captured.left.header.kind));
    seen
}
