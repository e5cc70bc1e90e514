//! Real packets of real sockets through the attached programs: a pod with eth0, net1 and sp0, its node, and an
//! underlay network with an outside client, as namespaces. No route hints, so that the programs do all.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket,
};
use spiderpool_dataplane::{
    CidrAction, CidrKind, DEFAULT_BACKUP, DEFAULT_USED, Dataplane, Logs, PodUsage, Reason, Sizes,
};
use spiderpool_ebpf_common::model::pod::{self, ETH0, Endpoint, Family, IFINDEX, NET1, SP0, at};
use support::{BpfFs, SIZES, can_run, object};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const TIMEOUT: Duration = Duration::from_secs(3);

/// Where the pod's default route is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Default {
    OnEth0,
    OnNet1,
}

struct Lab {
    name: String,
    dataplane: Dataplane,
    _fs: BpfFs,
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-euxc", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// As `ethtool -K DEV tx off`.
fn compute_checksums(device: &str) {
    const SIOCETHTOOL: u32 = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let mut value = [ETHTOOL_STXCSUM, 0];
    // SAFETY: a struct of integers and pointers; all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // SAFETY: the kernel reads the name and the two words, which outlive the call.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    assert_eq!(ret, 0, "{device}: {}", std::io::Error::last_os_error());
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

impl Lab {
    fn new(default: Default) -> Self {
        let fs = BpfFs::mount();
        let name = format!("spdp{}-{default:?}", std::process::id()).to_lowercase();
        // The private mount namespace keeps the names of the namespaces to this thread.
        sh("mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns");
        // One pod makes all the flows here.
        let per_pod = PodUsage { link_flows: 512, arrivals: 512, nat: 1024 };
        let mut dataplane = Dataplane::load(&object(), &fs.pins(), &Sizes { per_pod, ..SIZES }).unwrap();
        let mut script = Vec::new();
        topology(&mut script, &name, default);
        sh(&script.concat());
        configure(&mut dataplane, default);
        sh(&attach(&name, fs.pins().to_str().unwrap()));
        let lab = Self { name, dataplane, _fs: fs };
        // On the way to the other node checksums are computed, in both directions, and not left to a device:
        // a packet that was translated wrongly is dropped there.
        lab.within("node", || compute_checksums("far0")).join().unwrap();
        lab.within("far", || compute_checksums("far1")).join().unwrap();
        lab
    }

    /// Runs something in one of the namespaces.
    fn within<T: Send + 'static>(
        &self,
        ns: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = std::fs::File::open(format!("/run/netns/{}-{ns}", self.name)).unwrap();
        std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        })
    }

    fn packets(&self, nic: u16, reason: Reason) -> u64 {
        let stats = self.dataplane.stats(nic).unwrap();
        stats.iter().find(|s| s.0 == reason).unwrap().1
    }
}

