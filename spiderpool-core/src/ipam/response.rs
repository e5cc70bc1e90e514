//! The answer to the plugin: addresses, gateways and routes of the pod's NICs.

use std::net::IpAddr;

use ipnet::IpNet;

use super::default_route::DefaultRoute;
use super::route::IpamRoute;
use crate::ip::Family;
use crate::names::{IfName, PoolName};

/// An address that the pod has, with what its pool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// The NIC.
    pub nic: IfName,
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The pool.
    pub pool: PoolName,
    /// The pool's gateway.
    pub gateway: Option<IpAddr>,
    /// The pool's routes.
    pub routes: Vec<IpamRoute>,
    /// Whether the NIC gets a default route by that gateway.
    pub default_route: DefaultRoute,
}

/// A route with the NIC that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicRoute {
    /// The NIC.
    pub nic: IfName,
    /// The route.
    pub route: IpamRoute,
    /// Why the pod has it.
    pub origin: RouteOrigin,
}

/// Why a pod has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteOrigin {
    /// The pool's gateway.
    Gateway,
    /// The pool's routes, or the pod's annotation.
    Listed,
}

/// The answer to the plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The addresses.
    pub addresses: Vec<Allocated>,
    /// All routes, in the order of the addresses.
    pub routes: Vec<NicRoute>,
    /// Routes of the pod's annotation whose next hop is in no subnet of the pod; to be warned about.
    pub unplaced: Vec<IpamRoute>,
}

/// Puts together what the pod has. A route of the annotation goes to the first address in whose subnet its next
/// hop is.
pub fn build_response(addresses: Vec<Allocated>, custom: &[IpamRoute]) -> Response {
    let place =
        |route: &IpamRoute| addresses.iter().position(|allocated| allocated.address.contains(&route.gw));
    let placed: Vec<_> = custom.iter().map(|route| (place(route), *route)).collect();
    let mut routes = Vec::new();
    for (index, allocated) in addresses.iter().enumerate() {
        let own = placed.iter().filter(|(place, _)| *place == Some(index)).map(|(_, route)| *route);
        let listed = allocated.routes.iter().copied().chain(own).map(|route| (route, RouteOrigin::Listed));
        let gateway = default_route(allocated).map(|route| (route, RouteOrigin::Gateway));
        let nic = |(route, origin)| NicRoute { nic: allocated.nic.clone(), route, origin };
        routes.extend(listed.chain(gateway).map(nic));
    }
    let unplaced = placed.iter().filter(|(place, _)| place.is_none()).map(|(_, route)| *route).collect();
    Response { addresses, routes, unplaced }
}

fn default_route(allocated: &Allocated) -> Option<IpamRoute> {
    let gateway = allocated.gateway.filter(|_| allocated.default_route == DefaultRoute::Keep);
    gateway.map(|gw| IpamRoute { dst: Family::of(gw).default_route(), gw })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocated(nic: &str, address: &str, gateway: Option<&str>, default_route: DefaultRoute) -> Allocated {
        Allocated {
            nic: nic.parse().unwrap(),
            address: address.parse().unwrap(),
            pool: "p".parse().unwrap(),
            gateway: gateway.map(|g| g.parse().unwrap()),
            routes: Vec::new(),
            default_route,
        }
    }

    fn route(dst: &str, gw: &str) -> IpamRoute {
        IpamRoute::parse(dst, gw).unwrap()
    }

    fn texts(response: &Response) -> Vec<String> {
        response.routes.iter().map(|r| format!("{} {}", r.nic, r.route)).collect()
    }

    #[test]
    fn a_default_route_needs_a_gateway_and_leave() {
        let response = build_response(
            vec![
                allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep),
                allocated("eth0", "fd06::9/64", Some("fd06::1"), DefaultRoute::Keep),
                allocated("net1", "10.7.0.9/16", Some("10.7.0.1"), DefaultRoute::Clean),
                allocated("net2", "10.8.0.9/16", None, DefaultRoute::Keep),
            ],
            &[],
        );
        assert_eq!(texts(&response), ["eth0 0.0.0.0/0 via 10.6.0.1", "eth0 ::/0 via fd06::1"]);
    }

    #[test]
    fn routes_go_to_the_nic_that_reaches_their_next_hop() {
        let mut second = allocated("net1", "10.7.0.9/16", Some("10.7.0.1"), DefaultRoute::Clean);
        second.routes.push(route("10.9.0.0/16", "10.7.0.2"));
        let first = allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep);
        let custom = [
            route("192.168.0.0/16", "10.7.0.3"),
            route("172.16.0.0/12", "10.6.0.3"),
            route("fd00::/8", "fd99::1"),
        ];
        let response = build_response(vec![first, second], &custom);
        assert_eq!(
            texts(&response),
            [
                "eth0 172.16.0.0/12 via 10.6.0.3",
                "eth0 0.0.0.0/0 via 10.6.0.1",
                "net1 10.9.0.0/16 via 10.7.0.2",
                "net1 192.168.0.0/16 via 10.7.0.3",
            ]
        );
        assert_eq!(response.unplaced, [custom[2]]);
        let origins: Vec<_> = response.routes.iter().map(|route| route.origin).collect();
        assert_eq!(
            origins,
            [RouteOrigin::Listed, RouteOrigin::Gateway, RouteOrigin::Listed, RouteOrigin::Listed]
        );
    }

    #[test]
    fn invalid_routes_are_refused() {
        let error = |dst, gw| IpamRoute::parse(dst, gw).unwrap_err().to_string();
        assert!(error("10.0.0.0", "10.0.0.1").contains("destination \"10.0.0.0\""));
        assert!(error("10.0.0.0/8", "x").contains("gateway \"x\""));
        assert!(error("10.0.0.0/8", "fd00::1").contains("not of one family"));
    }
}
