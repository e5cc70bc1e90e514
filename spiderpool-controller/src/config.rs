//! What the controller is told: environment and configuration file.

mod environment;
mod file;

pub use environment::{Daemon, Environment};
pub use file::ConfigFile;
