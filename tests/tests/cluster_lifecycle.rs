//! Clusters with Spiderpool, which the tests share: what happens to pods, nodes, Spiderpool itself and Multus.
#![forbid(unsafe_code)]

#[path = "cluster_lifecycle/multus.rs"]
mod multus;
#[path = "cluster_lifecycle/pods_and_nodes.rs"]
mod pods_and_nodes;
#[path = "cluster_lifecycle/shared.rs"]
mod shared;
#[path = "cluster_lifecycle/subnets.rs"]
mod subnets;
