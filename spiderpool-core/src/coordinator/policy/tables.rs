//! Which table is whose, and the rules that ask it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::coordinator::{Namespace, NamespaceState, Step, VETH0};
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{MAIN_TABLE, PROTOCOL_BOOT, Route, Rule, Selector};

/// The table of the cluster NIC.
pub const CLUSTER_TABLE: u32 = 100;
/// The tables of underlay NICs begin here.
const FIRST_NIC_TABLE: u32 = 101;
/// The kernel's own tables begin here.
const KERNELS_TABLES: u32 = 253;
/// Priority of the rules by source address: after the one by mark. Where nobody says one the kernel takes the next below
/// the second rule's, so that they would come before it.
pub const SOURCE_RULE_PRIORITY: u32 = 32765;

/// The tables of the pod's NICs, those that are to be made included.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    pod: &'a NamespaceState,
    given: Vec<(IfName, u32)>,
}

impl<'a> Tables<'a> {
    /// `cluster_nic` is the NIC whose table is [`CLUSTER_TABLE`].
    pub(super) fn new(pod: &'a NamespaceState, cluster_nic: &IfName) -> Self {
        Self { pod, given: vec![(cluster_nic.clone(), CLUSTER_TABLE)] }
    }

    /// The NIC's table: the one that its rules ask or its routes are in, otherwise the first that is nobody's. So it does
    /// not depend on how many links the pod has.
    pub(super) fn of(&mut self, nic: &IfName) -> u32 {
        let given = self.given.iter().find(|(name, _)| name == nic).map(|(_, table)| *table);
        let table = given.or_else(|| self.known(nic)).unwrap_or_else(|| self.unused());
        if given.is_none() {
            self.given.push((nic.clone(), table));
        }
        table
    }

    fn known(&self, nic: &IfName) -> Option<u32> {
        let addresses = self.pod.usable_addresses(nic);
        let rule = own_rules(self.pod).find(|rule| is_from(rule, &addresses));
        let mut routes = self.pod.table_routes.iter().filter(|r| r.is_ours() && r.table != CLUSTER_TABLE);
        rule.map(|rule| rule.table).or_else(|| routes.find(|r| r.dev == *nic).map(|r| r.table))
    }

    fn unused(&self) -> u32 {
        let is_used = |table: &u32| {
            self.given.iter().any(|(_, given)| given == table)
                || self.pod.rules.iter().any(|rule| rule.table == *table)
                || self.pod.table_routes.iter().any(|route| route.table == *table)
        };
        (FIRST_NIC_TABLE..KERNELS_TABLES).find(|table| !is_used(table)).unwrap_or(FIRST_NIC_TABLE)
    }
}

/// The rule that asks a table for what carries this address.
pub(super) fn source_rule(address: IpAddr, table: u32) -> Rule {
    Rule::new(Family::of(address), SOURCE_RULE_PRIORITY, Selector::From(address), table)
}

/// A default route of a NIC's table as the main plugin had made it.
pub(super) fn in_main(route: &Route) -> Route {
    Route { table: MAIN_TABLE, protocol: PROTOCOL_BOOT, ..route.clone() }
}

fn own_rules(pod: &NamespaceState) -> impl Iterator<Item = &Rule> {
    pod.rules.iter().filter(|rule| rule.is_ours())
}

fn is_from(rule: &Rule, addresses: &[IpNet]) -> bool {
    matches!(rule.selector, Selector::From(from) if addresses.iter().any(|net| net.addr() == from))
}

/// Removes from a pod that goes on living what one of its underlay NICs had, with these addresses: its rules and its
/// table. With the last one everything goes. A default route that it had goes back to the first NIC.
pub fn plan_removal(
    pod: &NamespaceState,
    nic: &IfName,
    addresses: &[IpNet],
    first_nic: &IfName,
) -> Vec<Step> {
    let (own, others): (Vec<&Rule>, Vec<&Rule>) = own_rules(pod).partition(|rule| is_from(rule, addresses));
    let is_of_nic = |rule: &&&Rule| match rule.selector {
        Selector::From(from) => !pod.usable_addresses(first_nic).iter().any(|net| net.addr() == from),
        _ => false,
    };
    let is_last = others.iter().filter(is_of_nic).count() == 0;
    let tables: Vec<u32> = own.iter().map(|rule| rule.table).collect();
    // The way to the node in underlay mode is the first NIC's.
    let stays = pod.has_link(VETH0);
    let is_by_mark = |rule: &&Rule| matches!(rule.selector, Selector::Mark(_));
    let all = own_rules(pod).filter(|rule| !(stays && is_by_mark(rule)));
    let rules: Vec<&Rule> = if is_last { all.collect() } else { own };
    let mut steps: Vec<Step> =
        rules.into_iter().map(|rule| Step::DeleteRule { namespace: Namespace::Pod, rule: *rule }).collect();
    let delete = |route: &Route| Step::DeleteRoute { namespace: Namespace::Pod, route: route.clone() };
    let of_tables = pod.table_routes.iter().filter(|route| route.is_ours());
    let goes = |r: &&Route| tables.contains(&r.table) || is_last && !(stays && r.table == CLUSTER_TABLE);
    steps.extend(of_tables.filter(goes).map(delete));
    let goes = |r: &&Route| r.is_ours() && (r.dev == *nic || is_last && !stays);
    let of_main = pod.routes.iter().filter(goes);
    steps.extend(of_main.map(delete));
    steps.extend(restore_default_routes(pod, nic, first_nic));
    steps.push(Step::DeleteReturnMarks(nic.clone()));
    steps
}

/// The default routes that had moved to the first NIC's table, where no other NIC has them.
fn restore_default_routes(pod: &NamespaceState, nic: &IfName, first_nic: &IfName) -> Vec<Step> {
    let mut steps = Vec::new();
    for family in Family::ALL {
        let stays = |r: &&Route| r.is_default() && r.family() == family && r.dev != *nic && !r.is_ours();
        if pod.routes.iter().any(|r| stays(&r)) {
            continue;
        }
        // Those of a main plugin have no source; what leads back to the cluster has one.
        let mut own = pod.table_routes.iter().filter(|r| r.is_ours() && r.source.is_none());
        let moved = own.find(|r| r.is_default() && r.family() == family && r.dev == *first_nic);
        let others = pod.routes.iter().filter(|r| r.is_default() && r.family() == family && !r.is_ours());
        steps.extend(others.map(|r| Step::DeleteRoute { namespace: Namespace::Pod, route: r.clone() }));
        let restored = moved.map(in_main);
        steps.extend(restored.map(|route| Step::AddRoute { namespace: Namespace::Pod, route }));
    }
    steps
}
