//! Route hints: plain routes in the pod's main table by the cluster NIC.
//!
//! They decide nothing, the programs do. They make the kernel choose the right source address, MTU and
//! neighbor up front, so that there is nothing to translate and nothing waits for the underlay's gateway.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::coordinator::{Namespace, Step};
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{Address, Route};

/// What the hints depend on.
#[derive(Debug, Clone, Copy)]
pub struct HintInputs<'a> {
    /// The NIC that reaches Services and the node.
    pub cluster_nic: &'a IfName,
    /// The pod's first NIC: in overlay mode the same; in underlay mode, where the cluster NIC has no address and no default
    /// route of its own, the NIC whose address is the source.
    pub first_nic: &'a IfName,
    /// The pod's addresses.
    pub addresses: &'a [Address<IfName>],
    /// The pod's unicast routes of the main table.
    pub routes: &'a [Route],
    /// Where to hint at: CIDRs of Services and overlay pods. None of these and no nodes: hints are removed.
    pub cidrs: &'a [IpNet],
    /// Addresses of the pod's node.
    pub nodes: &'a [IpAddr],
}

/// Whether a route is a hint.
pub fn is_hint(route: &Route, cluster_nic: &IfName) -> bool {
    route.is_ours() && route.dev == *cluster_nic && !route.is_default()
}

/// Adds the hints that are needed and removes those that are not any more.
///
/// A destination needs one if the pod's other routes send it by another NIC: the default route is there, or a
/// subnet or route that covers it. So does every one whose family has source-specific defaults (IPv6): a socket that is
/// bound to an underlay address, or answers from there, would wait for the underlay's gateway, although the programs send
/// its packets elsewhere. A route to exactly the destination is somebody's decision and stays.
pub fn plan_route_hints(inputs: &HintInputs<'_>) -> Vec<Step> {
    let (present, others): (Vec<_>, Vec<_>) =
        inputs.routes.iter().partition(|r| r.from.is_none() && is_hint(r, inputs.cluster_nic));
    let (others, by_source): (Vec<_>, Vec<_>) = others.into_iter().partition(|r| r.from.is_none());
    let mut wanted: Vec<Route> = Vec::new();
    for dst in inputs.cidrs.iter().copied().chain(inputs.nodes.iter().copied().map(IpNet::from)) {
        let Some(hint) = hint(inputs, &others, &by_source, dst.trunc()) else { continue };
        if !wanted.contains(&hint) {
            wanted.push(hint);
        }
    }
    let gone = present.iter().filter(|r| !wanted.contains(r));
    let gone = gone.map(|r| Step::DeleteRoute { namespace: Namespace::Pod, route: (**r).clone() });
    let new = wanted.iter().filter(|r| !present.contains(r));
    let new = new.map(|r| Step::AddRoute { namespace: Namespace::Pod, route: r.clone() });
    // What changes its gateway or source has the same destination and metric: out first, then in.
    gone.chain(new).collect()
}

fn hint(inputs: &HintInputs<'_>, others: &[&Route], by_source: &[&Route], dst: IpNet) -> Option<Route> {
    if others.iter().any(|r| r.dst == dst) {
        return None;
    }
    if inputs.first_nic == inputs.cluster_nic {
        overlay_hint(inputs, others, by_source, dst)
    } else {
        underlay_hint(inputs, dst)
    }
}

fn overlay_hint(
    inputs: &HintInputs<'_>,
    others: &[&Route],
    by_source: &[&Route],
    dst: IpNet,
) -> Option<Route> {
    let family = Family::of_net(&dst);
    let covering = others.iter().filter(|r| r.family() == family && r.dst.contains(&dst));
    let best = covering.max_by_key(|r| (r.dst.prefix_len(), std::cmp::Reverse(r.metric)))?;
    // Of two routes the longer destination wins, whatever their sources.
    let by_source = by_source.iter().any(|r| r.dst.prefix_len() == 0 && r.family() == family);
    if best.dev == *inputs.cluster_nic && !(best.is_default() && by_source) {
        return None;
    }
    let default = others
        .iter()
        .filter(|r| r.is_default() && r.family() == family && r.dev == *inputs.cluster_nic)
        .min_by_key(|r| r.metric)?;
    let source = source(inputs, family)?;
    Some(Route {
        gateway: default.gateway,
        onlink: default.onlink,
        source: Some(source),
        ..route(inputs, dst)
    })
}

/// No other route leads to the node by veth0. The next hop to a CIDR is an address of the node only to name a permanent
/// neighbor, the MAC of the host end.
fn underlay_hint(inputs: &HintInputs<'_>, dst: IpNet) -> Option<Route> {
    let family = Family::of_net(&dst);
    // Without a source the kernel would take one that a router has advertised later, which the host end does not know.
    let source = Some(source(inputs, family)?);
    if inputs.nodes.iter().any(|node| IpNet::from(*node) == dst) {
        return Some(Route { source, ..route(inputs, dst) });
    }
    let gateway = inputs.nodes.iter().copied().find(|node| Family::of(*node) == family)?;
    Some(Route { gateway: Some(gateway), onlink: true, source, ..route(inputs, dst) })
}

