//! The flow matrix: every flow that must work for a pod with underlay NICs, and an eth0 that is one of them or the default
//! network's.
//!
//! To add a flow, add a line to one of the lists in [`Hosts::flows`]; to add a dimension or a value of one, see
//! [`dimension`] and [`Setting`].

mod builder;
mod covering;
pub mod dimension;
mod flows;
mod hosts;
mod impossible;
mod nics;
mod results;
mod setting;

pub use dimension::{DefaultNetwork, DefaultRoute, Gateway, Mode, Nics, Pools, ProxyMode, RouteHints};
pub use hosts::{Host, Hosts, Peer, Published, PublishedService, Surroundings};
pub use impossible::{Cell, Certainty, Impossible, impossible};
pub use results::Results;
pub use setting::Setting;
