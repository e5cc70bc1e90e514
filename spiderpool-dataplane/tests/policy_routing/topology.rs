//! Two pods with the same NICs and addresses: the programs decide for one, ip rules, tables, marks and nftables for the other,
//! as an administrator would write them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use spiderpool_dataplane::{CidrAction, CidrKind, DEFAULT_BACKUP, DEFAULT_USED, Dataplane};
use spiderpool_ebpf_common::maps::EPHEMERAL_PORTS;
use spiderpool_ebpf_common::model::pod::{self, ETH0, Endpoint, Family, IFINDEX, NET1, SP0, at};

use super::wire::Mac;

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// MAC of net1's gateway.
pub(crate) const GATEWAY: Mac = [2, 0, 0, 0, 0x33, 1];
/// MAC of another node in the underlay, which hands packets of its pods over itself.
pub(crate) const OTHER_NODE: Mac = [2, 0, 0, 0, 0x33, 2];
/// MACs of the hosts in net1's subnet.
pub(crate) const NEIGHBOR: Mac = [2, 0, 0, 0, 0x33, 3];
pub(crate) const NODE: Mac = [2, 0, 0, 0, 0x33, 4];
/// MAC of the node's uplink.
pub(crate) const UPLINK: Mac = [2, 0, 0, 0, 0x33, 5];

/// Marks and tables of eth0, net1 and sp0 in the pod with policy routing.
const MARKS: [(&str, u32); 3] = [("eth0", 1), ("net1", 2), ("sp0", 3)];

/// What differs between runs. The default route is by one NIC for both families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) default_on: &'static str,
    /// Whether the pod with programs has route hints.
    pub(crate) hints: bool,
}

impl Setting {
    /// Whether the kernel gives a socket without address net1's towards this destination, so that the programs translate it.
    pub(crate) fn translates_unbound(self, to: IpAddr) -> bool {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let node = at(Endpoint::Node, family);
        let stays = at(Endpoint::Neighbor, family) == to || at(Endpoint::Outside, family) == to;
        !self.hints && !stays && (self.default_on == "net1" || to == node)
    }
}

/// An address in a hijacked CIDR, by an underlay NIC reached through its gateway.
pub(crate) fn hijacked(family: Family) -> IpAddr {
    match family {
        Family::V4 => [172, 20, 1, 1].into(),
        Family::V6 => [0xfd00, 0x18, 0, 1, 0, 0, 0, 1].into(),
    }
}

/// What is of one family in scripts.
struct Names {
    ip: &'static str,
    /// Prefix lengths of an address and of net1's subnet.
    bits: u8,
    subnet_bits: u8,
    subnet: &'static str,
    eth_gateway: &'static str,
    gateway: &'static str,
    node_end: &'static str,
    nodad: &'static str,
    /// Steered.
    cidrs: [&'static str; 3],
    nft: &'static str,
    nft_type: &'static str,
    own: &'static str,
}

const V4: Names = Names {
    ip: "-4",
    bits: 32,
    subnet_bits: 16,
    subnet: "172.18.0.0/16",
    eth_gateway: "169.254.1.1",
    gateway: "172.18.0.1",
    node_end: "169.254.77.1",
    nodad: "",
    cidrs: ["10.96.0.0/12", "10.244.0.0/16", "172.16.0.0/12"],
    nft: "ip",
    nft_type: "ipv4_addr",
    own: "own4",
};

const V6: Names = Names {
    ip: "-6",
    bits: 128,
    subnet_bits: 64,
    subnet: "fd00:18::/64",
    eth_gateway: "fe80::ecee",
    gateway: "fd00:18::1",
    node_end: "fd00:77::1",
    nodad: "nodad",
    cidrs: ["fd00:96::/112", "fd00:244::/32", "fd00:18::/32"],
    nft: "ip6",
    nft_type: "ipv6_addr",
    own: "own6",
};

const fn names(family: Family) -> &'static Names {
    match family {
        Family::V4 => &V4,
        Family::V6 => &V6,
    }
}

/// Who asks with ARP at a NIC's far end.
pub(crate) fn far_address(nic: &str) -> IpAddr {
    let text = match nic {
        "eth0" => V4.eth_gateway,
        "net1" => V4.gateway,
        _ => V4.node_end,
    };
    text.parse().unwrap()
}