/// The first address of the first NIC.
fn source(inputs: &HintInputs<'_>, family: Family) -> Option<IpAddr> {
    let own = inputs.addresses.iter().filter(|a| a.dev == *inputs.first_nic).map(|a| a.net);
    own.filter(|net| Family::of_net(net) == family).map(|net| net.addr()).find(|addr| !is_link_local(*addr))
}

fn route(inputs: &HintInputs<'_>, dst: IpNet) -> Route {
    let metric = if Family::of_net(&dst) == Family::V6 { 1024 } else { 0 }; // as the kernel lists it
    Route { metric, ..Route::new(dst, inputs.cluster_nic.clone()) }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::{Preference, plan_default_routes, project};

    fn nic(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn route(dst: &str, dev: &str, gateway: Option<&str>) -> Route {
        let gateway = gateway.map(|g| g.parse().unwrap());
        Route { protocol: 2, gateway, ..Route::new(dst.parse().unwrap(), nic(dev)) }
    }

    /// A pod of a Calico-like node with a macvlan NIC, dual stack, the default route on `owner`.
    fn pod(owner: &str) -> (Vec<Address<IfName>>, Vec<Route>) {
        let addresses =
            [("eth0", "10.233.73.210/32"), ("eth0", "fd00:233::210/128"), ("net1", "10.6.212.145/16")];
        let addresses = addresses.map(|(dev, net)| Address::new(nic(dev), net.parse().unwrap())).to_vec();
        let mut routes = vec![
            route("0.0.0.0/0", "eth0", Some("169.254.1.1")),
            Route { metric: 1024, ..route("::/0", "eth0", Some("fe80::ecee:eeff:feee:eeee")) },
            route("169.254.1.1/32", "eth0", None),
            route("0.0.0.0/0", "net1", Some("10.6.0.1")),
            route("10.6.0.0/16", "net1", None),
        ];
        let (wanted, net1, first_nic) = (nic(owner), nic("net1"), nic("eth0"));
        let preference = Preference { wanted: Some(&wanted), nic: &net1, first_nic: &first_nic };
        let steps = plan_default_routes(&routes, &preference).unwrap();
        routes = project(&routes, &steps);
        (addresses, routes)
    }

    #[track_caller]
    fn check(owner: &str, extra: &[Route], cidrs: &[&str], nodes: &[&str], expect: &[&str]) {
        let (addresses, mut routes) = pod(owner);
        routes.extend_from_slice(extra);
        let (cidrs, nodes): (Vec<_>, Vec<_>) = (
            cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            nodes.iter().map(|n| n.parse().unwrap()).collect(),
        );
        let eth0 = nic("eth0");
        let mut inputs = HintInputs {
            cluster_nic: &eth0,
            first_nic: &eth0,
            addresses: &addresses,
            routes: &routes,
            cidrs: &cidrs,
            nodes: &nodes,
        };
        let steps = plan_route_hints(&inputs);
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(shown, expect);
        let after = project(&routes, &steps);
        inputs.routes = &after;
        assert_eq!(plan_route_hints(&inputs), [], "planning again changes nothing");
        inputs.cidrs = &[];
        inputs.nodes = &[];
        let none = project(&after, &plan_route_hints(&inputs));
        assert!(!none.iter().any(|r| is_hint(r, &eth0)), "all hints are found again");
    }

    #[test]
    fn with_the_default_on_net1_every_destination_is_hinted() {
        check(
            "net1",
            &[],
            &["10.233.0.0/18", "10.233.64.0/18"],
            &["10.6.212.132"],
            &[
                "pod: route add 10.233.0.0/18 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
                "pod: route add 10.233.64.0/18 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
                "pod: route add 10.6.212.132/32 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
            ],
        );
    }

    #[test]
    fn with_the_default_on_eth0_only_what_the_underlay_subnet_covers() {
        check(
            "eth0",
            &[],
            &["10.233.0.0/18", "10.6.64.0/18", "10.0.0.0/8"],
            &["10.6.212.132", "172.18.0.3"],
            &[
                "pod: route add 10.6.64.0/18 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
                "pod: route add 10.6.212.132/32 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
            ],
        );
    }

    #[test]
    fn ipv6_is_hinted_where_its_default_is_on_net1() {
        let extra = [Route { metric: 512, ..route("::/0", "net1", Some("fd00:6::1")) }];
        check(
            "eth0",
            &extra,
            &["fd00:96::/108"],
            &[],
            &[
                "pod: route add fd00:96::/108 via fe80::ecee:eeff:feee:eeee dev eth0 src fd00:233::210 metric 1024 proto 0x53",
            ],
        );
    }

    /// The kernel would choose it for sockets that are bound to net1, and wait for its gateway.
    #[test]
    fn ipv6_is_hinted_against_source_specific_defaults() {
        let extra = [
            Route { metric: 4096, ..route("::/0", "net1", Some("fd00:6::1")) },
            Route {
                metric: 4096,
                from: Some("fd00:6::145".parse().unwrap()),
                protocol: crate::net::ROUTE_PROTOCOL,
                ..route("::/0", "net1", Some("fd00:6::1"))
            },
        ];
        check(
            "eth0",
            &extra,
            &["fd00:96::/108", "10.233.0.0/18"],
            &["fd00:172::3"],
            &[
                "pod: route add fd00:96::/108 via fe80::ecee:eeff:feee:eeee dev eth0 src fd00:233::210 metric 1024 proto 0x53",
                "pod: route add fd00:172::3/128 via fe80::ecee:eeff:feee:eeee dev eth0 src fd00:233::210 metric 1024 proto 0x53",
            ],
        );
    }

    #[test]
    fn a_pool_route_to_the_same_destination_stays() {
        check("net1", &[route("10.233.0.0/18", "net1", Some("10.6.0.9"))], &["10.233.0.0/18"], &[], &[]);
    }

    #[test]
    fn a_wider_route_by_net1_is_hinted_against() {
        check(
            "eth0",
            &[route("10.0.0.0/8", "net1", Some("10.6.0.9"))],
            &["10.233.0.0/18"],
            &[],
            &["pod: route add 10.233.0.0/18 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53"],
        );
    }

    #[test]
    fn a_changed_service_cidr_replaces_the_old_hint() {
        let old = Route {
            source: Some("10.233.73.210".parse().unwrap()),
            protocol: crate::net::ROUTE_PROTOCOL,
            ..route("10.96.0.0/12", "eth0", Some("169.254.1.1"))
        };
        check(
            "net1",
            &[old],
            &["10.112.0.0/12"],
            &[],
            &[
                "pod: route del 10.96.0.0/12 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
                "pod: route add 10.112.0.0/12 via 169.254.1.1 dev eth0 src 10.233.73.210 proto 0x53",
            ],
        );
    }

    /// In underlay mode the node's address in the pod's own subnet, too: a macvlan NIC never reaches it.
    #[test]
    fn underlay_pods_reach_node_and_cluster_by_veth0_with_the_first_nics_address() {
        let (veth0, eth0) = (nic("veth0"), nic("eth0"));
        let addresses = [
            ("lo", "127.0.0.1/8"),
            ("lo", "::1/128"),
            ("eth0", "10.6.212.145/16"),
            ("eth0", "fd00:6::145/64"),
            ("net1", "10.7.0.5/16"),
        ];
        let addresses = addresses.map(|(dev, net)| Address::new(nic(dev), net.parse().unwrap()));
        let routes = [
            route("0.0.0.0/0", "eth0", Some("10.6.0.1")),
            route("10.6.0.0/16", "eth0", None),
            route("10.96.5.0/24", "net1", Some("10.7.0.1")),
        ];
        let cidrs = ["10.233.0.0/18", "10.96.5.0/24", "fd00:96::/108"].map(|cidr| cidr.parse().unwrap());
        let nodes = ["10.6.212.132", "172.18.0.3", "fd00:172::3"].map(|node| node.parse().unwrap());
        let inputs = HintInputs {
            cluster_nic: &veth0,
            first_nic: &eth0,
            addresses: &addresses,
            routes: &routes,
            cidrs: &cidrs,
            nodes: &nodes,
        };
        let steps = plan_route_hints(&inputs);
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "pod: route add 10.233.0.0/18 via 10.6.212.132 dev veth0 src 10.6.212.145 onlink proto 0x53",
                "pod: route add fd00:96::/108 via fd00:172::3 dev veth0 src fd00:6::145 metric 1024 onlink proto 0x53",
                "pod: route add 10.6.212.132/32 dev veth0 src 10.6.212.145 proto 0x53",
                "pod: route add 172.18.0.3/32 dev veth0 src 10.6.212.145 proto 0x53",
                "pod: route add fd00:172::3/128 dev veth0 src fd00:6::145 metric 1024 proto 0x53",
            ]
        );
        let after = project(&routes, &steps);
        assert_eq!(plan_route_hints(&HintInputs { routes: &after, ..inputs }), []);
        // A pod of one family has an address of the other on lo.
        let of_v4: Vec<_> = addresses.iter().filter(|a| a.net != addresses[3].net).cloned().collect();
        let steps = plan_route_hints(&HintInputs { addresses: &of_v4, ..inputs });
        assert!(steps.len() == 3 && !steps.iter().any(|step| step.to_string().contains("fd00")), "{steps:?}");
        let none = plan_route_hints(&HintInputs { routes: &after, cidrs: &[], nodes: &[], ..inputs });
        assert_eq!(project(&after, &none), routes);
    }
}
