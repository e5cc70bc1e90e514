//! Address arithmetic on intervals. Nothing here expands a range: a /64 costs what a /30 costs.

mod family;
mod range;
mod set;

pub use family::Family;
pub use range::{IpRange, IpRangeError};
pub use set::IpSet;
