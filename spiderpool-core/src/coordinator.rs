//! What the coordinator does to a pod, as plans: lists of steps that know their inverse.
//!
//! Inputs are plain data that the plugin read from the kernel and the agent; nothing here reads or writes
//! anything. A plan holds only what is not yet so: planning again after applying gives an empty plan.

mod choice;
mod default_route;
mod ebpf;
mod error;
mod field_errors;
#[cfg(test)]
mod fixture;
mod inputs;
mod interface_step;
mod link;
mod mode;
mod nic;
mod node_link;
mod normalize;
mod overlay;
mod peer_macs;
mod plugin;
mod pod_cidr;
mod policy;
mod policy_route;
mod rp_filter;
mod settings;
mod state;
mod step;
mod underlay;
mod values;
mod veth0;

pub use choice::{Dataplane, NodeLinkCallers, RouteHints};
pub use default_route::{BACKUP_METRIC, Preference, plan_default_routes, plan_source_specific_defaults};
pub use ebpf::{EbpfPlan, unsteered_destinations};
pub use error::{PlanError, SettingsError};
pub use inputs::Inputs;
pub use interface_step::InterfaceStep;
pub use link::{
    MacPrefix, NODE_LINK, NODE_LINK_V4, VETH0, host_end_name, is_host_end_name, is_host_end_with, link_local,
    node_link_macs,
};
pub use mode::{Mode, Setup, decide_setup};
pub use nic::own_policy_routes;
pub use node_link::{
    NodeLink, gateways, plan_host_neighbors, plan_host_routes, plan_link_state, plan_pod_neighbors,
    plan_stale_neighbors, pod_neighbors,
};
pub use overlay::plan_overlay;
pub use peer_macs::PeerMacs;
pub use plugin::{COORDINATOR, VETH, VethSettings, second_name};
pub use pod_cidr::check_pod_cidrs;
pub use policy::{
    CLUSTER_TABLE, HOST_RULE_PRIORITY, MARK_RULE_PRIORITY, PolicyInputs, RETURN_MARK, SOURCE_RULE_PRIORITY,
    host_route_mark, plan_policy_overlay, plan_policy_underlay, plan_removal, pod_dataplane,
};
pub use policy_route::{PolicyRoute, PolicyRouteText};
pub use rp_filter::check_rp_filter;
pub use settings::{Config, EbpfSettings, Settings};
pub use state::{NamespaceState, project};
pub use step::{Namespace, Step};
pub use underlay::plan_underlay;
pub use veth0::{plan_veth0, plan_veth0_up, veth0_of};
