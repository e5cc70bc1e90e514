//! Everything the agent is told at start: command line, environment and configuration file.

mod environment;
mod file;

pub use environment::{Daemon, Environment, MapSizes};
pub use file::{ConfigFile, ConfigFileError};
