//! A pod's SpiderEndpoint, from what the pod holds. Agent and controller write the same one.

mod entries;
mod kept;
mod lost;
mod record;
#[cfg(test)]
mod tests;
mod whose;

pub use entries::{endpoint_ips, lacks, merge, restore, without};
pub use kept::{handed_on, unclaimed, waiting_for};
pub use lost::lost_holdings;
pub use record::{Lifetime, Record};
pub use whose::{is_held_by_another, is_of_another, is_of_machine, is_of_other_kind, pod_name};
