//! Command line, environment and configuration file of the controller.

mod certificate_method;
mod dns_name;
mod environment;
mod file;

pub use certificate_method::CertificateMethod;
pub use environment::{Coordinator, Daemon, Environment, GarbageCollection};
pub use file::{ConfigFile, SubnetSettings};