fn topology(s: &mut Vec<String>, name: &str, default: Default) {
    let (node, pod_ns, wan) = (format!("{name}-node"), format!("{name}-pod"), format!("{name}-wan"));
    let far = format!("{name}-far");
    let link = |id: u16, dev: &str, peer: &str, peer_ns: &str| {
        format!(
            "ip -n {pod_ns} link add {dev} index {} address {} type veth peer name {peer} netns {peer_ns} address {}\n",
            IFINDEX + u32::from(id),
            text(pod::mac(id)),
            text(pod::peer(id)),
        )
    };
    for ns in [&node, &pod_ns, &wan, &far] {
        s.push(format!("ip netns add {ns}\nip -n {ns} link set lo up\n"));
        s.push(format!(
            "ip netns exec {ns} sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
             net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
             net.ipv4.ping_group_range='0 0'\n"
        ));
    }
    s.push(link(ETH0, "eth0", "cali0", &node));
    s.push(link(NET1, "net1", "u0", &wan));
    s.push(link(SP0, "sp0", "spnode", &node));
    // The way to another node.
    s.push(format!("ip -n {node} link add far0 type veth peer name far1 netns {far}\n"));
    s.push(format!("ip -n {pod_ns} link set eth0 mtu 1450\nip -n {node} link set cali0 mtu 1450\n"));
    for (ns, devs) in [
        (&pod_ns, vec!["eth0", "net1", "sp0"]),
        (&node, vec!["cali0", "spnode", "far0"]),
        (&far, vec!["far1"]),
        (&wan, vec!["u0"]),
    ] {
        for dev in devs {
            s.push(format!("ip -n {ns} link set {dev} up\n"));
        }
    }
    // As Calico: strict rp_filter on the host end. It knows eth0's address only there.
    s.push(format!("ip netns exec {node} sysctl -qw net.ipv4.conf.cali0.rp_filter=1\n"));
    for family in FAMILIES {
        let a = |place| at(place, family);
        let (bits, net, eth_gw, gw) = match family {
            Family::V4 => (32, 16, "169.254.1.1", "172.18.0.1"),
            Family::V6 => (128, 64, "fe80::ecee", "fd00:18::1"),
        };
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        let (eth0, net1, sp0) = (a(Endpoint::Nic(ETH0)), a(Endpoint::Nic(NET1)), a(Endpoint::Nic(SP0)));
        s.push(format!("ip -n {pod_ns} addr add {eth0}/{bits} dev eth0 {nodad}\n"));
        s.push(format!("ip -n {pod_ns} addr add {net1}/{net} dev net1 {nodad}\n"));
        s.push(format!("ip -n {pod_ns} addr add {sp0}/{bits} dev sp0 {nodad}\n"));
        s.push(format!("ip -n {pod_ns} neigh add {eth_gw} lladdr {} dev eth0\n", text(pod::peer(ETH0))));
        let (first, second) = if default == Default::OnEth0 { (10, 4096) } else { (4096, 10) };
        s.push(format!("ip -n {pod_ns} route add default via {eth_gw} dev eth0 onlink metric {first}\n"));
        // For IPv6 the interface of a look-up does not bind it, the source does: a source-specific route.
        let from =
            if family == Family::V6 && second > first { format!("from {net1}") } else { String::new() };
        s.push(format!("ip -n {pod_ns} route add default {from} via {gw} dev net1 metric {second}\n"));
        for place in [Endpoint::Service, Endpoint::Node] {
            s.push(format!("ip -n {node} addr add {}/{bits} dev lo {nodad}\n", a(place)));
        }
        let overlay = a(Endpoint::OverlayPod);
        s.push(format!("ip -n {far} addr add {overlay}/{bits} dev far1 {nodad}\n"));
        s.push(format!("ip -n {far} route add {eth0}/{bits} dev far1\n"));
        s.push(format!("ip -n {node} route add {overlay}/{bits} dev far0\n"));
        for (ns, dst, dev, peer) in [(&node, overlay, "far0", "far1"), (&far, eth0, "far1", "far0")] {
            let of = if ns == &node { &far } else { &node };
            s.push(format!(
                "ip -n {ns} neigh add {dst} lladdr $(ip -n {of} -br link show {peer} | awk '{{print $3}}') dev {dev}\n"
            ));
        }
        for (dst, dev, mac) in [(eth0, "cali0", pod::mac(ETH0)), (net1, "spnode", pod::mac(SP0))] {
            s.push(format!("ip -n {node} route add {dst}/{bits} dev {dev} src {}\n", a(Endpoint::Node)));
            s.push(format!("ip -n {node} neigh add {dst} lladdr {} dev {dev}\n", text(mac)));
        }
        s.push(format!("ip -n {wan} addr add {gw}/{net} dev u0 {nodad}\n"));
        s.push(format!("ip -n {wan} addr add {}/{bits} dev lo {nodad}\n", a(Endpoint::Outside)));
    }
}

fn configure(dataplane: &mut Dataplane, default: Default) {
    let tables = pod::tables();
    for id in [ETH0, NET1, SP0] {
        let mut nic = tables.nics[&id];
        let is_used = id == if default == Default::OnEth0 { ETH0 } else { NET1 };
        nic.default4 = if is_used { DEFAULT_USED } else { DEFAULT_BACKUP };
        nic.default6 = nic.default4;
        dataplane.nic_put(id, &nic).unwrap();
        if id != SP0 {
            let addresses = [Family::V4, Family::V6].map(|family| at(Endpoint::Nic(id), family));
            dataplane.addresses_set(id, nic.pod, &addresses).unwrap();
        }
    }
    let net = |s: &str| s.parse().unwrap();
    let want = [
        (net("10.96.0.0/12"), CidrAction::Steer, CidrKind::Service),
        (net("fd00:96::/112"), CidrAction::Steer, CidrKind::Service),
        (net("10.244.0.0/16"), CidrAction::Steer, CidrKind::Pod),
        (net("fd00:244::/32"), CidrAction::Steer, CidrKind::Pod),
        (net("172.18.0.0/16"), CidrAction::Stay, CidrKind::Connected),
        (net("fd00:18::/64"), CidrAction::Stay, CidrKind::Connected),
        (net("172.18.0.3/32"), CidrAction::Steer, CidrKind::Node),
        (net("fd00:18::3/128"), CidrAction::Steer, CidrKind::Node),
    ];
    dataplane.cidrs_set(pod::PROFILE, &want).unwrap();
}

