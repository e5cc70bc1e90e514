//! What a network on Open vSwitch, such as Kube-OVN, sets up for a pod and on a node: a switch whose router is a port
//! of its own.
//!
//! A Linux bridge is the switch. What a dataplane has to cope with: the next hop is in the pod's subnet and has a MAC
//! of its own, which is not that of the host end of eth0; other pods of the node are neighbors; what is sent to the MAC
//! of the host end or of the switch goes nowhere; a port lets nothing pass but packets from and to its own MAC and
//! addresses; what goes to the underlay is not masqueraded.

use std::net::IpAddr;

/// The first letters of host ends.
pub const PREFIX: &str = "ovn";
/// Room for the overlay's header.
pub const MTU: u32 = 1450;
/// The switch.
pub const SWITCH: &str = "br-int";
/// The router's NIC on the node, with the pods' gateway addresses.
pub const ROUTER: &str = "ovn0";
/// Its port of the switch.
pub const ROUTER_PORT: &str = "ovn0-port";
const ROUTER_MAC: &str = "02:53:00:6f:76:6e";
const TABLE: &str = "ovs-like";

/// Sysctls of a node: the switch's packets are not the node's to filter (br_netfilter is on in a new namespace).
pub const SYSCTLS: &[&str] = &["bridge/bridge-nf-call-iptables=0", "bridge/bridge-nf-call-ip6tables=0"];

/// What ip(8) does in the pod. Prefixes are those of the pods' subnet. None without routers.
pub fn pod_script(nic: &str, addresses: &[IpAddr], routers: &[IpAddr]) -> Option<String> {
    let of = |address: &IpAddr| {
        let router = routers.iter().find(|router| router.is_ipv4() == address.is_ipv4())?;
        Some(match address {
            IpAddr::V4(address) => format!(
                "addr add {address}/24 dev {nic}
                route add default via {router} dev {nic}\n"
            ),
            IpAddr::V6(address) => format!(
                "addr add {address}/64 dev {nic} nodad
                route add ::/0 via {router} dev {nic}\n"
            ),
        })
    };
    let up = format!("link set lo up\nlink set {nic} up\n");
    [Some(up)].into_iter().chain(addresses.iter().map(of)).collect()
}

/// What ip(8) does once on a node.
pub fn router_script([v4, v6]: [IpAddr; 2]) -> String {
    format!(
        "link add {SWITCH} type bridge mcast_snooping 0
        link set {SWITCH} arp off up
        link add {ROUTER} address {ROUTER_MAC} mtu {MTU} type veth peer name {ROUTER_PORT}
        link set {ROUTER_PORT} mtu {MTU} master {SWITCH} up
        link set {ROUTER} up
        addr add {v4}/24 dev {ROUTER}
        addr add {v6}/64 dev {ROUTER} nodad"
    )
}

/// Rules of a node: the switch itself is no host, ports are secured, and what leaves the overlay is masqueraded unless
/// it goes to the underlay.
pub fn rules([v4, v6]: [&str; 2], underlay: &[String]) -> String {
    let of_family = |v4: bool| {
        let nets: Vec<_> =
            underlay.iter().filter(|net| net.contains(':') != v4).map(String::as_str).collect();
        nets.join(", ")
    };
    let (underlay4, underlay6) = (of_family(true), of_family(false));
    format!(
        "table inet {TABLE} {{
            chain prerouting {{
                type filter hook prerouting priority raw;
                iifname {SWITCH} drop
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {v4} ip daddr != {{ {v4}, {underlay4} }} masquerade
                ip6 saddr {v6} ip6 daddr != {{ {v6}, {underlay6} }} masquerade
            }}
        }}
        table bridge {TABLE} {{
            set endpoints4 {{ type ifname . ether_addr . ipv4_addr; }}
            set endpoints6 {{ type ifname . ether_addr . ipv6_addr; }}
            chain from-pod {{
                type filter hook prerouting priority filter;
                iifname {ROUTER_PORT} accept
                ether type arp iifname . ether saddr . arp saddr ip @endpoints4 accept
                ether type ip iifname . ether saddr . ip saddr @endpoints4 accept
                ip6 saddr fe80::/10 accept
                ip6 saddr :: icmpv6 type {{ nd-neighbor-solicit, nd-router-solicit, mld2-listener-report }} accept
                ether type ip6 iifname . ether saddr . ip6 saddr @endpoints6 accept
                drop
            }}
            chain to-pod {{
                type filter hook postrouting priority filter;
                oifname {ROUTER_PORT} accept
                ether type ip oifname . ether daddr . ip daddr != @endpoints4 drop
                ip6 daddr {{ fe80::/10, ff00::/8 }} accept
                ether type ip6 oifname . ether daddr . ip6 daddr != @endpoints6 drop
            }}
        }}"
    )
}

/// The rule set's change for a pod that comes.
pub fn add_endpoint(host_end: &str, mac: &str, address: IpAddr) -> String {
    change_endpoint("add", host_end, mac, address)
}

/// The rule set's change for a pod that goes.
pub fn remove_endpoint(host_end: &str, mac: &str, address: IpAddr) -> String {
    change_endpoint("delete", host_end, mac, address)
}

fn change_endpoint(change: &str, host_end: &str, mac: &str, address: IpAddr) -> String {
    let family = if address.is_ipv4() { 4 } else { 6 };
    format!("{change} element bridge {TABLE} endpoints{family} {{ \"{host_end}\" . {mac} . {address} }}\n")
}
