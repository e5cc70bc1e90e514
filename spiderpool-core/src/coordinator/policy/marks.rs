//! Answers to connections that come in by the cluster NIC for an underlay address leave by the cluster NIC again, wherever
//! the client is: NodePorts with externalTrafficPolicy Local.

use std::net::IpAddr;

use super::cluster_routes::ClusterNic;
use super::inputs::PolicyInputs;
use super::tables::CLUSTER_TABLE;
use crate::coordinator::{Namespace, Step};
use crate::net::{ReturnMarks, Rule, Selector};

/// Priority of the rule by mark: before those by source address.
pub const MARK_RULE_PRIORITY: u32 = 1000;
/// The mark.
pub const RETURN_MARK: u32 = 1;

/// Marks the connections to these addresses; none means to all.
pub(super) fn plan(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>, to: Vec<IpAddr>) -> Vec<Step> {
    let rule = |family| Rule::new(family, MARK_RULE_PRIORITY, Selector::Mark(RETURN_MARK), CLUSTER_TABLE);
    let rules = cluster.families.iter().map(|family| rule(*family));
    let missing = rules.filter(|rule| !inputs.pod.rules.contains(rule));
    let rules = missing.map(|rule| Step::AddRule { namespace: Namespace::Pod, rule });
    let marks = ReturnMarks { nic: inputs.nic.clone(), from: cluster.dev.clone(), to, mark: RETURN_MARK };
    rules.chain([Step::SetReturnMarks(marks)]).collect()
}
