//! Plans that the coordinator makes at ADD and the agent makes again when the cluster changes.

mod hints;
mod own_cidrs;

pub use hints::{HintInputs, is_hint, plan_route_hints};
pub use own_cidrs::OwnCidrs;
