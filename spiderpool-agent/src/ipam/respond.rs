//! The last stage of an ADD: the pod's addresses, for the plugin's result and the pod's SpiderEndpoint.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use spiderpool_api::agent::ipam::{IpConfig, IpamAddResponse, Route as WireRoute};
use spiderpool_api::endpoint::{Record, endpoint_ips};
use spiderpool_core::detection::Timing;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::plan::pool_of_held;
use spiderpool_core::ipam::{Allocated, PoolCandidates, Response, build_response};
use tracing::warn;

use super::allocator::AddressObject;
use super::endpoint_queue::EndpointQueue;
use super::error::AllocateError;
use super::request::AllocationRequest;
use crate::watches::PoolSpecs;

/// Answers requests.
pub(super) struct Responder {
    pub(super) pool_specs: PoolSpecs,
    pub(super) endpoints: Arc<EndpointQueue>,
    /// Whether the kernel probes for other owners of a pod's IPv6 addresses.
    pub(super) duplicate_address_detection: bool,
    pub(super) detection: Detection,
}

/// What the plugin probes for on the link before a pod uses its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    /// Others that use an address.
    pub conflicts: bool,
    /// The gateway.
    pub gateways: bool,
    /// How.
    pub timing: Timing,
}

impl Responder {
    /// The answer for a pod that holds these addresses, with what their pools say now. Its endpoint follows, unless it is
    /// still that of the pod that its virtual machine moves from.
    pub(super) async fn respond(
        &self,
        request: &AllocationRequest,
        served: &[(PoolCandidates, AddressObject)],
        is_guest: bool,
    ) -> Result<IpamAddResponse, AllocateError> {
        let mut allocated = Vec::with_capacity(served.len());
        for (candidate, object) in served {
            let name = &object.holding.pool;
            let entry = self.pool_specs.get(name).await;
            let entry = entry.map_err(|source| AllocateError::ReadPool { pool: name.clone(), source })?;
            let pool = pool_of_held(&object.holding, entry);
            let pool = pool.map_err(|error| AllocateError::Ipam(vec![error]))?;
            allocated.push(Allocated {
                nic: candidate.nic.clone(),
                address: object.holding.address,
                pool: name.clone(),
                gateway: pool.gateway,
                routes: pool.routes.clone(),
                default_route: candidate.default_route,
            });
        }
        let response = build_response(allocated, &request.annotations.routes);
        for route in &response.unplaced {
            warn!(%route, "route of the pod's annotation has its next hop in no subnet of the pod and is left out");
        }
        if !is_guest {
            let owner = &request.claimant.owner;
            self.endpoints.put(Record::new(&request.pod, owner, endpoint_ips(&response), request.lifetime));
        }
        // The other pod answers for them until the machine has moved.
        let shared = served.iter().filter(|(_, object)| request.shares(object));
        let shared: BTreeSet<_> = shared.map(|(_, object)| object.holding.ip()).collect();
        let of_nic = response.addresses.iter().filter(|allocated| allocated.nic == request.nic);
        let is_shared = of_nic.into_iter().any(|allocated| shared.contains(&allocated.address.addr()));
        Ok(IpamAddResponse {
            enable_duplicate_address_detection: Some(self.duplicate_address_detection && !is_shared),
            announce: is_shared.then_some(false),
            ..answer(&response, self.detection, &shared)
        })
    }
}

/// The plugin's answer. For `shared` addresses, which another pod uses rightly, nobody is asked: not for others that have them, and
/// not for their gateway either, as who asks it says that the address is now at his MAC.
fn answer(response: &Response, detection: Detection, shared: &BTreeSet<IpAddr>) -> IpamAddResponse {
    let ips = response.addresses.iter().map(|allocated| {
        let is_shared = shared.contains(&allocated.address.addr());
        IpConfig {
            version: Family::of_net(&allocated.address).version(),
            address: allocated.address.to_string(),
            nic: allocated.nic.to_string(),
            ip_pool: allocated.pool.to_string(),
            gateway: allocated.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            enable_ip_conflict_detection: detection.conflicts && !is_shared,
            enable_gateway_detection: detection.gateways && allocated.gateway.is_some() && !is_shared,
            ..IpConfig::default()
        }
    });
    let routes = response.routes.iter().map(|route| WireRoute {
        if_name: route.nic.to_string(),
        dst: route.route.dst.to_string(),
        gw: route.route.gw.to_string(),
    });
    let is_on = detection.conflicts || detection.gateways;
    IpamAddResponse {
        ips: ips.collect(),
        routes: routes.collect(),
        detection: is_on.then(|| detection.timing.into()),
        ..IpamAddResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spiderpool_api::endpoint::endpoint_ips;
    use spiderpool_core::ipam::DefaultRoute;
    use spiderpool_core::ipam::{Allocated, IpamRoute, build_response};

    use super::*;

    const OFF: Detection = Detection {
        conflicts: false,
        gateways: false,
        timing: Timing { probes: 5, interval: Duration::from_millis(70) },
    };

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
    fn the_answer_has_default_routes_the_endpoint_has_not() {
        let keep = allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep);
        let clean = allocated("net1", "10.7.0.9/16", Some("10.7.0.1"), DefaultRoute::Clean);
        let custom = IpamRoute::parse("192.0.2.0/24", "10.7.0.1").unwrap();
        let response = build_response(vec![keep, clean], &[custom]);
        let routes: Vec<_> = answer(&response, OFF, &BTreeSet::new())
            .routes
            .iter()
            .map(|route| format!("{} {} {}", route.if_name, route.dst, route.gw))
            .collect();
        assert_eq!(routes, ["eth0 0.0.0.0/0 10.6.0.1", "net1 192.0.2.0/24 10.7.0.1"]);
        let entries = endpoint_ips(&response);
        assert_eq!((entries[0].routes.len(), entries[1].routes.len()), (0, 1));
    }

    #[test]
    fn the_plugin_probes_for_what_is_configured_and_for_gateways_that_there_are() {
        let with = allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Clean);
        let without = allocated("eth0", "fd06::9/64", None, DefaultRoute::Keep);
        let response = build_response(vec![with, without], &[]);
        for (conflicts, gateways) in [(false, false), (true, false), (false, true), (true, true)] {
            let detection = Detection { conflicts, gateways, ..OFF };
            let answer = answer(&response, detection, &BTreeSet::new());
            let flags = |ip: &IpConfig| (ip.enable_ip_conflict_detection, ip.enable_gateway_detection);
            assert_eq!(
                (flags(&answer.ips[0]), flags(&answer.ips[1])),
                ((conflicts, gateways), (conflicts, false))
            );
            let timing = answer.detection.map(Timing::from);
            assert_eq!(timing, (conflicts || gateways).then_some(OFF.timing));
        }
    }

    #[test]
    fn of_an_address_that_a_virtual_machine_brings_along_nobody_is_asked() {
        let shared = allocated("net1", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Clean);
        let own = allocated("net1", "fd06::9/64", Some("fd06::1"), DefaultRoute::Keep);
        let others = [shared.address.addr()].into();
        let detection = Detection { conflicts: true, gateways: true, ..OFF };
        let answer = answer(&build_response(vec![shared, own], &[]), detection, &others);
        let flags = |ip: &IpConfig| (ip.enable_ip_conflict_detection, ip.enable_gateway_detection);
        assert_eq!((flags(&answer.ips[0]), flags(&answer.ips[1])), ((false, false), (true, true)));
    }
}
