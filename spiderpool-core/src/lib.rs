//! Pure domain logic of Spiderpool: everything that decides, nothing that acts.
//!
//! Decisions are functions of data (`plan_*`); the crates above apply the plans. This crate must not know
//! tokio, kube, netlink or logging.
#![forbid(unsafe_code)]

pub mod admission;
pub mod coordinator;
pub mod dataplane;
pub mod detection;
pub mod error_list;
pub mod field_error;
pub mod gc;
pub mod go_json;
pub mod ifacer;
pub mod ip;
pub mod ipam;
pub mod label_selector;
pub mod mac;
pub mod multus;
pub mod multus_conf;
pub mod names;
pub mod net;
pub mod subnet;
pub mod unsupported;

pub use unsupported::Unsupported;
