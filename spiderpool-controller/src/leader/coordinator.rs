//! The status of the SpiderCoordinator: where the cluster's pods and Services are.

mod kubeadm;
mod plan;
mod reconcile;
mod source;

pub use reconcile::run;
