//! Which NIC has the default route, per family.
//!
//! The others keep theirs with a low priority: a socket that is bound to such a NIC, and `bpf_redirect_neigh`
//! without a next hop, find their way by it. No further table, no rule.

use std::net::IpAddr;

use super::{Namespace, PlanError, Step};
use crate::Unsupported;
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{Address, Route};

/// Metric from which on a default route of ours is one that steps back. Two with the same metric would be
/// refused (IPv4) or be one multipath route (IPv6), so each has its own.
pub const BACKUP_METRIC: u32 = 4096;

/// Who should have the default route.
#[derive(Debug, Clone, Copy)]
pub struct Preference<'a> {
    /// The NIC that the configuration names; where it has none of a family, nothing moves.
    pub wanted: Option<&'a IfName>,
    /// The NIC that is being set up: its default route is new and takes nobody's place unasked.
    pub nic: &'a IfName,
    /// The NIC that the main CNI plugin made.
    pub first_nic: &'a IfName,
}

impl Preference<'_> {
    /// The NIC that shall have the default route of a family; `None` if no NIC has one.
    ///
    /// Without a word in the configuration it stays where it is: a NIC that an earlier attachment named keeps it.
    pub fn owner<'r>(&self, routes: &'r [Route], family: Family) -> Option<&'r IfName> {
        let defaults = || routes.iter().filter(|r| r.is_default() && r.family() == family);
        let named = self.wanted.and_then(|wanted| defaults().find(|r| r.dev == *wanted));
        // One that stepped back has lost it, the new one comes behind those that were there.
        let rank =
            |r: &&Route| (r.metric >= BACKUP_METRIC, r.dev == *self.nic, r.metric, r.dev != *self.first_nic);
        named.or_else(|| defaults().min_by_key(rank)).map(|r| &r.dev)
    }
}

/// Gives the default route of each family to its owner.
pub fn plan_default_routes(routes: &[Route], preference: &Preference<'_>) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    for family in Family::ALL {
        plan_family(routes, family, preference, &mut steps)?;
    }
    Ok(steps)
}

fn plan_family(
    routes: &[Route],
    family: Family,
    preference: &Preference<'_>,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let Some(owner) = preference.owner(routes, family) else { return Ok(()) };
    let defaults: Vec<_> = routes.iter().filter(|r| r.is_default() && r.family() == family).collect();
    let (own, others): (Vec<&Route>, Vec<&Route>) = defaults.iter().copied().partition(|r| r.dev == *owner);
    let mut metrics: Vec<u32> = defaults.iter().map(|r| r.metric).collect();
    for route in others.into_iter().filter(|r| r.metric < BACKUP_METRIC) {
        let metric = (BACKUP_METRIC..u32::MAX).find(|m| !metrics.contains(m)).unwrap_or(BACKUP_METRIC);
        metrics.push(metric);
        replace(route, metric, steps)?;
    }
    if let Some(low) = own.iter().min_by_key(|r| r.metric).filter(|r| is_low(r)) {
        replace(low, normal_metric(family), steps)?;
    }
    Ok(())
}

/// Default routes that stepped back, for packets with such a NIC's own IPv6 address.
///
/// `bpf_redirect_neigh` looks an IPv6 destination up without regard to the device where the packet has a source
/// (`ip6_route_output_flags()` in net/ipv6/route.c asks for the device only then), so it would find the owner's
/// default route. These it finds, and so does the kernel for a socket that is bound to the address, and for what is answered
/// from there: it does not wait for the gateway of another NIC.
pub fn plan_source_specific_defaults(routes: &[Route], addresses: &[Address<IfName>]) -> Vec<Step> {
    let of = |dev: &IfName| {
        let own = addresses.iter().filter(|a| a.dev == *dev).map(|a| a.net.addr()).collect::<Vec<_>>();
        own.into_iter().filter(|a| matches!(a, IpAddr::V6(v6) if !v6.is_unicast_link_local()))
    };
    let low = routes.iter().filter(|r| r.is_default() && r.family() == Family::V6 && is_low(r));
    let wanted: Vec<Route> =
        low.flat_map(|r| of(&r.dev).map(|from| Route { from: Some(from), ..r.clone() })).collect();
    let present: Vec<&Route> = routes.iter().filter(|r| r.from.is_some() && r.is_ours()).collect();
    let gone = present
        .iter()
        .filter(|r| !wanted.contains(r))
        .map(|r| Step::DeleteRoute { namespace: Namespace::Pod, route: (**r).clone() });
    let new = wanted.iter().filter(|r| !present.contains(r));
    let new = new.map(|r| Step::AddRoute { namespace: Namespace::Pod, route: r.clone() });
    gone.chain(new).collect()
}

/// Whether the route is one that stepped back.
fn is_low(route: &Route) -> bool {
    route.is_ours() && route.metric >= BACKUP_METRIC
}

/// What the kernel makes of a route without a metric.
fn normal_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}

