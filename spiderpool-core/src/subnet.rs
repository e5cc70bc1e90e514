//! SpiderSubnets: addresses of one subnet that are handed to pools, by hand or for applications that ask for a pool of their
//! own.
//!
//! An application's pod template says which subnets it wants ([`request`]); the pool that is made for it is named after it
//! ([`application`]), has as many addresses as its pods need ([`size`]), and gets them out of what the subnet has left
//! ([`carve`]). The subnet's status says which pool has what ([`status`]). What is to be done for one subnet, [`plan`] says.

pub mod application;
pub mod carve;
pub mod labels;
pub mod plan;
pub mod request;
pub mod size;
pub mod spec;
pub mod status;

pub use application::{Application, PoolPurpose};
pub use carve::{CarveError, plan_carve};
pub use plan::{SubnetPlan, SubnetState, plan_subnet};
pub use request::{PoolSize, SubnetRequest, parse_request};
pub use spec::{Subnet, SubnetError};
pub use status::{ControlledPool, ControlledPools};
