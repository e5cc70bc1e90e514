//! The entries of an endpoint, one per NIC.

use std::sync::Arc;

use spiderpool_core::ip::Family;
use spiderpool_core::ipam::response::{NicRoute, RouteOrigin};
use spiderpool_core::ipam::{
    Allocated, DefaultRoute, Holding, PodAnnotations, Pool, Response, build_response,
};
use spiderpool_core::names::PoolName;

use crate::crd::{EndpointIp, Route as CrdRoute};

/// The entries of a pod's endpoint, from what the pod holds; `find_pool` gives what is known of a pool.
pub fn restore<H: AsRef<Holding>>(
    holdings: impl IntoIterator<Item = H>,
    annotations: &PodAnnotations,
    find_pool: impl Fn(&PoolName) -> Option<Arc<Pool>>,
) -> Vec<EndpointIp> {
    let mut allocated: Vec<Allocated> = Vec::new();
    for holding in holdings {
        let Holding { nic, pool, address, is_detached, .. } = holding.as_ref();
        // The next ADD says it, if one follows.
        if *is_detached {
            continue;
        }
        let family = Family::of_net(address);
        // Two for one NIC and family: only the next ADD knows which one stays.
        if allocated.iter().any(|other| other.nic == *nic && Family::of_net(&other.address) == family) {
            continue;
        }
        let found = find_pool(pool);
        let named = annotations.ippools.iter().flatten().find(|entry| entry.nic == *nic);
        allocated.push(Allocated {
            default_route: named.map_or(DefaultRoute::Keep, |entry| entry.default_route),
            nic: nic.clone(),
            address: *address,
            pool: pool.clone(),
            gateway: found.as_ref().and_then(|pool| pool.gateway),
            routes: found.map(|pool| pool.routes.clone()).unwrap_or_default(),
        });
    }
    endpoint_ips(&build_response(allocated, &annotations.routes))
}

/// Whether an endpoint lacks an address that it should name.
pub fn lacks(known: &[EndpointIp], wanted: &[EndpointIp]) -> bool {
    wanted.iter().any(|entry| {
        let same = known.iter().find(|known| known.interface == entry.interface);
        same.is_none_or(|known| (&known.ipv4, &known.ipv6) != (&entry.ipv4, &entry.ipv6))
    })
}

/// The endpoint's entries, one per NIC in the order of the addresses. An entry with a gateway has the default route.
pub fn endpoint_ips(response: &Response) -> Vec<EndpointIp> {
    let mut entries: Vec<EndpointIp> = Vec::new();
    for allocated in &response.addresses {
        let name = allocated.nic.as_str();
        let place = entries.iter().position(|entry| entry.interface == name).unwrap_or_else(|| {
            entries.push(EndpointIp { interface: name.to_owned(), ..EndpointIp::default() });
            entries.len() - 1
        });
        add(&mut entries[place], allocated);
    }
    for NicRoute { nic, route, origin } in &response.routes {
        let entry = entries.iter_mut().find(|entry| entry.interface == nic.as_str());
        if let Some(entry) = entry.filter(|_| *origin == RouteOrigin::Listed) {
            entry.routes.push(CrdRoute { dst: route.dst.to_string(), gw: route.gw.to_string() });
        }
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
}

/// Entries of an endpoint after an ADD that spoke of some of its NICs.
pub fn merge(mut known: Vec<EndpointIp>, new: &[EndpointIp]) -> Vec<EndpointIp> {
    for entry in new {
        match known.iter_mut().find(|old| old.interface == entry.interface) {
            Some(old) => old.clone_from(entry),
            None => known.push(entry.clone()),
        }
    }
    known
}

/// Entries of an endpoint without these addresses.
pub fn without(mut known: Vec<EndpointIp>, freed: &[Holding]) -> Vec<EndpointIp> {
    for Holding { nic, address, .. } in freed {
        for entry in known.iter_mut().filter(|entry| entry.interface == nic.as_str()) {
            let named = match Family::of_net(address) {
                Family::V4 => (&mut entry.ipv4, &mut entry.ipv4_pool, &mut entry.ipv4_gateway),
                Family::V6 => (&mut entry.ipv6, &mut entry.ipv6_pool, &mut entry.ipv6_gateway),
            };
            if named.0.as_deref().and_then(|text| text.parse().ok()) == Some(*address) {
                (*named.0, *named.1, *named.2) = (None, None, None);
            }
        }
    }
    known.retain(|entry| entry.ipv4.is_some() || entry.ipv6.is_some());
    known
}
