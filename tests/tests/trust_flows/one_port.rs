//! Sockets of a pod that only their address tells apart.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use spiderpool_core::ip::Family;
use spiderpool_tests::both_ends::BothEnds;
use spiderpool_tests::lab::spec;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{PORT, Server};

use crate::{ANSWERED, ask, lab};

/// Two sockets of the pod with the same port and destination, by eth0's address and by net1's, which is translated into that.
#[test]
fn direct_and_translated_sockets_with_one_port_get_their_own_packets() {
    let Some(lab) = lab("direct_and_translated_sockets") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let overlay = Pod::add_sandbox(node, "both", "0000-both").unwrap();
    for default_route in DefaultRoute::ALL {
        let pod =
            Pod::add(plane, node, &spec(&format!("twice-{}", default_route.nic()), default_route)).unwrap();
        for family in Family::ALL {
            let (eth0, net1) = (pod.eth0.get(family), pod.net1().unwrap().get(family));
            let to = overlay.eth0.get(family);
            for (order, (first, second)) in [(net1, eth0), (eth0, net1)].into_iter().enumerate() {
                let port = 7200 + u16::try_from(order).unwrap();
                let by = |from| {
                    let (own, to) = (SocketAddr::new(from, 6000 + port), SocketAddr::new(to, port));
                    BothEnds::open((&pod.namespaces, own), (&overlay.namespaces, port), to).unwrap()
                };
                let both = [by(first), by(second)];
                for number in 1..50 {
                    both[0].exchange(number).unwrap();
                    both[1].exchange(100 + number).unwrap();
                }
                // By UDP as well.
                let server = Server::start(&overlay.namespaces).unwrap();
                let sockets = [first, second].map(|from| {
                    let bound = pod.namespaces.run(move || {
                        let socket = UdpSocket::bind((from, 6000 + port))?;
                        socket.set_read_timeout(Some(ANSWERED))?;
                        Ok(socket)
                    });
                    bound.unwrap()
                });
                for _ in 0..20 {
                    for socket in &sockets {
                        assert_eq!(ask(socket, SocketAddr::new(to, PORT)).unwrap(), eth0);
                    }
                }
                drop(server);
                // And by ping, with one identifier.
                let sockets = [first, second].map(|from| ping_socket(&pod.namespaces, from, port).unwrap());
                for number in 1..20 {
                    for (socket, data) in sockets.iter().zip([number, 100 + number]) {
                        ping(socket, to, data)
                            .unwrap_or_else(|error| panic!("{first} before {second}: {error:#}"));
                    }
                }
            }
        }
        pod.del(plane, node).unwrap();
    }
    overlay.del_sandbox(node).unwrap();
}

/// A socket for echo requests with this identifier.
fn ping_socket(pod: &Namespaces, own: IpAddr, identifier: u16) -> Result<OwnedFd> {
    let (family, protocol) = if own.is_ipv4() {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    pod.run(|| {
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWERED.as_secs().cast_signed(), 0))?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, identifier)))?;
        Ok(socket)
    })
}

/// Sends a request with this data; what comes next is the reply to it.
fn ping(socket: &OwnedFd, to: IpAddr, data: u8) -> Result<()> {
    let (request, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let packet = [request, 0, 0, 0, 0, 0, 0, data, data];
    sendto(socket.as_raw_fd(), &packet, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
    let mut packet = [0; 16];
    let length = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).context("no reply")?;
    anyhow::ensure!(
        length == 9 && packet[0] == reply && packet[7..9] == [data; 2],
        "{packet:?} is another's"
    );
    Ok(())
}
