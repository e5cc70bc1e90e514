//! What a pod holds, as it is told to the plugin.

use spiderpool_api::agent::ipam::{IpConfig, IpamAddResponse, Route as WireRoute};
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::Response;

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
    IpamAddResponse { ips: ips.collect(), routes: routes.collect(), ..IpamAddResponse::default() }
}

#[cfg(test)]
mod tests {
    use spiderpool_api::endpoint::endpoint_ips;
    use spiderpool_core::ipam::candidates::DefaultRoute;
    use spiderpool_core::ipam::{Allocated, Route, build_response};

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
        let entries = endpoint_ips(&response);
        assert_eq!((entries[0].routes.len(), entries[1].routes.len()), (0, 1));
    }
}
