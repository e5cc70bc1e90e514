//! Plans that the coordinator makes at ADD and the agent makes again when the cluster changes.

mod hints;
mod node_addresses;
mod own_cidrs;
mod pod_devices;
mod port_range;
mod starvation;

pub use hints::{HintInputs, is_hint, plan_route_hints};
pub use node_addresses::{may_be_host_end, node_addresses};
pub use own_cidrs::OwnCidrs;
pub use pod_devices::{PodDevice, pod_devices};
pub use port_range::PortRange;
pub use starvation::{FiltersAhead, NicCounts, is_starved};
