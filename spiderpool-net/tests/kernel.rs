//! Every request against the real kernel, in namespaces of its own; iproute2 says what came of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions it calls")]

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use ipnet::IpNet;
use nix::libc;
use serde_json::Value;
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Medium, Neighbor, ReturnMarks, Route, Rule, Selector};
use spiderpool_net::announce::announce;
use spiderpool_net::block_on;
use spiderpool_net::events::{Events, NetlinkEvent};
use spiderpool_net::netlink::{Netlink, NetlinkError, NewVeth};
use spiderpool_net::netns::{NetNs, NetNsError};
use spiderpool_net::nft;
use spiderpool_net::sysctl::{self, SysctlError};
use spiderpool_net::tc::{Attach, Direction, Filter, FilterOutcome};

const NEAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Namespaces need root; without it a test is skipped, except where nobody would notice.
macro_rules! root_or_skip {
    () => {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
    };
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two namespaces with a veth pair `near` and `far` between them, both up.
struct Pair {
    near: NetNs,
    far: NetNs,
    netlink: Netlink,
    index: u32,
}

impl Pair {
    async fn new() -> Self {
        let (near, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let mut netlink = near.netlink().unwrap();
        netlink
            .add_veth(&NewVeth {
                name: &name("near"),
                mac: NEAR,
                peer_name: &name("far"),
                peer_mac: FAR,
                peer_netns: &far,
                mtu: 1450,
            })
            .await
            .unwrap();
        let index = netlink.link_by_name(&name("near")).await.unwrap().unwrap().index;
        netlink.set_up(index).await.unwrap();
        let mut other = far.netlink().unwrap();
        let far_index = other.link_by_name(&name("far")).await.unwrap().unwrap().index;
        other.set_up(far_index).await.unwrap();
        Self { near, far, netlink, index }
    }

    /// The MAC that the kernel has for an address on the near end.
    async fn mac_of_neighbor(&mut self, address: IpAddr) -> Option<MacAddr> {
        let known = self.netlink.known_neighbors(self.index).await.unwrap();
        known.into_iter().find(|known| known.address == address).map(|known| known.mac)
    }

    fn json(&self, program: &str, arguments: &str) -> Value {
        json(&self.near, program, arguments)
    }
}

fn json(netns: &NetNs, program: &str, arguments: &str) -> Value {
    let arguments: Vec<&str> = std::iter::once("-j").chain(arguments.split_whitespace()).collect();
    let output = run(netns, program, &arguments);
    serde_json::from_slice(&output).unwrap_or(Value::Array(Vec::new()))
}

/// What the program prints.
fn run(netns: &NetNs, program: &str, arguments: &[&str]) -> Vec<u8> {
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
    let output =
        Command::new("nsenter").arg(format!("--net={path}")).arg(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn veth_pairs_have_the_macs_and_mtu_asked_for() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    for (netns, name, mac) in
        [(&pair.near, "near", "02:00:00:00:00:01"), (&pair.far, "far", "02:00:00:00:00:02")]
    {
        let link = &json(netns, "ip", &format!("link show {name}"))[0];
        assert_eq!(link["address"], mac);
        assert_eq!(link["mtu"], 1450);
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
    }
    let links = pair.netlink.links().await.unwrap();
    let near = links.iter().find(|l| l.name.as_str() == "near").unwrap();
    assert_eq!((near.mac, near.mtu, near.up, near.kind.as_str()), (Some(NEAR), 1450, true, "veth"));
    assert_eq!(near.medium, Medium::Ethernet);
    let far = pair.far.netlink().unwrap().link_by_name(&name("far")).await.unwrap().unwrap();
    assert_eq!((near.peer, far.peer), (Some(far.index), Some(near.index)));
    assert_eq!(links.iter().find(|l| l.name.as_str() == "lo").unwrap().medium, Medium::Loopback);
}

#[tokio::test]
async fn a_second_link_of_the_same_name_is_refused_with_the_kernels_error_text() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let veth = NewVeth {
        name: &name("near"),
        mac: NEAR,
        peer_name: &name("other"),
        peer_mac: FAR,
        peer_netns: &pair.far,
        mtu: 1500,
    };
    let error = pair.netlink.add_veth(&veth).await.unwrap_err();
    assert!(error.is_exists(), "{error}");
    assert!(error.to_string().starts_with("add veth near with peer other: File exists"), "{error}");
}

#[tokio::test]
async fn links_change_and_go() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let mac = MacAddr([2, 9, 9, 9, 9, 9]);
    pair.netlink.set_mac(pair.index, mac).await.unwrap();
    pair.netlink.set_mtu(pair.index, 1400).await.unwrap();
    pair.netlink.set_tx_queue_len(pair.index, 77).await.unwrap();
    pair.netlink.set_down(pair.index).await.unwrap();
    let link = &pair.json("ip", "link show near")[0];
    assert_eq!(
        (&link["address"], &link["mtu"], &link["txqlen"]),
        (&mac.to_string().into(), &1400.into(), &77.into())
    );
    assert!(!link["flags"].as_array().unwrap().contains(&"UP".into()));
    pair.netlink.delete_link(&name("near")).await.unwrap();
    pair.netlink.delete_link(&name("near")).await.unwrap();
    assert_eq!(pair.netlink.link_by_name(&name("near")).await.unwrap(), None);
    assert_eq!(pair.netlink.link_by_index(pair.index).await.unwrap(), None);
}

#[tokio::test]
async fn addresses_come_and_go_in_both_families() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let nets = [net("10.6.0.5/16"), net("169.254.77.2/32"), net("fd00:10:6::5/64"), net("fe80::5/64")];
    for net in nets {
        pair.netlink.add_address(pair.index, net).await.unwrap();
        pair.netlink.add_address(pair.index, net).await.unwrap();
    }
    let listed = pair.netlink.addresses(Some(pair.index)).await.unwrap();
    for net in nets {
        assert!(listed.iter().any(|a| a.net == net && a.dev == pair.index), "{net} in {listed:?}");
    }
    let shown = &pair.json("ip", "addr show near")[0]["addr_info"];
    let v6 = shown.as_array().unwrap().iter().find(|a| a["local"] == "fd00:10:6::5").unwrap();
    assert_eq!(v6["tentative"], Value::Null, "usable at once: {v6}");
    pair.netlink.delete_address(pair.index, nets[0]).await.unwrap();
    pair.netlink.delete_address(pair.index, nets[0]).await.unwrap();
    assert!(!pair.netlink.addresses(None).await.unwrap().iter().any(|a| a.net == nets[0]));
}

