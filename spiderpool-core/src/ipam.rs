//! Address management: which pools a NIC may draw from, which address it gets, what is answered.
//!
//! The order of an ADD: [`annotations`] and the plugin's request give [`candidates`]; [`plan`] compares them with
//! what the pod holds ([`holding`]); [`filter`] says which pools remain for what must be allocated; [`pick`] chooses
//! addresses; [`response`] is what the plugin gets. [`release`] says when an address is freed. Nothing here reads a
//! clock, a store or a random source.

pub mod address_name;
pub mod annotation_key;
pub mod annotations;
pub mod candidates;
pub mod default_route;
pub mod deleted_pods;
pub mod error;
pub mod filter;
pub mod holding;
pub mod multus;
pub mod nic_network;
pub mod owner;
pub mod pick;
pub mod plan;
pub mod pod_stage;
pub mod pool;
pub mod pool_condition;
pub mod pool_list;
pub mod pool_source;
pub mod quarantine;
pub mod release;
pub mod requested;
pub mod reserved;
pub mod response;
pub mod route;
pub mod stateful_set;
pub mod successor;
pub mod unknown_annotations;
pub mod usage;
pub mod virtual_machine;

pub use annotations::PodAnnotations;
pub use candidates::{CandidateRequest, PoolCandidates, plan_candidates};
pub use default_route::DefaultRoute;
pub use error::{FailureReason, IpamError, PoolFailure, Rejection};
pub use filter::{Labels, PodPlace, PoolEntry, PoolTable, filter_pools, may_keep};
pub use holding::{AddressState, Holding, Owner, Workload};
pub use nic_network::{NetworkName, NetworkUnknown, PodNetworks};
pub use plan::{AllocationPlan, AllocationStep, PodAddresses, plan_allocation};
pub use pool::{Pool, PoolError, PoolFields};
pub use pool_list::{PoolLists, PoolReference, PoolWildcard};
pub use pool_source::PoolSource;
pub use quarantine::{Claim, Conflict, ConflictError, Quarantine, plan_exchange};
pub use requested::{RequestedAddresses, parse_requested};
pub use response::{Allocated, Response, build_response};
pub use route::IpamRoute;
pub use stateful_set::StatefulSetScale;
pub use successor::{KeptWorkloads, Successor, SuccessorSource};
pub use unknown_annotations::plan_annotation_warning;