fn attach(name: &str, pins: &str) -> String {
    let mut s = Vec::new();
    for (id, dev) in [(ETH0, "eth0"), (NET1, "net1"), (SP0, "sp0")] {
        s.push(format!("tc -n {name}-pod qdisc add dev {dev} clsact\n"));
        for hook in ["egress", "ingress"] {
            s.push(format!(
                "tc -n {name}-pod filter add dev {dev} {hook} prio 1 handle 1 bpf da object-pinned {pins}/{hook} flowid :{id:x}\n"
            ));
        }
    }
    s.push(format!("tc -n {name}-node qdisc add dev spnode clsact\n"));
    for hook in ["egress", "ingress"] {
        s.push(format!(
            "tc -n {name}-node filter add dev spnode {hook} prio 1 handle 1 bpf da object-pinned {pins}/host_{hook} flowid :{SP0:x}\n"
        ));
    }
    s.concat()
}

/// A TCP server that tells each client, once, the address it sees.
fn tcp_server(lab: &Lab, ns: &str, addr: SocketAddr, clients: usize) {
    let (ready, wait) = mpsc::channel();
    drop(lab.within(ns, move || {
        let listener = TcpListener::bind(addr).unwrap();
        ready.send(()).unwrap();
        for _ in 0..clients {
            let (mut stream, peer) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, peer.ip().to_string().as_bytes()).unwrap();
        }
    }));
    wait.recv_timeout(TIMEOUT).unwrap();
}

/// The same by UDP, on the wildcard address.
fn udp_server(lab: &Lab, ns: &str, addr: SocketAddr, clients: usize) {
    let (ready, wait) = mpsc::channel();
    drop(lab.within(ns, move || {
        let socket = UdpSocket::bind(addr).unwrap();
        ready.send(()).unwrap();
        for _ in 0..clients {
            let mut buffer = [0; 16];
            let (_, peer) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(peer.ip().to_string().as_bytes(), peer).unwrap();
        }
    }));
    wait.recv_timeout(TIMEOUT).unwrap();
}

/// What the server saw as our address; an error as text.
fn ask_tcp(from: Option<IpAddr>, to: SocketAddr) -> Result<String, String> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::empty(), None).unwrap();
    if let Some(from) = from {
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
    }
    let mut stream = std::net::TcpStream::from(fd);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).map_err(|e| e.to_string())?;
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut stream, &mut seen).map_err(|e| e.to_string())?;
    Ok(seen)
}

fn ask_udp(from: Option<IpAddr>, to: SocketAddr) -> Result<String, String> {
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.connect(to).map_err(|e| e.to_string())?;
    socket.send(b"who am I").map_err(|e| e.to_string())?;
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// Two echo requests by a ping socket; both must be answered.
fn ping(lab: &Lab, ns: &str, from: Option<IpAddr>, to: IpAddr) -> bool {
    let ping = move || {
        let (family, protocol, kind) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
        };
        let fd = socket(family, SockType::Datagram, SockFlag::empty(), protocol).unwrap();
        if let Some(from) = from {
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
        }
        let socket = UdpSocket::from(fd);
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        (1..=2u8).all(|sequence| {
            let request = [kind, 0, 0, 0, 0, 0, 0, sequence, 1, 2, 3, 4];
            let mut answer = [0; 64];
            let sent = socket.send_to(&request, SocketAddr::new(to, 0)).is_ok();
            sent && socket
                .recv_from(&mut answer)
                .is_ok_and(|(_, peer)| peer.ip() == to && answer[7] == sequence)
        })
    };
    lab.within(ns, ping).join().unwrap()
}

type Ask = fn(Option<IpAddr>, SocketAddr) -> Result<String, String>;
type Serve = fn(&Lab, &str, SocketAddr, usize);
const PROTOCOLS: [(&str, Serve, Ask); 2] = [("tcp", tcp_server, ask_tcp), ("udp", udp_server, ask_udp)];

const fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// The pod to Service, overlay pod and node: seen with eth0's address, whatever the socket is bound to.
fn flows_of_the_pod(lab: &Lab, default: Default) {
    let mut port = 7000;
    for family in FAMILIES {
        let eth0 = at(Endpoint::Nic(ETH0), family);
        let sources = [None, Some(at(Endpoint::Nic(NET1), family)), Some(eth0)];
        for dst in [Endpoint::Service, Endpoint::OverlayPod, Endpoint::Node] {
            for (name, serve, ask) in PROTOCOLS {
                port += 1;
                // A server on the address itself: what it answers with is not in question here.
                let ns = if dst == Endpoint::OverlayPod { "far" } else { "node" };
                serve(lab, ns, SocketAddr::new(at(dst, family), port), sources.len());
                for from in sources {
                    let to = SocketAddr::new(at(dst, family), port);
                    let seen = lab.within("pod", move || ask(from, to)).join().unwrap();
                    assert_eq!(
                        seen,
                        Ok(eth0.to_string()),
                        "{default:?}: {name} from {from:?} to {to} {dst:?}"
                    );
                }
            }
            for from in sources {
                assert!(
                    ping(lab, "pod", from, at(dst, family)),
                    "{default:?}: ping from {from:?} to {dst:?}"
                );
            }
        }
    }
}