#[tokio::test]
async fn routes_are_listed_as_they_were_added() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    for (address, gateway, dst) in
        [("10.6.0.5/16", "10.6.0.1", "10.96.0.0/12"), ("fd00:6::5/64", "fd00:6::1", "fd00:96::/108")]
    {
        pair.netlink.add_address(pair.index, net(address)).await.unwrap();
        let family = Family::of_net(&net(dst));
        let hint = Route {
            gateway: Some(ip(gateway)),
            source: Some(net(address).addr()),
            metric: 300,
            ..Route::new(net(dst), pair.index)
        };
        let default = Route {
            gateway: Some(ip(gateway)),
            metric: 4096,
            ..Route::new(family.default_route(), pair.index)
        };
        for route in [&hint, &default] {
            pair.netlink.add_route(route).await.unwrap();
            assert!(pair.netlink.add_route(route).await.unwrap_err().is_exists());
            assert!(pair.netlink.routes().await.unwrap().contains(route), "{route}");
        }
        let other = Route { mtu: Some(1400), ..hint.clone() };
        pair.netlink.replace_route(&other).await.unwrap();
        let listed = pair.netlink.routes_of(family, Some(pair.index)).await.unwrap();
        assert!(listed.contains(&other) && !listed.contains(&hint), "{listed:?}");
        let flag = if family == Family::V4 { "-4" } else { "-6" };
        let shown = pair.json("ip", &format!("{flag} route show {dst}"));
        assert_eq!(
            (&shown[0]["protocol"], &shown[0]["prefsrc"]),
            (&"83".into(), &net(address).addr().to_string().into())
        );
        pair.netlink.delete_route(&other).await.unwrap();
        pair.netlink.delete_route(&other).await.unwrap();
        assert!(!pair.netlink.routes().await.unwrap().iter().any(|r| r.dst == net(dst)));
    }
}

