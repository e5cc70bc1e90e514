//! The custom resources, one file per kind.
//!
//! Fields that hold addresses, ranges or names are texts here: one bad object in the store must not make a whole
//! list undecodable. `spiderpool_core` parses them, object by object.

mod coordinator;
mod endpoint;
mod generate;
mod ip_address;
mod ip_pool;
mod ip_pool_usage;
mod multus_config;
mod multus_defaults;
mod parsed;
mod reserved_ip;
mod schema;
mod subnet;

pub use coordinator::{
    CoordinatorPhase, CoordinatorSpec, PodCidrType, SpiderCoordinator, SpiderCoordinatorStatus,
};
pub use endpoint::{EndpointAllocation, EndpointIp, NoSpec, SpiderEndpoint, SpiderEndpointStatus};
pub use generate::{crds, file_name};
pub use ip_address::{
    AddressState, HoldingError, HoldingFault, Quarantine, SpiderIPAddress, SpiderIPAddressSpec,
    keeping_patch, quarantining_patch, taking_patch,
};
pub use ip_pool::{IPPoolStatus, SpiderIPPool, SpiderIPPoolSpec};
pub use ip_pool_usage::{SpiderIPPoolUsage, SpiderIPPoolUsageSpec};
pub use multus_config::{SpiderMultusConfig, SpiderMultusConfigSpec};
pub use parsed::{pool_fields, subnet_fields};
pub use reserved_ip::{SpiderReservedIP, SpiderReservedIPSpec};
pub use schema::Route;
pub use subnet::{SpiderSubnet, SpiderSubnetSpec, SubnetStatus};

/// API group of every kind.
pub const GROUP: &str = "spiderpool.spidernet.io";
/// The one version, served and stored.
pub const VERSION: &str = "v2beta1";
/// The one finalizer, on pools, subnets, endpoints and coordinators.
pub const FINALIZER: &str = "spiderpool.spidernet.io";
