//! Command line, environment and configuration file of the controller.

mod environment;
mod file;

pub use environment::{Coordinator, Daemon, Environment, GarbageCollection};
pub use file::ConfigFile;
