//! What was found in the kernel before planning.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Namespace, Step};
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{Address, Link, MAIN_TABLE, Neighbor, Route, Rule};

/// A network namespace, or those of its links that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceState {
    /// Its links.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address<IfName>>,
    /// Unicast routes of the main table.
    pub routes: Vec<Route>,
    /// Permanent neighbors.
    pub neighbors: Vec<Neighbor>,
    /// Rules of policy routing.
    pub rules: Vec<Rule>,
    /// Unicast routes of further tables.
    pub table_routes: Vec<Route>,
}

impl NamespaceState {
    /// The link of this name.
    pub fn link(&self, name: &IfName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == *name)
    }

    /// The link of this name, for a name that is a constant.
    pub fn has_link(&self, name: &str) -> bool {
        self.links.iter().any(|link| link.name.as_str() == name)
    }

    /// Puts a link's addresses in the order of `named`, which its IPAM gave, before all others: the kernel lists the
    /// newest first for IPv6, for example one that a router advertised.
    pub fn put_first(&mut self, name: &IfName, named: &[IpNet]) {
        let place = |a: &Address<IfName>| {
            let position = named.iter().position(|net| a.dev == *name && net.addr() == a.net.addr());
            position.unwrap_or(usize::MAX)
        };
        self.addresses.sort_by_key(place);
    }

    /// A link's addresses, IPv4 first, without link-local and multicast ones.
    pub fn usable_addresses(&self, name: &IfName) -> Vec<IpNet> {
        let mut found: Vec<_> = self
            .addresses
            .iter()
            .filter(|a| a.dev == *name && is_usable(a.net.addr()))
            .map(|a| a.net)
            .collect();
        found.sort_by_key(Family::of_net);
        found
    }
}

fn is_usable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_multicast() || v4.is_loopback()),
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_multicast() || v6.is_loopback()),
    }
}

/// The pod's routes of the main table as they are after `steps`.
pub fn project(routes: &[Route], steps: &[Step]) -> Vec<Route> {
    let mut routes = routes.to_vec();
    for step in steps.iter().filter(|step| is_of_main_table(step)) {
        match step {
            Step::AddRoute { namespace: Namespace::Pod, route }
            | Step::RestoreRoute { namespace: Namespace::Pod, route } => {
                routes.push(route.clone());
            }
            Step::ReplaceRoute { namespace: Namespace::Pod, route } => {
                routes.retain(|r| (r.dst, r.metric) != (route.dst, route.metric));
                routes.push(route.clone());
            }
            Step::DeleteRoute { namespace: Namespace::Pod, route } => routes.retain(|r| r != route),
            _ => {}
        }
    }
    routes
}

fn is_of_main_table(step: &Step) -> bool {
    match step {
        Step::AddRoute { route, .. }
        | Step::RestoreRoute { route, .. }
        | Step::ReplaceRoute { route, .. }
        | Step::DeleteRoute { route, .. } => route.table == MAIN_TABLE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_that_ipam_gave_come_first() {
        let address = |dev: &str, net: &str| Address::new(dev.parse().unwrap(), net.parse().unwrap());
        let mut pod = NamespaceState {
            addresses: vec![
                address("eth0", "10.6.0.5/32"),
                address("net1", "fd00:6::ff:fe00:1/64"),
                address("net1", "fd00:6::5/64"),
                address("net1", "10.6.0.9/16"),
                address("net1", "10.6.0.5/16"),
            ],
            ..NamespaceState::default()
        };
        let net1 = "net1".parse().unwrap();
        pod.put_first(&net1, &["10.6.0.5/16", "fd00:6::5/64"].map(|net| net.parse().unwrap()));
        let found: Vec<_> = pod.usable_addresses(&net1).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.6.0.5/16", "10.6.0.9/16", "fd00:6::5/64", "fd00:6::ff:fe00:1/64"]);
    }
}
