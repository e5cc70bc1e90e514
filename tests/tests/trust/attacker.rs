//! A pod that attacks, and what shows whether it gets anywhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::ensure;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, sendto, setsockopt, socket,
    sockopt,
};
use spiderpool_core::coordinator::{host_end_name, node_link_macs};
use spiderpool_core::ip::Family;
use spiderpool_tests::counters::{self, Counters};
use spiderpool_tests::default_network;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::poll;
use spiderpool_tests::probe::PORT;
use spiderpool_tests::topology::Node;

use crate::arrivals::Arrivals;

/// How long what was sent may be on its way to a filter of the node: that runs in a softirq, which a busy machine defers.
pub(crate) const SOFTIRQ_LIMIT: Duration = Duration::from_secs(10);

/// Whom an attacker would like to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) address: IpAddr,
    pub(crate) tcp: u16,
    pub(crate) udp: u16,
}

impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Self {
        Self { address, tcp: PORT, udp: PORT }
    }
}

/// A pod with net1, and what the node's network stack has received of it that it should not.
pub(crate) struct Attacker<'a> {
    node: &'a Node,
    pub(crate) pod: Pod,
    ids: BTreeMap<String, u16>,
    /// By the node link, or by eth0 with net1's source.
    received: Arrivals,
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(lab: &'a Lab, name: &str, default_route: DefaultRoute) -> Self {
        let node = &lab.topology.nodes[0];
        let pod = Pod::add(&lab.topology.plane, node, &spec(name, default_route)).unwrap();
        let host_end = host_end_name(&pod.attachment("eth0").container).unwrap();
        let (of_eth0, net1) = (host_end_of_eth0(node, &pod), pod.net1().unwrap());
        let rules = [
            format!("iifname \"{host_end}\""),
            format!("iifname \"{of_eth0}\" ip saddr {}", net1.v4),
            format!("iifname \"{of_eth0}\" ip6 saddr {}", net1.v6),
        ];
        let received = Arrivals::count(node, &rules.each_ref().map(String::as_str));
        let ids = counters::nic_ids(&pod.namespaces).unwrap();
        Self { node, pod, ids, received }
    }

    /// Packets of the pod that the node's network stack has received by the node link, or by eth0 with net1's source.
    pub(crate) fn received(&self) -> u64 {
        self.received.packets()
    }

    pub(crate) fn counters(&self) -> Counters {
        counters::read(self.node, &self.ids).unwrap()
    }

    fn count(&self, name: &str) -> u64 {
        self.counters().get(name).copied().unwrap_or(0)
    }

    pub(crate) fn counted(&self, reason: &str) -> u64 {
        self.count(&format!("sp0 {reason}"))
    }

    pub(crate) fn net1(&self, family: Family) -> IpAddr {
        self.pod.net1().unwrap().get(family)
    }

    /// Sends to `targets` by sp0 with net1's address, by every protocol that there are sockets for.
    pub(crate) fn attack(&self, targets: &[Target]) {
        for &target in targets {
            let own = self.net1(Family::of(target.address));
            self.pod.namespaces.run(move || Ok(send_by_node_link(own, target)?)).unwrap();
        }
    }

    /// Makes routes and neighbors for all targets by the node link, as whoever has `NET_ADMIN` in the pod can.
    pub(crate) fn open_ways(&self, targets: &[Target]) {
        let (host_mac, _) = node_link_macs(&self.pod.attachment("eth0").container);
        let ways = targets.iter().map(|Target { address: to, .. }| {
            let own = self.net1(Family::of(*to));
            format!("neigh replace {to} lladdr {host_mac} dev sp0 nud permanent\nroute replace {to} dev sp0 src {own}\n")
        });
        self.pod.namespaces.ip(&ways.collect::<String>()).unwrap();
    }

    /// Removes the programs from all NICs of the pod, as the same can.
    pub(crate) fn remove_programs(&self) {
        for nic in ["sp0", "eth0", "net1"] {
            self.pod.namespaces.output("tc", &["qdisc", "del", "dev", nic, "clsact"]).unwrap();
        }
    }

    /// Nothing of what was sent meanwhile is received by the node.
    pub(crate) fn gets_nowhere(&self, what: &str, attack: impl FnOnce()) {
        let received = self.received();
        attack();
        assert_eq!(self.received(), received, "{what}: received by the node");
    }

    /// Nothing of what was sent meanwhile is received, and that is because the filters of the host end have seen it.
    pub(crate) fn is_denied(&self, what: &str, attack: impl FnOnce()) {
        let (received, denied) = (self.received(), self.counted("link_denied"));
        attack();
        poll::until(&format!("{what}: at the host end"), SOFTIRQ_LIMIT, || {
            ensure!(self.counted("link_denied") > denied, "{:?}", self.counters());
            Ok(())
        })
        .unwrap();
        assert_eq!(self.received(), received, "{what}: received by the node");
    }

    /// Nothing of what was sent meanwhile is received by the node link, or by eth0 with net1's source, although a program has seen it.
    pub(crate) fn avoids_node(&self, what: &str, reason: &str, attack: impl FnOnce()) {
        let seen = || ["eth0", "net1"].map(|nic| self.count(&format!("{nic} {reason}"))).iter().sum::<u64>();
        // By the host end's programs: the kernel's own multicast and neighbor discovery, which may come at any time, are
        // counted apart there.
        let by_link = || ["link_denied", "link_reply"].map(|reason| self.counted(reason));
        let (received, before, by_link_before) = (self.received(), seen(), by_link());
        attack();
        assert!(seen() > before, "{what}: not sent: {:?}", self.counters());
        assert_eq!(self.received(), received, "{what}: received by the node");
        assert_eq!(by_link(), by_link_before, "{what}: sent by the node link");
    }

    pub(crate) fn end(self, lab: &Lab) {
        self.received.end();
        self.pod.del(&lab.topology.plane, self.node).unwrap();
    }
}

/// On the node, where the default network's policies are.
pub(crate) fn host_end_of_eth0(node: &Node, pod: &Pod) -> String {
    default_network::host_end(node.kind.network, &pod.attachment("eth0"))
}

/// As any process may: a socket that is bound to the device and to an address. What the kernel refuses is not sent.
fn send_by_node_link(own: IpAddr, Target { address, tcp, udp }: Target) -> nix::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    for kind in [SockType::Stream, SockType::Datagram] {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, kind, flags, None)?;
        setsockopt(&socket, sockopt::BindToDevice, &"sp0".into())?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
        let to = |port| SockaddrStorage::from(SocketAddr::new(address, port));
        if kind == SockType::Stream {
            // It is in progress.
            let _begun = connect(socket.as_raw_fd(), &to(tcp));
            continue;
        }
        match sendto(socket.as_raw_fd(), b"x", &to(udp), MsgFlags::empty()) {
            // IPv6 without a route by the device.
            Ok(_) | Err(Errno::ENETUNREACH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
