//! Command line, environment and configuration file of the controller.

mod environment;
mod file;

pub use environment::{Collection, Daemon, Environment};
pub use file::ConfigFile;
