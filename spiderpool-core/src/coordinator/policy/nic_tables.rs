//! The tables of the pod's NICs, and which NIC has the default route of the main table.

use super::cluster_routes::{self, ClusterNic};
use super::inputs::PolicyInputs;
use super::tables::{CLUSTER_TABLE, Tables, in_main, source_rule};
use crate::Unsupported;
use crate::coordinator::{BACKUP_METRIC, Namespace, PlanError, Step};
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{ROUTE_PROTOCOL, Route};

/// Fills the tables first, then adds the rules that ask them, and moves default routes last: at no time has a packet
/// nowhere to go. `main` is the main table without the cluster's routes.
pub(super) fn plan(
    inputs: &PolicyInputs<'_>,
    cluster: &ClusterNic<'_>,
    main: &[Route],
) -> Result<Vec<Step>, PlanError> {
    let pod = inputs.pod;
    let mut tables = Tables::new(pod, cluster.dev);
    let (mut steps, mut rules, mut moves) = (Vec::new(), Vec::new(), Vec::new());
    let mut nics = vec![&inputs.config.first_nic, inputs.nic];
    let made = cluster_routes::default_routes(inputs, cluster, CLUSTER_TABLE);
    let is_nics = |r: &&Route| {
        // The way back by the cluster NIC, where that has no default route of its own.
        r.is_ours() && !made.contains(r) && (*cluster.dev == inputs.config.first_nic || r.dev != *cluster.dev)
    };
    let moved: Vec<&Route> = pod.table_routes.iter().filter(is_nics).collect();
    for family in Family::ALL {
        let candidates = default_routes(&pod.routes, &moved, family);
        let Some(owner) = inputs.config.preference(inputs.nic).owner(&candidates, family) else { continue };
        let defaults = pod.routes.iter().filter(|r| r.is_default() && r.family() == family);
        for route in defaults.clone().filter(|r| r.dev != *owner) {
            if route.is_hop {
                // The route goes as a whole, with its other next hops.
                return Err(Unsupported::MultipathDefaultRoute(route.dev.clone()).into());
            }
            nics.push(&route.dev);
            moves.push(Step::DeleteRoute { namespace: Namespace::Pod, route: route.clone() });
        }
        if defaults.clone().all(|r| r.dev != *owner)
            && let Some(route) =
                moved.iter().find(|r| r.is_default() && r.family() == family && r.dev == *owner)
        {
            moves.insert(0, Step::AddRoute { namespace: Namespace::Pod, route: in_main(route) });
        }
    }
    let mut done: Vec<&IfName> = Vec::new();
    for nic in nics {
        if done.contains(&nic) {
            continue;
        }
        done.push(nic);
        let table = tables.of(nic);
        let wanted = table_routes(inputs, cluster, main, nic, table);
        let missing = wanted.into_iter().filter(|route| !pod.table_routes.contains(route));
        steps.extend(missing.map(|route| Step::AddRoute { namespace: Namespace::Pod, route }));
        let addresses = pod.usable_addresses(nic);
        let wanted = addresses.iter().map(|net| source_rule(net.addr(), table));
        let missing = wanted.filter(|rule| !pod.rules.contains(rule));
        rules.extend(missing.map(|rule| Step::AddRule { namespace: Namespace::Pod, rule }));
    }
    steps.extend(rules);
    steps.extend(moves);
    Ok(steps)
}

/// Fills the cluster NIC's table where it is no NIC of the pod's networks.
pub(super) fn plan_cluster_table(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>) -> Vec<Step> {
    let wanted = table_routes(inputs, cluster, &[], cluster.dev, CLUSTER_TABLE).into_iter();
    let missing = wanted.filter(|route| !inputs.pod.table_routes.contains(route));
    missing.map(|route| Step::AddRoute { namespace: Namespace::Pod, route }).collect()
}

/// The default routes of a family: those of the main table, and as such that stepped back those that are in tables only.
fn default_routes(main: &[Route], moved: &[&Route], family: Family) -> Vec<Route> {
    let is_default = |r: &Route| r.is_default() && r.family() == family;
    let mut found: Vec<Route> = main.iter().filter(|r| is_default(r)).cloned().collect();
    for route in moved.iter().filter(|r| is_default(r)) {
        if !found.iter().any(|r| r.dev == route.dev) {
            found.push(Route { metric: BACKUP_METRIC, ..(*route).clone() });
        }
    }
    found
}

/// What a NIC's table holds: copies of its own routes, and the way to the cluster, which by the cluster NIC itself is the
/// default route. The NIC's own routes win.
fn table_routes(
    inputs: &PolicyInputs<'_>,
    cluster: &ClusterNic<'_>,
    main: &[Route],
    nic: &IfName,
    table: u32,
) -> Vec<Route> {
    // The routes of ours by the cluster NIC are the cluster's.
    let is_own = |r: &&Route| r.dev == *nic && r.from.is_none() && !(r.is_ours() && *nic == *cluster.dev);
    let mut found: Vec<Route> = Vec::new();
    let mut own: Vec<&Route> = main.iter().filter(is_own).filter(|r| !is_link_local(r)).collect();
    own.sort_by_key(|r| r.gateway.is_some()); // what makes next hops reachable comes first
    for route in own {
        let copy = Route { table, protocol: ROUTE_PROTOCOL, is_hop: false, ..route.clone() };
        if !found.iter().any(|r| (r.dst, r.metric) == (copy.dst, copy.metric)) {
            found.push(copy);
        }
    }
    let to_cluster = if nic == cluster.dev {
        cluster_routes::default_routes(inputs, cluster, table)
    } else {
        cluster_routes::routes(inputs, cluster, table)
    };
    // One that was moved out of the main table is in this one alone.
    let is_there = |route: &Route| {
        let mut present = inputs.pod.table_routes.iter().filter(|r| r.table == table && *r != route);
        found.iter().any(|own| own.dst == route.dst) || present.any(|other| other.dst == route.dst)
    };
    let missing: Vec<Route> = to_cluster.into_iter().filter(|route| !is_there(route)).collect();
    found.into_iter().chain(missing).collect()
}

fn is_link_local(route: &Route) -> bool {
    matches!(route.dst, ipnet::IpNet::V6(v6) if v6.addr().is_unicast_link_local() || v6.addr().is_multicast())
}