fn replace(route: &Route, metric: u32, steps: &mut Vec<Step>) -> Result<(), PlanError> {
    if route.is_hop {
        // The route goes as a whole, with its other next hops.
        return Err(Unsupported::MultipathDefaultRoute(route.dev.clone()).into());
    }
    let new = Route { metric, ..Route::new(route.dst, route.dev.clone()) };
    let new =
        Route { gateway: route.gateway, source: route.source, onlink: route.onlink, mtu: route.mtu, ..new };
    steps.push(Step::AddRoute { namespace: Namespace::Pod, route: new });
    steps.push(Step::DeleteRoute { namespace: Namespace::Pod, route: route.clone() });
    Ok(())
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
        check_add(routes, "net1", Some(wanted), expect)
    }

    /// ADD of `added`, whose configuration names `wanted`.
    #[track_caller]
    fn check_add(routes: &[Route], added: &str, wanted: Option<&str>, expect: &[&str]) -> Vec<Route> {
        let (added, wanted, first_nic) = (nic(added), wanted.map(nic), nic("eth0"));
        let preference = Preference { wanted: wanted.as_ref(), nic: &added, first_nic: &first_nic };
        let plan = plan_default_routes(routes, &preference).unwrap();
        let mut after = project(routes, &plan);
        assert_eq!(plan_default_routes(&after, &preference), Ok(vec![]));
        after.sort_by_key(|r| r.metric);
        let shown: Vec<_> = after.iter().map(|r| format!("{} {}", r.dev, r.metric)).collect();
        assert_eq!(shown, expect);
        after
    }

    /// A net1-bound IPv6 socket to the outside hung: the redirect found eth0's default route.
    #[test]
    fn an_ipv6_default_that_stepped_back_is_there_for_the_nics_own_addresses() {
        let address = |dev: &str, net: &str| Address::new(nic(dev), net.parse().unwrap());
        let addresses = [
            address("eth0", "fd44::2/128"),
            address("net1", "fe80::1/64"),
            address("net1", "fd66::a:1/64"),
            address("net1", "10.6.0.9/16"),
        ];
        let low = Route { protocol: crate::net::ROUTE_PROTOCOL, ..default("net1", "fd66::1", BACKUP_METRIC) };
        let routes = [default("eth0", "fe80::ecee:eeff:feee:eeee", 1024), low];
        let plan = |routes: &[Route]| plan_source_specific_defaults(routes, &addresses);
        let steps = plan(&routes);
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["pod: route add default from fd66::a:1 via fd66::1 dev net1 metric 4096 proto 0x53"]
        );
        let after = project(&routes, &steps);
        assert_eq!(plan(&after), [], "planning again changes nothing");
        let without = [after[0].clone(), after[2].clone()];
        assert_eq!(plan(&without).len(), 1, "it goes with the route that it stands for");
        // Also eth0's, for what is answered with its address.
        let low = Route {
            protocol: crate::net::ROUTE_PROTOCOL,
            ..default("eth0", "fe80::ecee:eeff:feee:eeee", BACKUP_METRIC)
        };
        let steps = plan(&[default("net1", "fd66::1", 1024), low]);
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "pod: route add default from fd44::2 via fe80::ecee:eeff:feee:eeee dev eth0 metric 4096 onlink proto 0x53"
            ]
        );
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

    /// The configurations of two attachments differ: the one that says nothing changes nothing.
    #[test]
    fn keeps_the_default_route_without_a_preference() {
        let routes = [default("net1", "10.6.0.1", 0), default("eth0", "169.254.1.1", 0)];
        check_add(&routes, "net1", None, &["eth0 0", "net1 4096"]);
        let routes = check_add(&routes, "net1", Some("net1"), &["net1 0", "eth0 4096"]);
        let routes = [vec![default("net2", "10.7.0.1", 0)], routes].concat();
        let routes = check_add(&routes, "net2", None, &["net1 0", "eth0 4096", "net2 4097"]);
        check_add(&routes, "net1", None, &["net1 0", "eth0 4096", "net2 4097"]);
        check_add(&routes, "net2", Some("net9"), &["net1 0", "eth0 4096", "net2 4097"]);
    }

    #[test]
    fn a_hop_of_a_multipath_route_is_not_moved_alone() {
        let hop = |gateway| Route { is_hop: true, ..default("net1", gateway, 0) };
        let routes = [default("eth0", "169.254.1.1", 100), hop("10.6.0.1"), hop("10.6.0.2")];
        check(&routes, "net1", &["net1 0", "net1 0", "eth0 4096"]);
        let (eth0, net1) = (nic("eth0"), nic("net1"));
        let preference = Preference { wanted: Some(&eth0), nic: &net1, first_nic: &eth0 };
        let error = plan_default_routes(&routes, &preference).unwrap_err().to_string();
        assert!(error.contains("net1") && error.contains("multipath"), "{error}");
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
    fn splits_merged_ipv6_default_routes() {
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
