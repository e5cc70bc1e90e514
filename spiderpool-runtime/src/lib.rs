//! What Spiderpool's long-running processes share: logging, health and metrics over HTTP, orderly shutdown.
//!
//! It knows nothing of Spiderpool's objects.
#![forbid(unsafe_code)]

pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod shutdown;