pub(crate) fn sh(script: &str) {
    let output = Command::new("sh").args(["-euxc", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn text(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}

/// NICs and addresses, which both pods have alike. Nothing is resolved: every neighbor is permanent.
pub(crate) fn links_and_addresses(name: &str) {
    let (pod_ns, node, far) = (format!("{name}-pod"), format!("{name}-node"), format!("{name}-far"));
    let s = &mut String::new();
    for ns in [&pod_ns, &node, &far] {
        writeln!(s, "ip netns add {ns}\nip -n {ns} link set lo up").unwrap();
    }
    // What is sent to the far ends concerns nobody there. Limits of errors would make answers a matter of time, and sockets in
    // TIME_WAIT would be left to the next sequence of steps.
    let everywhere = "net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.accept_dad=0";
    let quiet = "net.ipv4.icmp_ratemask=0 net.ipv6.icmp.ratemask=200 net.ipv4.tcp_invalid_ratelimit=0 \
                 net.ipv4.tcp_max_tw_buckets=0 net.ipv4.tcp_timestamps=0 net.ipv4.tcp_syncookies=0 net.ipv4.tcp_challenge_ack_limit=2147483647";
    writeln!(
        s,
        "ip netns exec {pod_ns} sysctl -qw {everywhere} {quiet} net.ipv4.conf.all.rp_filter=2 \
         net.ipv4.conf.all.arp_announce=2 net.ipv4.conf.all.arp_ignore=1 net.ipv4.ping_group_range='0 0'\n\
         ip netns exec {node} sysctl -qw {everywhere} net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
         net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.send_redirects=0 \
         net.ipv4.conf.default.send_redirects=0\n\
         ip netns exec {far} sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
    )
    .unwrap();
    let nic = |id: u16, dev: &str, peer: &str, ns: &str| {
        format!(
            "ip -n {pod_ns} link add {dev} index {} address {} type veth peer name {peer} netns {ns} address {}\n",
            IFINDEX + u32::from(id),
            text(pod::mac(id)),
            text(pod::peer(id)),
        )
    };
    s.push_str(&nic(ETH0, "eth0", "cali0", &far));
    s.push_str(&nic(SP0, "sp0", "spnode", &node));
    writeln!(
        s,
        "ip -n {far} link add u0 type veth peer name u1\n\
         ip -n {far} link set u0 up\n\
         ip -n {far} link add net1 link u0 netns {pod_ns} index {} address {} type macvlan mode bridge\n\
         ip -n {node} link add up0 address {} type veth peer name up1 netns {far}\n\
         ip -n {pod_ns} link set eth0 mtu 1450",
        IFINDEX + u32::from(NET1),
        text(pod::mac(NET1)),
        text(UPLINK),
    )
    .unwrap();
    for (ns, dev) in [
        (&far, "cali0"),
        (&far, "u1"),
        (&far, "up1"),
        (&node, "spnode"),
        (&node, "up0"),
        (&pod_ns, "eth0"),
        (&pod_ns, "net1"),
        (&pod_ns, "sp0"),
    ] {
        writeln!(s, "ip -n {ns} link set {dev} up").unwrap();
    }
    for family in FAMILIES {
        let n = names(family);
        let a = |place| at(place, family);
        let neighbors = [
            ("eth0", n.eth_gateway.to_owned(), pod::peer(ETH0)),
            ("sp0", n.node_end.to_owned(), pod::peer(SP0)),
            ("net1", n.gateway.to_owned(), GATEWAY),
            ("net1", a(Endpoint::Neighbor).to_string(), NEIGHBOR),
            ("net1", a(Endpoint::Node).to_string(), NODE),
        ];
        for (id, dev, bits) in [(ETH0, "eth0", n.bits), (SP0, "sp0", n.bits), (NET1, "net1", n.subnet_bits)] {
            writeln!(s, "ip -n {pod_ns} addr add {}/{bits} dev {dev} {}", a(Endpoint::Nic(id)), n.nodad)
                .unwrap();
        }
        for (dev, ip, mac) in neighbors {
            writeln!(s, "ip -n {pod_ns} neigh add {ip} lladdr {} dev {dev}", text(mac)).unwrap();
        }
        // The node: to the pod by the link, anywhere else by its uplink.
        let net1 = a(Endpoint::Nic(NET1));
        writeln!(
            s,
            "ip -n {node} {} route add {net1} dev spnode\n\
             ip -n {node} neigh add {net1} lladdr {} dev spnode\n\
             ip -n {node} neigh add {} lladdr {} dev up0\n\
             ip -n {node} {} route add default via {} dev up0 onlink",
            n.ip,
            text(pod::mac(SP0)),
            n.eth_gateway,
            text(GATEWAY),
            n.ip,
            n.eth_gateway,
        )
        .unwrap();
    }
    sh(s);
}

/// Routes as the coordinator and the agent set them up, maps as the agent fills them, and the programs.
pub(crate) fn attach_programs(name: &str, setting: Setting, dataplane: &mut Dataplane, pins: &str) {
    let pod_ns = format!("{name}-pod");
    let s = &mut String::new();
    for family in FAMILIES {
        let n = names(family);
        let (eth0, net1) = (at(Endpoint::Nic(ETH0), family), at(Endpoint::Nic(NET1), family));
        let on_eth0 = setting.default_on == "eth0";
        let (first, second) = if on_eth0 { (10, 4096) } else { (4096, 10) };
        let by_eth0 = format!("via {} dev eth0 onlink", n.eth_gateway);
        let ip = format!("ip -n {pod_ns} {} route add", n.ip);
        // docs/dataplane.md, "What a pod's routes must offer".
        let from = if on_eth0 && family == Family::V6 { format!("from {net1}") } else { String::new() };
        writeln!(s, "{ip} default {by_eth0} metric {first}").unwrap();
        writeln!(s, "{ip} default {from} via {} dev net1 metric {second}", n.gateway).unwrap();
        if setting.hints {
            let all = !on_eth0 || family == Family::V6;
            for cidr in n.cidrs.iter().filter(|_| all) {
                writeln!(s, "{ip} {cidr} {by_eth0} src {eth0}").unwrap();
            }
            writeln!(s, "{ip} {} {by_eth0} src {eth0}", at(Endpoint::Node, family)).unwrap();
        }
    }
    for (id, dev) in [(ETH0, "eth0"), (NET1, "net1"), (SP0, "sp0")] {
        writeln!(s, "tc -n {pod_ns} qdisc add dev {dev} clsact").unwrap();
        for hook in ["egress", "ingress"] {
            writeln!(
                s,
                "tc -n {pod_ns} filter add dev {dev} {hook} prio 1 handle 1 bpf da object-pinned {pins}/{hook} flowid :{id:x}"
            )
            .unwrap();
        }
    }
    writeln!(s, "tc -n {name}-node qdisc add dev spnode clsact").unwrap();
    for hook in ["egress", "ingress"] {
        writeln!(
            s,
            "tc -n {name}-node filter add dev spnode {hook} prio 1 handle 1 bpf da object-pinned {pins}/host_{hook} flowid :{SP0:x}"
        )
        .unwrap();
    }
    fill_maps(setting, dataplane);
    sh(s);
}

fn fill_maps(setting: Setting, dataplane: &mut Dataplane) {
    let tables = pod::tables();
    for (id, dev) in [(ETH0, "eth0"), (NET1, "net1"), (SP0, "sp0")] {
        let mut nic = tables.nics[&id];
        nic.default4 = match dev {
            "sp0" => spiderpool_dataplane::DEFAULT_NONE,
            _ if dev == setting.default_on => DEFAULT_USED,
            _ => DEFAULT_BACKUP,
        };
        nic.default6 = nic.default4;
        dataplane.nic_put(id, &nic).unwrap();
        if dev != "sp0" {
            let addresses = FAMILIES.map(|family| at(Endpoint::Nic(id), family));
            dataplane.addresses_set(id, nic.pod, &addresses).unwrap();
        }
    }
    let mut want = Vec::new();
    for family in FAMILIES {
        let n = names(family);
        for (cidr, kind) in n.cidrs.iter().zip([CidrKind::Service, CidrKind::Pod, CidrKind::Hijack]) {
            want.push((cidr.parse().unwrap(), CidrAction::Steer, kind));
        }
        want.push((n.subnet.parse().unwrap(), CidrAction::Stay, CidrKind::Connected));
        want.push((at(Endpoint::Node, family).into(), CidrAction::Steer, CidrKind::Node));
    }
    dataplane.cidrs_set(pod::PROFILE, &want).unwrap();
}

/// Policy routing: replies leave by the NIC that their flow came in by, cluster destinations by eth0, otherwise the source decides.
pub(crate) fn set_up_policy_routing(name: &str, setting: Setting) {
    let pod_ns = format!("{name}-pod");
    let s = &mut String::new();
    for family in FAMILIES {
        let n = names(family);
        let a = |place| at(place, family);
        let (eth0, net1, node) = (a(Endpoint::Nic(ETH0)), a(Endpoint::Nic(NET1)), a(Endpoint::Node));
        let by_eth0 = format!("via {} dev eth0 onlink src {eth0}", n.eth_gateway);
        let by_net1 = format!("via {} dev net1 src {net1}", n.gateway);
        let default = if setting.default_on == "eth0" { &by_eth0 } else { &by_net1 };
        let (ip, rule) =
            (format!("ip -n {pod_ns} {} route add", n.ip), format!("ip -n {pod_ns} {} rule add", n.ip));
        writeln!(
            s,
            "{ip} default {default}\n\
             {ip} default {by_eth0} table 101\n\
             {ip} {} dev net1 src {net1} table 102\n\
             {ip} default {by_net1} table 102\n\
             {ip} default via {} dev sp0 onlink table 103",
            n.subnet, n.node_end,
        )
        .unwrap();
        for (_, mark) in MARKS {
            writeln!(s, "{rule} pref 100 fwmark {mark} lookup {}", 100 + mark).unwrap();
        }
        // The subnet of net1 is within a steered CIDR, and the node in that subnet.
        writeln!(s, "{rule} pref 300 from {eth0} lookup 101\n{rule} pref 301 from {net1} lookup 102")
            .unwrap();
        writeln!(s, "{rule} pref 200 to {node} lookup 101\n{rule} pref 201 to {} goto 300", n.subnet)
            .unwrap();
        for cidr in n.cidrs {
            writeln!(s, "{rule} pref 202 to {cidr} lookup 101").unwrap();
        }
    }
    // Conntrack takes what it has not seen begin for a flow otherwise.
    writeln!(s, "ip netns exec {pod_ns} nft -f - <<'END'\n{}\nEND", ruleset(setting)).unwrap();
    writeln!(s, "ip netns exec {pod_ns} sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0").unwrap();
    sh(s);
}

fn ruleset(setting: Setting) -> String {
    let (low, high) = EPHEMERAL_PORTS;
    let s = &mut String::from("table inet routing {\n");
    let (mut raw, mut own, mut unknown, mut nat) =
        (String::new(), String::new(), String::new(), String::new());
    for family in FAMILIES {
        let n = names(family);
        let Names { nft, nft_type, own: set, cidrs: [services, ..], .. } = *n;
        let a = |place| at(place, family);
        let (eth0, net1, node) = (a(Endpoint::Nic(ETH0)), a(Endpoint::Nic(NET1)), a(Endpoint::Node));
        writeln!(
            s,
            "set {set} {{ type {nft_type} . inet_service . inet_service; flags dynamic; size 65535; }}"
        )
        .unwrap();
        let proto = if family == Family::V4 { "ipv4" } else { "ipv6" };
        // "cluster-address", "ephemeral-udp", "own-flow" and "service-caller" of the table of differences.
        writeln!(
            raw,
            "iifname net1 {nft} daddr {eth0} drop\n\
             iifname net1 meta nfproto {proto} udp dport {low}-{high} notrack\n\
             iifname sp0 {nft} saddr != {node} udp dport {low}-{high} notrack\n\
             iifname net1 {nft} saddr . udp dport . udp sport @{set} notrack\n\
             iifname sp0 {nft} saddr != {node} {nft} saddr . udp dport . udp sport @{set} notrack\n\
             iifname net1 {nft} saddr {services} meta l4proto udp notrack"
        )
        .unwrap();
        writeln!(
            own,
            "meta nfproto {proto} ct state new ct direction original udp sport < {low} udp dport < {low} \
             update @{set} {{ {nft} daddr . udp sport . udp dport }}"
        )
        .unwrap();
        if !setting.hints {
            // What would be translated without a rule for the destination.
            let all = n.cidrs.iter().filter(|_| setting.default_on == "net1");
            let steered = all.map(|cidr| format!("{nft} daddr {cidr} {nft} daddr != {}", n.subnet));
            for destination in steered.chain([format!("{nft} daddr {node}")]) {
                writeln!(
                    own,
                    "{destination} ct state new ct direction original udp sport < {low} \
                     update @{set} {{ {nft} daddr . udp sport . udp dport }}"
                )
                .unwrap();
            }
        }
        // "unknown-flow" and "translation".
        writeln!(unknown, "{nft} saddr {net1} ct state invalid meta mark set 2").unwrap();
        writeln!(
            nat,
            "oifname eth0 {nft} saddr {net1} meta l4proto udp update @{set} {{ {nft} daddr . udp sport . udp dport }}\n\
             oifname eth0 {nft} saddr {net1} snat {nft} to {eth0}"
        )
        .unwrap();
    }
    writeln!(
        s,
        "chain incoming {{ type filter hook prerouting priority raw;\n{raw}}}\n\
         chain marks {{ type filter hook prerouting priority mangle;\n\
         iifname eth0 ct direction original ct mark set 1\n\
         iifname sp0 ct direction original ct mark set 3\n\
         iifname net1 ct direction original ct state new ct mark 0 ct mark set 2\n\
         iifname net1 ct direction original tcp flags & (syn | ack) == syn ct mark set 2\n}}\n\
         chain begun {{ type filter hook output priority mangle - 1;\n{own}}}\n\
         chain replies {{ type route hook output priority mangle;\n{unknown}\
         ct direction reply ct mark != 0 meta mark set ct mark\n}}\n\
         chain translation {{ type nat hook postrouting priority srcnat;\n{nat}}}\n}}"
    )
    .unwrap();
    std::mem::take(s)
}