#[tokio::test]
async fn onlink_and_device_routes_need_no_subnet() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    pair.netlink.add_address(pair.index, net("10.233.64.5/32")).await.unwrap();
    let device = Route::new(net("10.6.0.7/32"), pair.index);
    let onlink =
        Route { gateway: Some(ip("169.254.1.1")), onlink: true, ..Route::new(net("0.0.0.0/0"), pair.index) };
    let device6 = Route { metric: 1024, ..Route::new(net("fd00::7/128"), pair.index) };
    for route in [&device, &onlink, &device6] {
        pair.netlink.add_route(route).await.unwrap();
        assert!(
            pair.netlink.routes().await.unwrap().contains(route),
            "{route} in {:?}",
            pair.netlink.routes().await
        );
    }
}

#[tokio::test]
async fn an_ipv6_default_for_one_source_stands_beside_the_one_for_all() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    pair.netlink.add_address(pair.index, net("fd66::5/64")).await.unwrap();
    let all = Route { gateway: Some(ip("fd66::1")), metric: 4096, ..Route::new(net("::/0"), pair.index) };
    let sourced = Route { from: Some(ip("fd66::5")), ..all.clone() };
    for route in [&all, &sourced] {
        pair.netlink.add_route(route).await.unwrap();
        assert!(
            pair.netlink.routes().await.unwrap().contains(route),
            "{route} in {:?}",
            pair.netlink.routes().await
        );
    }
    pair.netlink.delete_route(&sourced).await.unwrap();
    let left = pair.netlink.routes().await.unwrap();
    assert!(left.contains(&all) && !left.contains(&sourced), "{left:?}");
}

#[tokio::test]
async fn a_route_without_a_way_to_its_gateway_is_refused_with_the_kernels_error_text() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let route = Route { gateway: Some(ip("10.6.0.1")), ..Route::new(net("10.96.0.0/12"), pair.index) };
    let error = pair.netlink.add_route(&route).await.unwrap_err().to_string();
    assert!(
        error.contains("Network is unreachable") && error.contains("Nexthop has invalid gateway"),
        "{error}"
    );
}

#[tokio::test]
async fn ipv6_defaults_that_the_kernel_merged_are_listed_and_deleted_one_by_one() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    pair.netlink.add_address(pair.index, net("fd00:6::5/64")).await.unwrap();
    for gateway in ["fd00:6::1", "fd00:6::2"] {
        let arguments = format!("-6 route append default via {gateway} dev near");
        json(&pair.near, "ip", &arguments);
    }
    let defaults = async |netlink: &mut Netlink| -> Vec<_> {
        netlink.routes().await.unwrap().into_iter().filter(Route::is_default).collect()
    };
    let found = defaults(&mut pair.netlink).await;
    assert_eq!(found.len(), 2, "{found:?}");
    pair.netlink.delete_route(&found[0]).await.unwrap();
    assert_eq!(defaults(&mut pair.netlink).await, found[1..]);
    assert!(pair.netlink.add_route(&found[0]).await.unwrap_err().is_exists());
    pair.netlink.append_route(&found[0]).await.unwrap();
    assert_eq!(defaults(&mut pair.netlink).await.len(), 2, "merged again");
}

#[tokio::test]
async fn hops_of_an_ipv4_multipath_route_are_marked() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    for address in ["10.6.0.5/16", "fd00:6::5/64"] {
        pair.netlink.add_address(pair.index, net(address)).await.unwrap();
    }
    json(&pair.near, "ip", "route add default nexthop via 10.6.0.1 dev near nexthop via 10.6.0.2 dev near");
    json(
        &pair.near,
        "ip",
        "-6 route add default nexthop via fd00:6::1 dev near nexthop via fd00:6::2 dev near",
    );
    let routes = pair.netlink.routes().await.unwrap();
    let hops: Vec<_> = routes.iter().filter(|route| route.is_default()).map(|route| route.is_hop).collect();
    assert_eq!(hops, [true, true, false, false], "{routes:?}");
    assert!(routes.iter().filter(|route| !route.is_default()).all(|route| !route.is_hop));
}

#[tokio::test]
async fn an_ipv4_route_by_an_ipv6_next_hop_is_read_and_written() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    pair.netlink.add_address(pair.index, net("10.6.0.5/16")).await.unwrap();
    json(&pair.near, "ip", "route add default via inet6 fe80::1 dev near");
    let defaults = async |netlink: &mut Netlink| -> Vec<_> {
        netlink.routes().await.unwrap().into_iter().filter(Route::is_default).collect()
    };
    let found = defaults(&mut pair.netlink).await;
    assert_eq!(found[0].gateway, Some(ip("fe80::1")));
    pair.netlink.delete_route(&found[0]).await.unwrap();
    assert_eq!(defaults(&mut pair.netlink).await, []);
    pair.netlink.add_route(&found[0]).await.unwrap();
    assert_eq!(defaults(&mut pair.netlink).await, found);
}

