//! What Spiderpool's long-running processes share: requests to the API server and what they both write there, watches,
//! the indexes of pools and of reserved addresses, the work queue and back-off of reconcilers, leader election, logging, health and metrics over
//! HTTP, orderly shutdown.
//!
//! It decides nothing about pods and addresses: that is in `spiderpool_core`.
#![forbid(unsafe_code)]

pub mod api_metrics;
pub mod backoff;
pub mod config_file;
pub mod coordinators;
pub mod endpoints;
pub mod environment;
pub mod file_limit;
pub mod health;
pub mod http;
pub mod kubernetes;
pub mod leader;
pub mod logging;
pub mod metrics;
pub mod pools;
pub mod reserved;
pub mod shutdown;
pub mod successors;
pub mod virtual_machines;
pub mod watch;
pub mod work_queue;
