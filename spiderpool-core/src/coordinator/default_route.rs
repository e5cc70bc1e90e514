//! Which NIC has the default route, per family.
//!
//! The others keep theirs with a low priority: a socket that is bound to such a NIC, and `bpf_redirect_neigh`
//! without a next hop, find their way by it. No further table, no rule.

use super::{Place, Step};
use crate::ip::Family;
use crate::names::IfName;
use crate::net::Route;

/// Metric from which on a default route of ours is one that steps back. Two with the same metric would be
/// refused (IPv4) or be one multipath route (IPv6), so each has its own.
pub const LOW_METRIC: u32 = 4096;

/// Gives the default route to `wanted`, or to `first_nic` where `wanted` has none of the family.
pub fn plan_default_routes(routes: &[Route], wanted: &IfName, first_nic: &IfName) -> Vec<Step> {
    Family::ALL.iter().flat_map(|family| plan_family(routes, *family, wanted, first_nic)).collect()
}

fn plan_family(routes: &[Route], family: Family, wanted: &IfName, first_nic: &IfName) -> Vec<Step> {
    let defaults: Vec<_> = routes.iter().filter(|r| r.is_default() && r.family() == family).collect();
    let has = |nic: &IfName| defaults.iter().any(|r| r.dev == *nic);
    let Some(owner) = [wanted, first_nic]
        .into_iter()
        .find(|nic| has(nic))
        .or_else(|| defaults.iter().min_by_key(|r| r.metric).map(|r| &r.dev))
    else {
        return Vec::new();
    };
    let (own, others): (Vec<&Route>, Vec<&Route>) = defaults.iter().copied().partition(|r| r.dev == *owner);
    let mut metrics: Vec<u32> = defaults.iter().map(|r| r.metric).collect();
    let mut steps = Vec::new();
    for route in others.into_iter().filter(|r| r.metric < LOW_METRIC) {
        let metric = (LOW_METRIC..u32::MAX).find(|m| !metrics.contains(m)).unwrap_or(LOW_METRIC);
        metrics.push(metric);
        replace(route, metric, &mut steps);
    }
    if let Some(low) = own.iter().min_by_key(|r| r.metric).filter(|r| is_low(r)) {
        replace(low, normal_metric(family), &mut steps);
    }
    steps
}

/// Whether the route is one that stepped back.
fn is_low(route: &Route) -> bool {
    route.is_ours() && route.metric >= LOW_METRIC
}

/// What the kernel makes of a route without a metric.
fn normal_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}

fn replace(route: &Route, metric: u32, steps: &mut Vec<Step>) {
    let new = Route { metric, ..Route::new(route.dst, route.dev.clone()) };
    let new =
        Route { gateway: route.gateway, source: route.source, onlink: route.onlink, mtu: route.mtu, ..new };
    steps.push(Step::AddRoute { place: Place::Pod, route: new });
    steps.push(Step::DeleteRoute { place: Place::Pod, route: route.clone() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::project;

    fn nic(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn default(dev: &str, gateway: &str, metric: u32) -> Route {
        let gateway = gateway.parse().unwrap();
        let family = Family::of(gateway);
        Route {
            gateway: Some(gateway),
            metric,
            protocol: 3,
            onlink: dev == "eth0",
            ..Route::new(family.default_route(), nic(dev))
        }
    }

    /// The defaults after the plan, lowest metric first; planning again changes nothing.
    #[track_caller]
    fn check(routes: &[Route], wanted: &str, expect: &[&str]) -> Vec<Route> {
        let plan = plan_default_routes(routes, &nic(wanted), &nic("eth0"));
        let mut after = project(routes, &plan);
        assert_eq!(plan_default_routes(&after, &nic(wanted), &nic("eth0")), []);
        after.sort_by_key(|r| r.metric);
        let shown: Vec<_> = after.iter().map(|r| format!("{} {}", r.dev, r.metric)).collect();
        assert_eq!(shown, expect);
        after
    }

    #[test]
    fn the_first_nic_keeps_it_and_the_other_steps_back() {
        let routes = [default("net1", "10.6.0.1", 0), default("eth0", "169.254.1.1", 0)];
        let after = check(&routes, "eth0", &["eth0 0", "net1 4096"]);
        assert_eq!(after[0].protocol, 3, "not touched");
        assert_eq!(after[1].gateway, routes[0].gateway);
    }

    #[test]
    fn it_moves_to_the_nic_named_and_back() {
        let routes = [default("net1", "10.6.0.1", 0), default("eth0", "169.254.1.1", 0)];
        let moved = check(&routes, "net1", &["net1 0", "eth0 4096"]);
        assert!(moved[1].onlink, "flags are kept");
        check(&moved, "eth0", &["eth0 0", "net1 4097"]);
    }

    /// Upstream fails the ADD of net1 when the annotation names net2, so that the pod never starts.
    #[test]
    fn a_nic_that_is_not_there_yet_does_not_fail_the_one_before() {
        let routes = [default("net1", "10.6.0.1", 0), default("eth0", "169.254.1.1", 0)];
        let after = check(&routes, "net2", &["eth0 0", "net1 4096"]);
        let routes = [after, vec![default("net2", "10.7.0.1", 0)]].concat();
        check(&routes, "net2", &["net2 0", "net1 4096", "eth0 4097"]);
    }

    #[test]
    fn each_family_is_decided_alone() {
        let routes = [
            default("eth0", "169.254.1.1", 0),
            default("eth0", "fe80::1", 1024),
            default("net1", "10.6.0.1", 0),
        ];
        check(&routes, "net1", &["net1 0", "eth0 1024", "eth0 4096"]);
    }

    #[test]
    fn merged_ipv6_defaults_are_parted() {
        let routes = [default("eth0", "fe80::1", 1024), default("net1", "fd00:6::1", 1024)];
        check(&routes, "eth0", &["eth0 1024", "net1 4096"]);
        check(&routes, "net1", &["net1 1024", "eth0 4096"]);
    }

    #[test]
    fn a_pod_without_defaults_stays_so() {
        check(&[], "net1", &[]);
        check(&[default("net1", "10.6.0.1", 0)], "eth0", &["net1 0"]);
    }
}
