//! The Helm chart: what it renders is taken by a real API server, asks for no more than it needs, and refuses what is
//! not served.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "chart/render.rs"]
mod render;

#[path = "chart/environment.rs"]
mod environment;
#[path = "chart/hooks.rs"]
mod hooks;
#[path = "chart/init_file.rs"]
mod init_file;
#[path = "chart/refusals.rs"]
mod refusals;
#[path = "chart/releases.rs"]
mod releases;
#[path = "chart/rights.rs"]
mod rights;
#[path = "chart/value_sets.rs"]
mod value_sets;
#[path = "chart/webhooks.rs"]
mod webhooks;
