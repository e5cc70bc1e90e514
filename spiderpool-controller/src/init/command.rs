//! Command line of `spiderpool-init`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use spiderpool_runtime::environment::{seconds, trimmed};
use spiderpool_runtime::logging::Level;

/// Arguments of `spiderpool-init`.
#[derive(Debug, Clone, Parser)]
#[command(name = "spiderpool-init", version, about = "Spiderpool's default objects and CRDs")]
pub struct Init {
    /// debug, info, warn, error, fatal or panic.
    #[arg(long, env = "SPIDERPOOL_LOG_LEVEL", default_value = "info", value_parser = trimmed::<Level>, global = true)]
    pub log_level: Level,
    /// Seconds after which it gives up, with a message.
    #[arg(long, env = "SPIDERPOOL_INIT_DEADLINE", default_value = "120", value_parser = seconds, global = true)]
    pub deadline: Duration,
    /// The default objects, YAML.
    #[arg(long, value_name = "FILE", default_value = "/tmp/spiderpool/config-map/init.yml")]
    pub config_path: PathBuf,
    /// Nothing: the default objects.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else it can do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Brings the CustomResourceDefinitions to the version of this binary.
    ApplyCrds,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_a_number_of_seconds() {
        let parse = |text: &str| Init::try_parse_from(["init", "--deadline", text, "apply-crds"]);
        let init = parse("5").unwrap();
        assert_eq!(init.deadline, Duration::from_secs(5));
        assert!(matches!(init.command, Some(Command::ApplyCrds)));
        assert!(parse("soon").is_err());
    }
}
