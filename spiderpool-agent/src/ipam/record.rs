//! What a pod holds, as it is told to the plugin and recorded in its SpiderEndpoint.

use spiderpool_api::agent::ipam::{IpConfig, IpamAddResponse, Route as WireRoute};
use spiderpool_api::crd::{EndpointIp, Route as CrdRoute};
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::candidates::DefaultRoute;
use spiderpool_core::ipam::{Allocated, Response, Route};

/// The plugin's answer.
pub(super) fn answer(response: &Response) -> IpamAddResponse {
    let ips = response.addresses.iter().map(|allocated| IpConfig {
        version: Family::of_net(&allocated.address).version(),
        address: allocated.address.to_string(),
        nic: allocated.nic.to_string(),
        ip_pool: allocated.pool.to_string(),
        gateway: allocated.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        ..IpConfig::default()
    });
    let routes = response.routes.iter().map(|route| WireRoute {
        if_name: route.nic.to_string(),
        dst: route.route.dst.to_string(),
        gw: route.route.gw.to_string(),
    });
    IpamAddResponse { ips: ips.collect(), routes: routes.collect() }
}

/// The endpoint's entries, one per NIC in the order of the addresses.
pub(super) fn endpoint_ips(addresses: &[Allocated]) -> Vec<EndpointIp> {
    let mut entries: Vec<EndpointIp> = Vec::new();
    for allocated in addresses {
        let name = allocated.nic.as_str();
        let place = entries.iter().position(|entry| entry.interface == name).unwrap_or_else(|| {
            entries.push(EndpointIp { interface: name.to_owned(), ..EndpointIp::default() });
            entries.len() - 1
        });
        add(&mut entries[place], allocated);
    }
    entries
}

fn add(entry: &mut EndpointIp, allocated: &Allocated) {
    let (address, pool) = (Some(allocated.address.to_string()), Some(allocated.pool.to_string()));
    let gateway = allocated.gateway.map(|gateway| gateway.to_string());
    if gateway.is_some() && entry.clean_gateway.is_none() {
        entry.clean_gateway = Some(allocated.default_route == DefaultRoute::Clean);
    }
    match Family::of_net(&allocated.address) {
        Family::V4 => (entry.ipv4, entry.ipv4_pool, entry.ipv4_gateway) = (address, pool, gateway),
        Family::V6 => (entry.ipv6, entry.ipv6_pool, entry.ipv6_gateway) = (address, pool, gateway),
    }
    let route = |route: &Route| CrdRoute { dst: route.dst.to_string(), gw: route.gw.to_string() };
    entry.routes.extend(allocated.routes.iter().map(route));
}

/// Entries of an endpoint after an ADD that spoke of some of its NICs.
pub(super) fn merge(mut known: Vec<EndpointIp>, new: &[EndpointIp]) -> Vec<EndpointIp> {
    for entry in new {
        match known.iter_mut().find(|old| old.interface == entry.interface) {
            Some(old) => old.clone_from(entry),
            None => known.push(entry.clone()),
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use spiderpool_core::ipam::build_response;

    use super::*;

    fn allocated(nic: &str, address: &str, gateway: Option<&str>, default_route: DefaultRoute) -> Allocated {
        Allocated {
            nic: nic.parse().unwrap(),
            address: address.parse().unwrap(),
            pool: "p".parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            routes: vec![],
            default_route,
        }
    }

    #[test]
    fn both_families_of_a_nic_share_an_entry() {
        let addresses = [
            allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep),
            allocated("net1", "10.7.0.9/16", None, DefaultRoute::Keep),
            allocated("eth0", "fd00::9/64", Some("fd00::1"), DefaultRoute::Keep),
        ];
        let entries = endpoint_ips(&addresses);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].ipv4.as_deref(), Some("10.6.0.9/16"));
        assert_eq!(entries[0].ipv6_gateway.as_deref(), Some("fd00::1"));
        assert_eq!((entries[0].clean_gateway, entries[1].clean_gateway), (Some(false), None));
    }

    #[test]
    fn the_answer_has_default_routes_the_endpoint_has_not() {
        let keep = allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep);
        let clean = allocated("net1", "10.7.0.9/16", Some("10.7.0.1"), DefaultRoute::Clean);
        let custom = Route::parse("192.0.2.0/24", "10.7.0.1").unwrap();
        let response = build_response(vec![keep, clean], &[custom]);
        let routes: Vec<_> = answer(&response)
            .routes
            .iter()
            .map(|route| format!("{} {} {}", route.if_name, route.dst, route.gw))
            .collect();
        assert_eq!(routes, ["eth0 0.0.0.0/0 10.6.0.1", "net1 192.0.2.0/24 10.7.0.1"]);
        let entries = endpoint_ips(&response.addresses);
        assert_eq!((entries[0].routes.len(), entries[1].routes.len()), (0, 1));
    }

    #[test]
    fn a_later_nic_joins_the_entry_of_the_first() {
        let first = endpoint_ips(&[allocated("eth0", "10.6.0.9/16", None, DefaultRoute::Keep)]);
        let second = endpoint_ips(&[allocated("net1", "10.7.0.9/16", None, DefaultRoute::Keep)]);
        let both = merge(first, &second);
        assert_eq!(both.len(), 2);
        assert_eq!(merge(both.clone(), &second), both);
    }
}