#[tokio::test]
async fn ensure_route_accepts_exactly_the_route_that_is_there() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    for (address, gateways, dst) in [
        ("10.6.0.5/16", ["10.6.0.1", "10.6.0.2"], "10.96.0.0/12"),
        ("fd00:6::5/64", ["fd00:6::1", "fd00:6::2"], "fd00:96::/108"),
    ] {
        pair.netlink.add_address(pair.index, net(address)).await.unwrap();
        let [one, other] =
            gateways.map(|gateway| Route { gateway: Some(ip(gateway)), ..Route::new(net(dst), pair.index) });
        pair.netlink.ensure_route(&one).await.unwrap();
        assert!(pair.netlink.add_route(&one).await.unwrap_err().is_exists());
        pair.netlink.ensure_route(&one).await.unwrap();
        assert!(pair.netlink.ensure_route(&other).await.unwrap_err().is_exists());
    }
}

#[tokio::test]
async fn the_source_for_an_address_is_the_kernels_choice() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let netlink = &mut pair.netlink;
    assert_eq!(netlink.source_for(ip("10.6.0.9")).await.unwrap(), None);
    for address in ["10.1.0.1/32", "10.6.0.5/16", "fd00:1::1/128", "fd00:6::5/64"] {
        netlink.add_address(pair.index, net(address)).await.unwrap();
    }
    assert_eq!(netlink.source_for(ip("10.6.0.9")).await.unwrap(), Some(ip("10.6.0.5")));
    assert_eq!(netlink.source_for(ip("fd00:6::9")).await.unwrap(), Some(ip("fd00:6::5")));
    assert_eq!(netlink.source_for(ip("192.0.2.1")).await.unwrap(), None);
}

#[tokio::test]
async fn ipv4_defaults_with_the_same_metric_can_be_put_back() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    pair.netlink.add_address(pair.index, net("10.6.0.5/16")).await.unwrap();
    let routes = ["10.6.0.1", "10.6.0.2"]
        .map(|gateway| Route { gateway: Some(ip(gateway)), ..Route::new(net("0.0.0.0/0"), pair.index) });
    pair.netlink.add_route(&routes[0]).await.unwrap();
    assert!(pair.netlink.add_route(&routes[1]).await.unwrap_err().is_exists());
    pair.netlink.append_route(&routes[1]).await.unwrap();
    let listed = pair.netlink.routes().await.unwrap();
    assert!(routes.iter().all(|route| listed.contains(route)), "{listed:?}");
}

