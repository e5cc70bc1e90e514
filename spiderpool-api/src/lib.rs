//! What Spiderpool's processes and its users exchange: custom resources, annotation keys, the agent's HTTP API.
#![forbid(unsafe_code)]

pub mod agent;
pub mod annotations;
#[cfg(feature = "crd")]
pub mod crd;
#[cfg(feature = "crd")]
pub mod endpoint;
pub mod labels;
#[cfg(feature = "crd")]
pub mod node;
#[cfg(feature = "crd")]
pub mod node_lease;
#[cfg(feature = "crd")]
pub mod pod;
#[cfg(feature = "crd")]
pub mod stateful_set;
#[cfg(feature = "crd")]
pub mod upstream;
#[cfg(feature = "crd")]
pub mod virtual_machine;
#[cfg(feature = "crd")]
pub mod workload;
