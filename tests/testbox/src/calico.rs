//! What Calico sets up for a pod and on a node: eth0 with a /32 and a /128 behind a strict host end.
//!
//! What a dataplane has to cope with: the pod's next hop is 169.254.1.1, answered by proxy ARP of the host end
//! `cali*`; the host end drops what does not come from the endpoint's own address (rp_filter 1) and bears no route
//! but the endpoint's own.

use std::net::IpAddr;

/// The first letters of host ends.
pub const PREFIX: &str = "cali";
/// Room for the overlay's header.
pub const MTU: u32 = 1450;
/// The MAC address of every host end, and the link-local address that follows from it: the pod's IPv6 next hop.
pub const HOST_MAC: &str = "ee:ee:ee:ee:ee:ee";
/// See [`HOST_MAC`].
pub const HOST_LINK_LOCAL: &str = "fe80::ecee:eeff:feee:eeee";
/// The pod's IPv4 next hop, which nobody has.
pub const HOST_V4: &str = "169.254.1.1";

/// Sysctls of a host end.
pub fn host_sysctls(host_end: &str) -> [String; 5] {
    [
        format!("ipv4/conf/{host_end}/proxy_arp=1"),
        format!("ipv4/conf/{host_end}/rp_filter=1"),
        format!("ipv4/neigh/{host_end}/proxy_delay=0"),
        format!("ipv6/conf/{host_end}/proxy_ndp=1"),
        format!("ipv6/neigh/{host_end}/proxy_delay=0"),
    ]
}

/// What ip(8) does in the pod.
pub fn pod_script(nic: &str, addresses: &[IpAddr]) -> String {
    let of = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!(
            "addr add {address}/32 dev {nic}
            route add {HOST_V4} dev {nic} scope link
            route add default via {HOST_V4} dev {nic}\n"
        ),
        IpAddr::V6(address) => format!(
            "addr add {address}/128 dev {nic} nodad
            route add {HOST_LINK_LOCAL} dev {nic}
            route add ::/0 via {HOST_LINK_LOCAL} dev {nic}\n"
        ),
    };
    let up = format!("link set lo up\nlink set {nic} up\n");
    addresses.iter().map(of).fold(up, |script, lines| script + &lines)
}

/// What ip(8) does on the node, once the pod has its addresses.
pub fn host_routes(host_end: &str, addresses: &[IpAddr]) -> String {
    let of = |address: &IpAddr| match address {
        IpAddr::V4(address) => format!("route add {address}/32 dev {host_end} scope link\n"),
        IpAddr::V6(address) => format!("route add {address}/128 dev {host_end}\n"),
    };
    addresses.iter().map(of).collect()
}

/// Rules of a node: what leaves the overlay carries the node's address (natOutgoing), and a host end drops what does
/// not come from its endpoint. For IPv4 that is rp_filter, for IPv6, where the kernel has none, a rule as here. What
/// connection tracking cannot place is dropped, as kube-proxy's iptables mode does and its nftables mode does not.
pub fn rules([v4, v6]: [&str; 2]) -> String {
    format!(
        "table inet calico-like {{
            chain prerouting {{
                type filter hook prerouting priority raw;
                iifname \"{PREFIX}*\" fib saddr . iif oif missing drop
            }}
            chain forward {{
                type filter hook forward priority filter;
                ct state invalid drop
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {v4} ip daddr != {v4} masquerade
                ip6 saddr {v6} ip6 daddr != {v6} masquerade
            }}
        }}"
    )
}

/// Rules of a node whose pools have natOutgoing off, over those of [`rules`].
pub fn without_masquerading() -> String {
    "flush chain inet calico-like postrouting".into()
}

/// Prefix and device of a line of `ip -o monitor route` that says that somebody, not the kernel, added a route on a
/// host end.
pub fn foreign_route(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let prefix = words.next()?;
    let kernels = ["Deleted", "local", "broadcast", "multicast", "anycast", "unreachable"];
    if kernels.contains(&prefix) || line.contains("proto kernel") {
        return None;
    }
    // Felix looks after the main table alone (and after those that it is given, for WireGuard).
    if words.clone().any(|word| word == "table") {
        return None;
    }
    let device = words.skip_while(|word| *word != "dev").nth(1)?;
    device.starts_with(PREFIX).then_some((prefix, device))
}

/// The option by which ip(8) deletes the route of such a line. A default route shows its family by its next hop only.
pub fn family_option(line: &str) -> &'static str {
    let mut words = line.split_whitespace();
    let prefix = words.next().unwrap_or_default();
    // An IPv4 route over an IPv6 next hop has `via inet6 fe80::1`.
    let hop = words.skip_while(|word| *word != "via").nth(1).unwrap_or_default();
    if prefix.contains(':') || hop.contains(':') { "-6" } else { "-4" }
}

/// Whether a route to `prefix` is one to an endpoint with these addresses.
pub fn is_own(prefix: &str, endpoint: &[IpAddr]) -> bool {
    let address = prefix.split('/').next().and_then(|address| address.parse().ok());
    address.is_some_and(|address| endpoint.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_is_seen_by_prefix_or_next_hop() {
        for (line, option) in [
            ("10.66.10.1 dev cali0123 scope link ", "-4"),
            ("fd66::a:1 dev cali0123 metric 1024 pref medium", "-6"),
            ("default via 169.254.1.1 dev cali0123 ", "-4"),
            ("default via fe80::1 dev cali0123 metric 1024 pref medium", "-6"),
            ("default via inet6 fe80::1 dev cali0123 ", "-4"),
        ] {
            assert_eq!(family_option(line), option, "{line}");
        }
    }

    #[test]
    fn routes_of_others_on_host_ends_are_noticed() {
        let foreign = |line| foreign_route(line);
        assert_eq!(foreign("10.66.10.1 dev cali0123 scope link "), Some(("10.66.10.1", "cali0123")));
        assert_eq!(
            foreign("fd66::a:1 dev cali0123 metric 1024 pref medium"),
            Some(("fd66::a:1", "cali0123"))
        );
        assert_eq!(foreign("Deleted 10.66.10.1 dev cali0123 scope link"), None);
        assert_eq!(foreign("fe80::/64 dev cali0123 proto kernel metric 256"), None);
        assert_eq!(foreign("10.66.10.1 dev veth0 scope link"), None);
        assert_eq!(foreign("10.66.10.1 dev cali0123 table 500 proto 0x53 scope link metric 7"), None);
        let endpoint = ["10.244.1.2".parse().unwrap(), "fd44:0:0:1::2".parse().unwrap()];
        assert!(is_own("10.244.1.2", &endpoint) && is_own("fd44:0:0:1::2/128", &endpoint));
        assert!(!is_own("10.66.10.1", &endpoint) && !is_own("default", &endpoint));
    }
}