#[tokio::test]
async fn neighbors_are_permanent() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    for address in [ip("10.6.0.9"), ip("fd00::9")] {
        for mac in [NEAR, FAR] {
            pair.netlink.set_neighbor(&Neighbor { dev: pair.index, address, mac }).await.unwrap();
        }
        let listed = pair.netlink.permanent_neighbors(pair.index).await.unwrap();
        assert!(listed.contains(&Neighbor { dev: pair.index, address, mac: FAR }), "{listed:?}");
        let shown = pair.json("ip", &format!("neigh show {address} dev near"));
        assert_eq!(
            (&shown[0]["lladdr"], &shown[0]["state"][0]),
            (&FAR.to_string().into(), &"PERMANENT".into())
        );
        pair.netlink.delete_neighbor(pair.index, address).await.unwrap();
        pair.netlink.delete_neighbor(pair.index, address).await.unwrap();
        assert_eq!(pair.netlink.permanent_neighbors(pair.index).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_neighbor_is_asked_for_and_its_mac_known_then() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let (own, other) = (["10.6.0.1/24", "fd00:6::1/64"], ["10.6.0.9/24", "fd00:6::9/64"]);
    for (namespace, nic, addresses) in [(&pair.near, "near", own), (&pair.far, "far", other)] {
        for address in addresses {
            run(namespace, "ip", &["addr", "add", address, "dev", nic, "nodad"]);
        }
    }
    for address in [ip("10.6.0.9"), ip("fd00:6::9")] {
        assert_eq!(pair.mac_of_neighbor(address).await, None);
        pair.netlink.solicit_neighbor(pair.index, address).await.unwrap();
        let mut mac = None;
        for _ in 0..200 {
            mac = pair.mac_of_neighbor(address).await;
            if mac.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(mac, Some(FAR), "{address}");
    }
    pair.netlink.solicit_neighbor(pair.index, ip("10.6.0.77")).await.unwrap();
    assert_eq!(pair.mac_of_neighbor(ip("10.6.0.77")).await, None);
    assert_eq!(pair.netlink.permanent_neighbors(pair.index).await.unwrap(), []);
}

#[tokio::test]
async fn clsact_is_added_once_and_kept() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    assert_eq!(pair.netlink.filters(pair.index, Direction::Egress).await.unwrap(), []);
    pair.netlink.detach_filter(pair.index, Direction::Egress).await.unwrap();
    pair.netlink.add_clsact(pair.index).await.unwrap();
    pair.netlink.add_clsact(pair.index).await.unwrap();
    let shown = pair.json("tc", "qdisc show dev near");
    assert!(shown.as_array().unwrap().iter().any(|q| q["kind"] == "clsact"), "{shown}");
    assert_eq!(pair.netlink.filters(pair.index, Direction::Ingress).await.unwrap(), []);
    pair.netlink.detach_filter(pair.index, Direction::Ingress).await.unwrap();
}

/// A classifier that returns TC_ACT_UNSPEC, loaded without any library.
fn unspec_program() -> OwnedFd {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const SCHED_CLS: u32 = 3;
    // r0 = -1; exit
    let code: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];
    let licence = c"GPL";
    let mut attr = [0u8; 128];
    attr[0..4].copy_from_slice(&SCHED_CLS.to_ne_bytes());
    attr[4..8].copy_from_slice(&2u32.to_ne_bytes());
    attr[8..16].copy_from_slice(&(code.as_ptr() as u64).to_ne_bytes());
    attr[16..24].copy_from_slice(&(licence.as_ptr() as u64).to_ne_bytes());
    // SAFETY: the attribute block is as large as said, what it points to lives until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attr.as_ptr(), attr.len()) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

#[tokio::test]
async fn filters_carry_the_classid_and_are_replaced_in_place() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let program = unspec_program();
    pair.netlink.add_clsact(pair.index).await.unwrap();
    for (direction, classid) in [(Direction::Ingress, 7), (Direction::Egress, 65535)] {
        let mut attach =
            async |id, how| pair.netlink.attach_filter(pair.index, direction, &program, id, how).await;
        attach(classid - 1, Attach::Create).await.unwrap();
        assert!(attach(classid, Attach::Create).await.unwrap_err().is_exists());
        attach(classid, Attach::Replace).await.unwrap();
        let found = pair.netlink.filters(pair.index, direction).await.unwrap();
        let [Filter { priority: 1, handle: 1, classid: seen, name, program }] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((*seen, name.as_str()), (u32::from(classid), format!("spiderpool-{direction}").as_str()));
        let shown = pair.json("tc", &format!("filter show dev near {direction}"));
        let options = &shown.as_array().unwrap().last().unwrap()["options"];
        assert_eq!(
            (&options["direct-action"], &options["prog"]["id"]),
            (&true.into(), &(*program).into()),
            "{shown}"
        );
        pair.netlink.detach_filter(pair.index, direction).await.unwrap();
        pair.netlink.detach_filter(pair.index, direction).await.unwrap();
        assert_eq!(pair.netlink.filters(pair.index, direction).await.unwrap(), []);
    }
}

/// A filter of one protocol that takes every packet, as a classic BPF program.
fn other_filter(netns: &NetNs, direction: &str, priority: &str) {
    let place = ["filter", "add", "dev", "near", direction, "pref", priority, "protocol", "ip"];
    run(netns, "tc", &[&place[..], &["bpf", "bytecode", "1,6 0 0 4294967295"]].concat());
}

