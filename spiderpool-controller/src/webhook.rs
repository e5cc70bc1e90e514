//! The webhooks, which every replica serves: what users write of our kinds is completed and checked before it is stored.
//!
//! What is decided is in `spiderpool_core::admission`; here are the server with its certificate, the mapping of requests
//! and objects, and what is known of other objects. A controller that is away stops nobody but those who write our own
//! kinds: the chart's configurations name nothing else, and no write that leaves the spec as it is; and pods, where it is configured
//! that they get networks and resources by an annotation.

mod body;
mod certificate;
mod completion;
mod coordinator;
mod in_use;
mod ip_pool;
mod kind;
mod known;
mod members;
mod membership;
mod multus_config;
mod pod;
mod reserved_ip;
mod response;
mod review;
mod server;
mod start;
mod stored_subnet;
mod subnet;
mod weight;

pub(crate) use certificate::{CaBundleKeeper, CertificateSettings};
pub(crate) use start::{Webhooks, start};