/// The node and an outside client to the pod's underlay address: answered by it, by the NIC they came by.
fn flows_to_the_pod(lab: &Lab, default: Default) {
    let mut port = 8000;
    for family in FAMILIES {
        let net1 = at(Endpoint::Nic(NET1), family);
        for (ns, client) in [("node", at(Endpoint::Node, family)), ("wan", at(Endpoint::Outside, family))] {
            for (name, serve, ask) in PROTOCOLS {
                port += 1;
                serve(lab, "pod", SocketAddr::new(any(family), port), 1);
                let to = SocketAddr::new(net1, port);
                let seen = lab.within(ns, move || ask(Some(client), to)).join().unwrap();
                assert_eq!(seen, Ok(client.to_string()), "{default:?}: {name} from {ns} {client} to {to}");
            }
            assert!(ping(lab, ns, Some(client), net1), "{default:?}: ping from {ns} to {net1}");
        }
    }
}

/// The pod to the outside with net1's address, also when the default route is on eth0.
fn flows_to_the_outside(lab: &Lab, default: Default) {
    let mut port = 9000;
    for family in FAMILIES {
        let net1 = at(Endpoint::Nic(NET1), family);
        for (name, serve, ask) in PROTOCOLS {
            port += 1;
            let to = SocketAddr::new(at(Endpoint::Outside, family), port);
            serve(lab, "wan", to, 1);
            let seen = lab.within("pod", move || ask(Some(net1), to)).join().unwrap();
            assert_eq!(seen, Ok(net1.to_string()), "{default:?}: {name} to {to}");
        }
        assert!(ping(lab, "pod", Some(net1), at(Endpoint::Outside, family)), "{default:?}: ping the outside");
    }
}

/// The pod's segments fit eth0, although its route is net1's and the other side takes longer ones. Without
/// offloads each is a packet of its own on eth0, which is dropped if it is too long.
fn full_segments(lab: &Lab, default: Default) {
    const BYTES: usize = 100_000;
    lab.within("pod", || compute_checksums("eth0")).join().unwrap();
    for (family, port) in FAMILIES.into_iter().zip(9500..) {
        let to = SocketAddr::new(at(Endpoint::OverlayPod, family), port);
        let (ready, wait) = mpsc::channel();
        let server = lab.within("far", move || {
            let listener = TcpListener::bind(to).unwrap();
            ready.send(()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            std::io::copy(&mut stream, &mut std::io::sink()).map_err(|e| e.to_string())
        });
        wait.recv_timeout(TIMEOUT).unwrap();
        let from = at(Endpoint::Nic(NET1), family);
        let kind = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let client = lab.within("pod", move || {
            let fd = socket(kind, SockType::Stream, SockFlag::empty(), None).unwrap();
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
            connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
            let mut stream = std::net::TcpStream::from(fd);
            stream.set_write_timeout(Some(TIMEOUT)).unwrap();
            std::io::Write::write_all(&mut stream, &vec![7; BYTES]).map_err(|e| e.to_string())
        });
        assert_eq!(client.join().unwrap(), Ok(()), "{default:?}: upload to {to}");
        assert_eq!(server.join().unwrap(), Ok(BYTES as u64), "{default:?}: upload to {to}");
    }
}

fn readable(logs: &Logs) -> bool {
    let mut fds = [PollFd::new(logs.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

fn all_flows(default: Default) {
    if !can_run() {
        return;
    }
    let mut lab = Lab::new(default);
    let mut logs = lab.dataplane.take_logs().unwrap();
    flows_of_the_pod(&lab, default);
    flows_to_the_pod(&lab, default);
    flows_to_the_outside(&lab, default);
    full_segments(&lab, default);
    let failed: u64 = [ETH0, NET1, SP0].iter().map(|&nic| lab.packets(nic, Reason::Failed)).sum();
    assert_eq!(failed, 0);
    let leaves = if default == Default::OnEth0 { ETH0 } else { NET1 };
    assert!(lab.packets(leaves, Reason::NatNew) > 0 && lab.packets(ETH0, Reason::TranslatedBack) > 0);
    // The node's address is in net1's subnet, so it is asked for there whatever the default route.
    assert!(lab.packets(NET1, Reason::ArpAnswered) > 0 && lab.packets(NET1, Reason::NdpAnswered) > 0);
    assert!(readable(&logs), "an answered neighbor request is logged");
    logs.flush();
    assert!(!readable(&logs));
}

#[test]
fn all_flows_with_the_default_route_on_net1() {
    all_flows(Default::OnNet1);
}

#[test]
fn all_flows_with_the_default_route_on_eth0() {
    all_flows(Default::OnEth0);
}