#[tokio::test]
async fn behind_a_foreign_filter_ours_is_attached_replaced_and_detached() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let program = unspec_program();
    pair.netlink.add_clsact(pair.index).await.unwrap();
    let mut ensure =
        async |id| pair.netlink.ensure_filter(pair.index, Direction::Egress, &program, id).await.unwrap();
    assert_eq!([ensure(7).await, ensure(7).await], [FilterOutcome::Created, FilterOutcome::Replaced]);
    assert!(pair.netlink.own_filter(pair.index, Direction::Egress).await.unwrap().is_some());
    pair.netlink.detach_filter(pair.index, Direction::Egress).await.unwrap();
    // No id: it is not ours, whatever its name.
    pair.netlink.attach_filter(pair.index, Direction::Egress, &program, 0, Attach::Create).await.unwrap();
    assert_eq!(pair.netlink.own_filter(pair.index, Direction::Egress).await.unwrap(), None);
    pair.netlink.detach_filter(pair.index, Direction::Egress).await.unwrap();
    // As other agents do.
    other_filter(&pair.near, "egress", "2");
    let mut ensure =
        async |id| pair.netlink.ensure_filter(pair.index, Direction::Egress, &program, id).await.unwrap();
    assert_eq!([ensure(7).await, ensure(8).await], [FilterOutcome::Created, FilterOutcome::Replaced]);
    let places = async |pair: &mut Pair| -> Vec<(u16, u32)> {
        let left = pair.netlink.filters(pair.index, Direction::Egress).await.unwrap();
        left.iter().map(|filter| (filter.priority, filter.classid)).collect()
    };
    assert_eq!(places(&mut pair).await, [(1, 0), (2, 0), (3, 8)]);
    pair.netlink.detach_filter(pair.index, Direction::Egress).await.unwrap();
    assert_eq!(places(&mut pair).await, [(1, 0), (2, 0)]);
}

/// The kernel answers EINVAL, not EEXIST.
#[tokio::test]
async fn a_foreign_filter_of_another_protocol_keeps_its_priority() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let program = unspec_program();
    pair.netlink.add_clsact(pair.index).await.unwrap();
    other_filter(&pair.near, "ingress", "1");
    let outcome = pair.netlink.ensure_filter(pair.index, Direction::Ingress, &program, 7).await.unwrap();
    assert_eq!(outcome, FilterOutcome::Created);
    let left = pair.netlink.filters(pair.index, Direction::Ingress).await.unwrap();
    let places: Vec<_> = left.iter().map(|filter| (filter.priority, filter.classid)).collect();
    assert_eq!(places, [(1, 0), (2, 7)]);
}

#[tokio::test]
async fn sysctls_belong_to_the_namespace_and_missing_ones_are_an_error_of_their_own() {
    root_or_skip!();
    let pair = Pair::new().await;
    let key = "net/ipv4/conf/near/arp_announce";
    pair.near
        .run(|| {
            assert_eq!(sysctl::write(key, "2").unwrap(), "0");
            assert_eq!(sysctl::write(key, "2").unwrap(), "2");
            assert_eq!(sysctl::read(key).unwrap(), "2");
            let missing = sysctl::write("net/ipv4/conf/nosuch/arp_announce", "2").unwrap_err();
            assert!(matches!(missing, SysctlError::Missing { .. }), "{missing}");
            let refused = sysctl::write(key, "many").unwrap_err();
            assert!(matches!(refused, SysctlError::Io { .. }), "{refused}");
        })
        .unwrap();
    assert!(matches!(sysctl::read(key), Err(SysctlError::Missing { .. })), "not in the caller's namespace");
}

#[tokio::test]
async fn namespaces_have_identities_and_the_caller_never_moves() {
    root_or_skip!();
    let (one, two) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let home = NetNs::current().unwrap().id().unwrap();
    assert_ne!(one.id().unwrap(), two.id().unwrap());
    let inside = one.run(|| NetNs::current().unwrap().id().unwrap()).unwrap();
    assert_eq!(inside, one.id().unwrap());
    assert_eq!(NetNs::current().unwrap().id().unwrap(), home);
    assert!(matches!(NetNs::open("/no/such/netns"), Err(NetNsError::Gone { .. })));
    assert!(matches!(NetNs::open("/etc/hostname"), Err(NetNsError::NotANamespace { .. })));
}

#[tokio::test]
async fn an_announcement_changes_the_neighbors_entry() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    pair.netlink.add_address(pair.index, net("10.6.0.5/16")).await.unwrap();
    let mut far = pair.far.netlink().unwrap();
    let far_index = far.link_by_name(&name("far")).await.unwrap().unwrap().index;
    far.add_address(far_index, net("10.6.0.6/16")).await.unwrap();
    json(&pair.far, "ip", "neigh replace 10.6.0.5 lladdr 02:aa:aa:aa:aa:aa dev far nud stale");
    // While the kernel has not noticed yet that the pair has a carrier, it drops what is sent.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        pair.near.run(|| announce(pair.index, NEAR, ip("10.6.0.5"))).unwrap().unwrap();
        let shown = json(&pair.far, "ip", "neigh show 10.6.0.5 dev far");
        if shown[0]["lladdr"] == NEAR.to_string() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{shown}");
    }
}

