//! Plans that the coordinator makes at ADD and the agent makes again when the cluster changes.

mod hints;

pub use hints::{HintInputs, is_hint, plan_route_hints};
