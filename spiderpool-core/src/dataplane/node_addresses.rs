//! Which of the addresses on a node's devices are the node's own: pods reach them by their cluster NIC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::net::{Address, Link, Scope};

/// Dummy devices on which a service proxy (IPVS of kube-proxy, kube-router) keeps the addresses of Services.
const SERVICE_DEVICES: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

/// The node's own addresses among all that its devices have, in order. `uplinks` are the devices that
/// [`may_be_host_end`]s by which routes with a next hop or default routes go, `services` the Service CIDRs: a cache for
/// DNS has the address of the cluster's DNS Service on a device.
///
/// By scope, kind and place, never by the name of a device: a node's address may be on `lo`, on a dummy or on a bridge,
/// and the gateway that a bridge is for pods is an address of the node too. Nor by what pods say that they have: a pod could
/// take the node's addresses from all the others.
pub fn node_addresses<'a>(
    links: impl IntoIterator<Item = &'a Link>,
    addresses: &[Address],
    uplinks: &BTreeSet<u32>,
    services: &[IpNet],
) -> Vec<IpAddr> {
    let links: BTreeMap<u32, &Link> = links.into_iter().map(|link| (link.index, link)).collect();
    let own = |address: &&Address| {
        let link = links.get(&address.dev);
        let is_host_end = |link: &Link| is_host_end(link, addresses) && !uplinks.contains(&link.index);
        link.is_some_and(|link| !is_of_services(link) && !is_host_end(link))
    };
    let found: BTreeSet<IpAddr> = addresses
        .iter()
        .filter(own)
        // Whatever scope it was given: nobody else can use loopback and link-local addresses.
        .filter(|address| address.scope == Scope::Global && Scope::of(address.net.addr()) == Scope::Global)
        .map(|address| address.net.addr())
        .filter(|ip| !ip.is_multicast() && !ip.is_unspecified())
        .filter(|ip| !services.iter().any(|net| net.contains(ip)))
        .collect();
    found.into_iter().collect()
}

fn is_of_services(link: &Link) -> bool {
    link.kind == "dummy" && SERVICE_DEVICES.contains(&link.name.as_str())
}

/// Whether the device could be the node's end of a pod's veth or netkit pair: the other end is in another network namespace.
pub fn may_be_host_end(link: &Link) -> bool {
    link.is_one_of_a_pair() && link.peer_netns.is_some()
}

/// Whether it looks like the node's end of a pod's pair: it may be one, and it is a port of a bridge, or has
/// nothing but single addresses, which are next hops for the pod. The uplink of a node that is a container itself is
/// such a veth too, but has a subnet, or a next hop (LXD's `routed` NICs have a single address).
pub(super) fn is_host_end(link: &Link, addresses: &[Address]) -> bool {
    let has_subnet = || {
        let mut on_link = addresses.iter().filter(|a| a.dev == link.index && a.scope == Scope::Global);
        on_link.any(|a| a.net.prefix_len() < a.net.max_prefix_len())
    };
    may_be_host_end(link) && (link.master.is_some() || !has_subnet())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device by name and kind, with the index 7.
    fn link(name: &str, kind: &str) -> Link {
        Link::of_kind(name, 7, kind)
    }

    #[track_caller]
    fn check(link: &Link, addresses: &[&str], expect: &[&str]) {
        let addresses: Vec<_> =
            addresses.iter().map(|net| Address::new(link.index, net.parse().unwrap())).collect();
        let found = node_addresses([link], &addresses, &BTreeSet::new(), &[]);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expect, "{} {}", link.name, link.kind);
    }

    #[test]
    fn addresses_count_whatever_the_device_is_called() {
        for (name, kind) in [
            ("eth0", ""),
            ("bond0.100", "vlan"),
            ("tunl0", "ipip"),
            ("vxlan.calico", "vxlan"),
            ("lo", ""),
            ("lo1", "dummy"),
            ("dummy0", "dummy"),
            ("cni0", "bridge"),
            ("cni-mgmt", "bridge"),
            ("docker_gwbridge", "bridge"),
            ("virbr0", "bridge"),
            ("cilium_host", "veth"),
            ("veth0", "veth"),
            ("kube-ipvs0", "bridge"),
        ] {
            check(&link(name, kind), &["10.6.0.1/16"], &["10.6.0.1"]);
            check(&link(name, kind), &["10.6.0.1/32", "fd00::1/128"], &["10.6.0.1", "fd00::1"]);
        }
    }

    #[test]
    fn addresses_of_services_do_not_count() {
        check(&link("kube-ipvs0", "dummy"), &["10.96.0.10/32"], &[]);
        check(&link("kube-dummy-if", "dummy"), &["10.96.0.10/32"], &[]);
    }

    /// NodeLocal DNSCache: its device has the ClusterIP of the DNS Service too.
    #[test]
    fn addresses_in_service_cidrs_do_not_count() {
        let addresses = ["10.6.0.1/16", "10.96.0.10/32", "169.254.20.10/32"]
            .map(|net| Address::new(7, net.parse().unwrap()));
        let services = ["10.96.0.0/12".parse().unwrap()];
        let found = node_addresses([&link("nodelocaldns", "dummy")], &addresses, &BTreeSet::new(), &services);
        assert_eq!(found, ["10.6.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn addresses_that_do_not_reach_beyond_host_or_link_do_not_count() {
        let on_lo = ["127.0.0.1/8", "::1/128", "169.254.20.10/32", "fe80::1/64"];
        check(&link("lo", ""), &on_lo, &[]);
        let scopes = [(Scope::Global, 1), (Scope::Link, 0), (Scope::Host, 0)];
        for (scope, count) in scopes {
            // Whoever adds 127.0.0.2 may give it any scope.
            let addresses = ["10.6.0.1/32", "127.0.0.2/8"]
                .map(|net| Address { scope, ..Address::new(7, net.parse().unwrap()) });
            let found = node_addresses([&link("lo", "")], &addresses, &BTreeSet::new(), &[]);
            assert_eq!(found.len(), count, "{scope:?}");
        }
    }

    #[test]
    fn the_nodes_ends_of_pods_veth_pairs_do_not_count_a_nodes_own_veth_does() {
        let veth = Link { peer_netns: Some(3), ..link("veth1a2b3c4d", "veth") };
        check(&veth, &["10.244.1.1/32", "fd44::1/128"], &[]);
        check(&Link { master: Some(9), ..veth.clone() }, &["10.244.1.1/24"], &[]);
        // The uplink of a node that is a container, with a virtual address.
        let uplink = Link { name: "eth0".parse().unwrap(), ..veth };
        check(&uplink, &["172.18.0.2/16", "172.18.0.99/32"], &["172.18.0.2", "172.18.0.99"]);
    }

    /// LXD's `routed` NICs; the other end of a veth cannot be told from a pod's.
    #[test]
    fn the_single_address_of_a_veth_by_which_the_node_reaches_a_next_hop_counts() {
        let uplink = Link { peer_netns: Some(3), ..link("eth0", "veth") };
        let addresses = [Address::new(7, "10.20.0.5/32".parse().unwrap())];
        let count = |uplinks: &[u32]| {
            let uplinks = uplinks.iter().copied().collect();
            node_addresses([&uplink], &addresses, &uplinks, &[]).len()
        };
        assert_eq!((count(&[7]), count(&[8]), count(&[])), (1, 0, 0));
    }

    #[test]
    fn an_address_of_an_unknown_device_does_not_count() {
        let address = Address::new(8, "10.6.0.1/16".parse().unwrap());
        assert!(node_addresses([&link("eth0", "")], &[address], &BTreeSet::new(), &[]).is_empty());
    }
}