#[tokio::test]
async fn events_report_addresses_and_links() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let mut events = pair.near.run(Events::open).unwrap().unwrap();
    let address = net("10.6.0.5/16");
    pair.netlink.add_address(pair.index, address).await.unwrap();
    pair.netlink.delete_address(pair.index, address).await.unwrap();
    pair.netlink.delete_link(&name("near")).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let event = events.next().await.unwrap();
        let last = matches!(&event, NetlinkEvent::LinkGone(link) if link.name.as_str() == "near");
        seen.push(event);
        if last {
            break;
        }
    }
    assert!(seen.iter().any(|e| matches!(e, NetlinkEvent::Address(a) if a.net == address)), "{seen:?}");
    assert!(seen.iter().any(|e| matches!(e, NetlinkEvent::AddressGone(a) if a.net == address)), "{seen:?}");
}

#[tokio::test]
async fn events_report_routes_and_neighbors_that_others_take_away() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    // The kernel's own IPv6 routes come and go when it notices the carrier.
    pair.near.run(|| sysctl::write("net/ipv6/conf/near/disable_ipv6", "1")).unwrap().unwrap();
    let mut events = pair.near.run(Events::of_routes).unwrap().unwrap();
    let (index, address) = (pair.index, ip("10.6.0.9"));
    let route = Route::new("10.6.0.9/32".parse().unwrap(), index);
    pair.netlink.add_route(&route).await.unwrap();
    pair.netlink.set_neighbor(&Neighbor { dev: index, address, mac: FAR }).await.unwrap();
    pair.netlink.delete_route(&route).await.unwrap();
    pair.netlink.delete_neighbor(index, address).await.unwrap();
    let mut seen = Vec::new();
    let gone = NetlinkEvent::Neighbor { dev: index, address };
    while !seen.contains(&gone) {
        seen.push(events.next().await.unwrap());
    }
    let ours: Vec<_> = seen.iter().filter(|event| !matches!(event, NetlinkEvent::Link(_))).collect();
    assert_eq!(ours, [&NetlinkEvent::Route(index), &gone]);
}

#[tokio::test]
async fn rules_and_routes_of_tables_are_added_listed_and_deleted() {
    root_or_skip!();
    let mut pair = Pair::new().await;
    let mut netlink = pair.near.netlink().unwrap();
    netlink.add_address(pair.index, net("10.9.0.1/24")).await.unwrap();
    netlink.add_address(pair.index, net("fd00:9::1/64")).await.unwrap();
    let rules = [
        Rule::new(Family::V4, 1000, Selector::All, 500),
        Rule::new(Family::V6, 1000, Selector::All, 500),
        Rule::new(Family::V4, 32765, Selector::From(ip("10.9.0.1")), 101),
        Rule::new(Family::V6, 32765, Selector::From(ip("fd00:9::1")), 101),
        Rule::new(Family::V4, 1000, Selector::Mark(1), 100),
    ];
    for rule in &rules {
        netlink.add_rule(rule).await.unwrap();
        netlink.add_rule(rule).await.unwrap();
    }
    let own: Vec<_> = netlink.rules().await.unwrap().into_iter().filter(Rule::is_ours).collect();
    assert!(own.len() == rules.len() && rules.iter().all(|rule| own.contains(rule)), "{own:?}");
    let listed = String::from_utf8(run(&pair.near, "ip", &["rule"])).unwrap();
    assert!(
        listed.contains("1000:\tfrom all lookup 500") && listed.contains("fwmark 0x1 lookup 100"),
        "{listed}"
    );

    let route = |table, dst: &str| Route { table, metric: 7, ..Route::new(net(dst), pair.index) };
    let routes = [route(101, "10.8.0.0/16"), route(500, "10.7.0.0/16"), route(500, "fd00:7::/64")];
    for route in &routes {
        netlink.ensure_route(route).await.unwrap();
        netlink.ensure_route(route).await.unwrap();
    }
    assert_eq!(netlink.further_routes(Some(0x53)).await.unwrap().len(), 3);
    assert_eq!(netlink.further_routes(Some(0x54)).await.unwrap(), []);
    assert_eq!(netlink.routes_in(500).await.unwrap(), routes[1..]);
    assert!(!netlink.routes().await.unwrap().iter().any(Route::is_ours));

    // One that is shared goes when its table is empty, per family.
    for rule in &rules[..2] {
        netlink.delete_idle_rule(rule).await.unwrap();
    }
    assert_eq!(netlink.rules().await.unwrap().iter().filter(|rule| rule.is_ours()).count(), 5);
    netlink.delete_route(&routes[1]).await.unwrap();
    for rule in &rules[..2] {
        netlink.delete_idle_rule(rule).await.unwrap();
    }
    let left = netlink.rules().await.unwrap();
    assert!(!left.contains(&rules[0]) && left.contains(&rules[1]));
    for rule in &rules[1..] {
        netlink.delete_rule(rule).await.unwrap();
        netlink.delete_rule(rule).await.unwrap();
    }
    assert!(!netlink.rules().await.unwrap().iter().any(Rule::is_ours));
    pair.netlink.links().await.unwrap();
}

