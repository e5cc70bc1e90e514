//! What belongs to one link: multicast and link-local addresses, which are never moved to another NIC, wherever the default route is,
//! and in whose name a NIC asks for its neighbors.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use spiderpool_core::ip::Family;
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::lab::{lock_lab, spec, wait_for_hints};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{counters, privilege};

const PORT: u16 = 9300;
/// An organization's own, which a hijacked CIDR may hold, and one of the link.
const GROUPS_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(224, 0, 0, 200)];
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 0x99);
const LIMIT: Duration = Duration::from_secs(2);

/// A place with the NIC that is on the underlay.
#[derive(Clone, Copy)]
struct Place<'a> {
    namespaces: &'a Namespaces,
    nic: &'a str,
    own: Ipv4Addr,
}

impl Place<'_> {
    fn index(self) -> Result<u32> {
        Ok(if_nametoindex(self.nic)?)
    }

    /// A socket that hears the groups.
    fn listen(self, family: Family) -> Result<UdpSocket> {
        self.namespaces.run(|| {
            let any: IpAddr = match family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, PORT))?;
            match family {
                Family::V4 => {
                    for group in GROUPS_V4 {
                        socket.join_multicast_v4(&group, &self.own)?;
                    }
                }
                Family::V6 => socket.join_multicast_v6(&GROUP_V6, self.index()?)?,
            }
            socket.set_read_timeout(Some(LIMIT))?;
            Ok(socket)
        })
    }

    /// Where the groups are reached by the NIC.
    fn groups(self, family: Family) -> Result<Vec<SocketAddr>> {
        Ok(match family {
            Family::V4 => GROUPS_V4.map(|group| SocketAddr::new(group.into(), PORT)).into(),
            Family::V6 => {
                vec![SocketAddrV6::new(GROUP_V6, PORT, 0, self.namespaces.run(|| self.index())?).into()]
            }
        })
    }

    /// A socket that sends by the NIC.
    fn sender(self, family: Family) -> Result<UdpSocket> {
        self.namespaces.run(|| {
            let socket = match family {
                Family::V4 => UdpSocket::bind((self.own, 0))?,
                Family::V6 => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
            };
            socket.set_read_timeout(Some(LIMIT))?;
            Ok(socket)
        })
    }

    /// Its link-local address.
    fn link_local(self) -> Result<Ipv6Addr> {
        let text =
            self.namespaces.output("ip", &["-j", "-6", "addr", "show", "dev", self.nic, "scope", "link"])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        // Those that are not of the link are there as empty objects.
        let all = links.as_array().into_iter().flatten().filter_map(|link| link["addr_info"].as_array());
        let local = all.flatten().find_map(|address| address["local"].as_str());
        Ok(local.with_context(|| format!("{} has no link-local address", self.nic))?.parse()?)
    }
}

/// Sends to a socket, which answers the sender.
fn exchange(sender: &UdpSocket, to: SocketAddr, listener: &UdpSocket) -> Result<()> {
    sender.send_to(b"hello", to)?;
    let mut bytes = [0; 16];
    let (length, from) = listener.recv_from(&mut bytes).with_context(|| format!("nothing comes to {to}"))?;
    anyhow::ensure!(&bytes[..length] == b"hello", "another datagram");
    listener.send_to(b"back", from)?;
    let (_, by) = sender.recv_from(&mut bytes).with_context(|| format!("no answer of {to} to {from}"))?;
    anyhow::ensure!(by.is_ipv4() == to.is_ipv4(), "answered by {by}");
    Ok(())
}

#[test]
fn multicast_and_link_local_addresses_stay_on_their_nic() {
    if !privilege::root_or_skip("multicast_and_link_local") {
        return;
    }
    let lab = lock_lab(|_| Ok(())).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for hints in [RouteHints::Auto, RouteHints::Never] {
        lab.set_coordinator(hints).unwrap();
        for default_route in DefaultRoute::ALL {
            let name = format!("links-{}-{}", default_route.nic(), hints.name());
            let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
            wait_for_hints(node, &name, hints).unwrap();
            let before = counters::read(node, &counters::nic_ids(&pod.namespaces).unwrap()).unwrap();
            let inside = Place { namespaces: &pod.namespaces, nic: "net1", own: pod.net1().unwrap().v4 };
            let gateway =
                Place { namespaces: &lab.topology.gateway, nic: "ul", own: addresses::UNDERLAY_GATEWAY.v4 };
            for (from, to) in [(inside, gateway), (gateway, inside)] {
                for family in Family::ALL {
                    let (sender, listener) = (from.sender(family).unwrap(), to.listen(family).unwrap());
                    for group in from.groups(family).unwrap() {
                        exchange(&sender, group, &listener).expect(&name);
                    }
                }
                let listener = to.listen(Family::V6).unwrap();
                let scope = from.namespaces.run(|| from.index()).unwrap();
                let unicast = SocketAddrV6::new(to.link_local().unwrap(), PORT, 0, scope);
                exchange(&from.sender(Family::V6).unwrap(), unicast.into(), &listener).expect(&name);
            }
            let after = counters::read(node, &counters::nic_ids(&pod.namespaces).unwrap()).unwrap();
            let moved = counters::moved(&before, &after);
            assert!(moved.get("net1 link_scope").is_some_and(|count| *count >= 6), "{name}: {moved:?}");
            pod.del(plane, node).unwrap();
        }
    }
    lab.set_coordinator(RouteHints::Auto).unwrap();
}

/// Who replies by another NIC than the one with the default route: before a program sees the packet, the kernel asks there for the next
/// hop. That may be strict, and not answer those whom it would not reach by this link.
#[test]
fn a_strict_next_hop_answers_for_replies_that_leave_by_another_nic() {
    if !privilege::root_or_skip("a_strict_next_hop") {
        return;
    }
    let lab = lock_lab(|_| Ok(())).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (gateway, outside) = (&lab.topology.gateway, &lab.topology.outside);
    // The host end of eth0 is strict, as Calico has it.
    gateway.sysctl(&["ipv4/conf/ul/rp_filter=1"]).unwrap();
    for default_route in DefaultRoute::ALL {
        let pod =
            Pod::add(plane, node, &spec(&format!("strict-{}", default_route.nic()), default_route)).unwrap();
        let (eth0, router) = (pod.eth0, node.address);
        gateway
            .ip(&format!("route add {} via {}\nroute add {} via {}", eth0.v4, router.v4, eth0.v6, router.v6))
            .unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        let called = if default_route == DefaultRoute::Net1 { eth0 } else { pod.net1().unwrap() };
        // Asked anew for each packet.
        let call = |protocol, to| {
            pod.namespaces.output("ip", &["neigh", "flush", "dev", default_route.nic()]).unwrap();
            send(outside, Probe { protocol, to, bound: None })
        };
        for family in Family::ALL {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Ping] {
                let to = called.get(family);
                call(protocol, to)
                    .unwrap_or_else(|error| panic!("{}: {protocol} to {to}: {error:#}", pod.name));
            }
        }
        // Strict it is: asked in the name of the other NIC, it does not answer.
        pod.namespaces.sysctl(&["ipv4/conf/all/arp_announce=0"]).unwrap();
        assert!(call(Protocol::Tcp, called.v4.into()).is_err(), "{}: the next hop is not strict", pod.name);
        drop(server);
        gateway.ip(&format!("route del {}\nroute del {}", eth0.v4, eth0.v6)).unwrap();
        pod.del(plane, node).unwrap();
    }
    gateway.sysctl(&["ipv4/conf/ul/rp_filter=0"]).unwrap();
}
