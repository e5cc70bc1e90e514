//! What the leader knows of the cluster: addresses, pods, nodes, endpoints and pools, fed by its watches, each object
//! reduced to a few dozen bytes. One lock guards them all, so that joins see one moment.
//!
//! **Invariant:** nothing is freed by this alone: before a [`PodAction`] is carried out, the API server is asked.

mod addresses;
mod cluster_state;
mod endpoints;
mod evaluate;
mod interner;
mod node_cidrs;
mod node_leases;
mod nodes;
mod occupancy;
mod pods;
mod pools;
pub(crate) mod slim;
mod stateful_sets;
mod third_parties;
mod virtual_machines;

pub(crate) use cluster_state::ClusterState;
pub(crate) use evaluate::{ObservedPod, PodAction, Policy};
pub(crate) use node_leases::SlimLease;
pub(crate) use occupancy::Occupancy;
pub(crate) use pools::{LeaderFields, LeaderPool, StatusDigest, insert as insert_pool};
pub(crate) use slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};
pub(crate) use stateful_sets::SlimStatefulSet;
pub(crate) use virtual_machines::SlimMachine;