/// The DEL of one pod meets the ADD of another.
#[test]
fn a_shared_rule_is_there_while_its_table_has_a_route_whoever_deletes_it() {
    root_or_skip!();
    let netns = NetNs::create().unwrap();
    let rule = Rule::new(Family::V4, 1000, Selector::All, 500);
    let in_netns = |work: &(dyn Fn() -> Result<(), NetlinkError> + Sync)| netns.run(work).unwrap().unwrap();
    let delete = || {
        block_on(async {
            let mut netlink = Netlink::open()?;
            for _ in 0..300 {
                netlink.delete_idle_rule(&rule).await?;
            }
            Ok(())
        })
    };
    let add = || {
        block_on(async {
            let mut netlink = Netlink::open()?;
            let lo = netlink.link_by_name(&name("lo")).await?.unwrap().index;
            netlink.set_up(lo).await?;
            let route = Route { table: 500, ..Route::new(net("10.7.0.1/32"), lo) };
            for _ in 0..300 {
                netlink.add_route(&route).await?;
                netlink.add_rule(&rule).await?;
                // One that is being deleted is put back by who deletes it.
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
                while !netlink.rules().await?.contains(&rule) {
                    assert!(std::time::Instant::now() < deadline, "the rule is lost");
                }
                netlink.delete_route(&route).await?;
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        for work in [&delete as &(dyn Fn() -> Result<(), NetlinkError> + Sync), &delete, &add] {
            scope.spawn(move || in_netns(work));
        }
    });
}

/// nft(8) says what the kernel has understood.
#[tokio::test]
async fn return_marks_are_set_replaced_and_deleted() {
    root_or_skip!();
    let netns = NetNs::create().unwrap();
    let nic = name("net1");
    let marks = |to: &[&str]| ReturnMarks {
        nic: nic.clone(),
        from: name("veth0"),
        to: to.iter().map(|address| ip(address)).collect(),
        mark: 1,
    };
    let set = |to: &[&str]| netns.run(|| nft::set_return_marks(&marks(to))).unwrap().unwrap();
    let has = || netns.run(|| nft::has_return_marks(&nic)).unwrap().unwrap();
    let list = || String::from_utf8(run(&netns, "nft", &["list", "ruleset"])).unwrap();
    assert!(!has() && !set(&["10.6.0.5", "fd00:6::5"]));
    assert!(has() && set(&[]), "the second time it is there already");
    let text = list();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(
        lines,
        [
            "table inet spiderpool-net1 {",
            "chain prerouting {",
            "type filter hook prerouting priority mangle; policy accept;",
            "iifname \"veth0\" ct state new ct mark 0x00000000 ct mark set 0x00000001",
            "iifname != \"veth0\" ct mark 0x00000001 meta mark set 0x00000001",
            "}",
            "chain output {",
            "type route hook output priority mangle; policy accept;",
            "meta mark 0x00000000 ct mark 0x00000001 meta mark set 0x00000001",
            "}",
            "}",
        ]
    );
    assert!(set(&["10.6.0.5", "fd00:6::5"]));
    let text = list();
    assert!(
        text.contains("ip daddr 10.6.0.5 ct state new") && text.contains("ip6 daddr fd00:6::5 ct state new"),
        "{text}"
    );
    for _ in 0..2 {
        netns.run(|| nft::delete_return_marks(&nic)).unwrap().unwrap();
    }
    assert_eq!(list(), "");
}
