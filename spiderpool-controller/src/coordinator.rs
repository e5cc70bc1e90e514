//! The status of the SpiderCoordinator: where the cluster's pods and Services are.

mod kubeadm;
mod plan;
mod run;
mod source;

pub use run::run;
