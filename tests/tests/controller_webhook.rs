//! The webhooks of real controllers, called over https by a real API server with the chart's own configurations.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "controller_webhook/availability.rs"]
mod availability;
#[path = "controller_webhook/certificate.rs"]
mod certificate;
#[path = "controller_webhook/hooks.rs"]
mod hooks;
#[path = "controller_webhook/objects.rs"]
mod objects;
#[path = "controller_webhook/pods.rs"]
mod pods;
#[path = "controller_webhook/subnets.rs"]
mod subnets;
