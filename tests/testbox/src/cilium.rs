//! What Cilium sets up for a pod and on a node: eth0 behind a host end `lxc*` that lets nothing pass but packets
//! from and to eth0's own addresses.

use std::net::IpAddr;

/// The first letters of host ends.
pub const PREFIX: &str = "lxc";
/// Room for the overlay's header.
pub const MTU: u32 = 1450;
const TABLE: &str = "cilium-like";

/// Sysctls of a host end.
pub fn host_sysctls(host_end: &str) -> [String; 2] {
    [format!("ipv6/conf/{host_end}/proxy_ndp=1"), format!("ipv6/neigh/{host_end}/proxy_delay=0")]
}

/// What ip(8) does in the pod; the next hop is the node's address in its own pod CIDR. None without such a one.
pub fn pod_script(nic: &str, addresses: &[IpAddr], routers: &[IpAddr]) -> Option<String> {
    let of = |address: &IpAddr| {
        let router = routers.iter().find(|router| router.is_ipv4() == address.is_ipv4())?;
        Some(match address {
            IpAddr::V4(address) => format!(
                "addr add {address}/32 dev {nic}
                route add {router} dev {nic} scope link
                route add default via {router} dev {nic}\n"
            ),
            IpAddr::V6(address) => format!(
                "addr add {address}/128 dev {nic} nodad
                route add {router} dev {nic}
                route add ::/0 via {router} dev {nic}\n"
            ),
        })
    };
    let up = format!("link set lo up\nlink set {nic} up\n");
    [Some(up)].into_iter().chain(addresses.iter().map(of)).collect()
}

/// What ip(8) does on the node: routes to the pod, and answers for the router, whose address is on another NIC.
pub fn host_routes(host_end: &str, addresses: &[IpAddr], routers: &[IpAddr]) -> String {
    let route = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!("route add {address}/32 dev {host_end} scope link\n"),
        IpAddr::V6(address) => format!("route add {address}/128 dev {host_end}\n"),
    };
    let proxies = routers.iter().filter(|router| router.is_ipv6());
    let proxies = proxies.map(|router| format!("neigh add proxy {router} dev {host_end}\n"));
    addresses.iter().map(route).chain(proxies).collect()
}

/// What ip(8) does once on a node: the pair of NICs that bears the router's addresses.
pub fn router_script([v4, v6]: [IpAddr; 2]) -> String {
    format!(
        "link add cilium_host type veth peer name cilium_net
        link set cilium_net up
        link set cilium_host up
        addr add {v4}/32 dev cilium_host
        addr add {v6}/128 dev cilium_host nodad"
    )
}

/// Rules of a node: the drops at host ends, and masquerading of what leaves the overlay.
pub fn rules([v4, v6]: [&str; 2]) -> String {
    let neighbors = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept";
    format!(
        "table inet {TABLE} {{
            set endpoints4 {{ type ifname . ipv4_addr; }}
            set endpoints6 {{ type ifname . ipv6_addr; }}
            chain from-pod {{
                {neighbors}
                meta nfproto ipv4 iifname . ip saddr != @endpoints4 drop
                meta nfproto ipv6 iifname . ip6 saddr != @endpoints6 drop
            }}
            chain to-pod {{
                {neighbors}
                meta nfproto ipv4 oifname . ip daddr != @endpoints4 drop
                meta nfproto ipv6 oifname . ip6 daddr != @endpoints6 drop
            }}
            chain prerouting {{
                type filter hook prerouting priority raw;
                iifname \"{PREFIX}*\" jump from-pod
            }}
            chain postrouting {{
                type filter hook postrouting priority filter;
                oifname \"{PREFIX}*\" jump to-pod
            }}
            chain masquerading {{
                type nat hook postrouting priority srcnat;
                ip saddr {v4} ip daddr != {v4} masquerade
                ip6 saddr {v6} ip6 daddr != {v6} masquerade
            }}
        }}"
    )
}

/// The rule set's change for a pod that comes.
pub fn add_endpoint(host_end: &str, address: IpAddr) -> String {
    change_endpoint("add", host_end, address)
}

/// The rule set's change for a pod that goes, also if it has gone before: nft deletes nothing that is not there, and
/// adds what is there already.
pub fn remove_endpoint(host_end: &str, address: IpAddr) -> String {
    ["add", "delete"].map(|change| change_endpoint(change, host_end, address)).concat()
}

fn change_endpoint(change: &str, host_end: &str, address: IpAddr) -> String {
    let family = if address.is_ipv4() { 4 } else { 6 };
    format!("{change} element inet {TABLE} endpoints{family} {{ \"{host_end}\" . {address} }}\n")
}
