//! The network configuration as the plugin reads it.

use serde_json::Value;
use spiderpool_core::go_json::{from_go_value, from_readable_members};
use spiderpool_core::ifacer::{IfacerSettings, WantedInterfaces};

use crate::base::Base;
use crate::env::Command;
use crate::error::{ConfigError, PluginError};
use crate::log::LogOptions;

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetConf {
    /// What every plugin has.
    pub base: Base,
    /// What the node is to have; `None` where there is nothing to make.
    pub wanted: Option<WantedInterfaces>,
}

impl NetConf {
    /// Parses it. For DEL, which makes nothing, only what says where to log.
    pub fn parse(bytes: &[u8], command: Command) -> Result<Self, PluginError> {
        if command == Command::Del {
            let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
            return Ok(Self { base: from_readable_members(value), wanted: None });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(PluginError::Decode)?;
        let base = Base::parse(&value)?;
        let settings: IfacerSettings = from_go_value(value).map_err(PluginError::Decode)?;
        let wanted = settings.parse().map_err(ConfigError::from)?;
        Ok(Self { base, wanted })
    }

    /// Where to log.
    pub fn log_options(&self) -> LogOptions {
        self.base.log_options("ifacer")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> Result<NetConf, PluginError> {
        NetConf::parse(json.as_bytes(), Command::Add)
    }

    #[test]
    fn a_rendered_configuration() {
        let json = r#"{"cniVersion":"0.3.1","name":"n","vlanID":100,"type":"ifacer","interfaces":["ens192","ens224"],
            "bond":{"name":"bond0","mode":1,"options":"miimon=100;primary=ens224"},
            "logOptions":{"logLevel":"info","logFile":"/var/log/x.log"}}"#;
        let config = parse(json).unwrap();
        assert_eq!(config.base.name, "n");
        assert_eq!(config.wanted.as_ref().unwrap().name().as_str(), "bond0.100");
        let options = config.log_options();
        assert_eq!((options.level.as_str(), options.path.to_str()), ("info", Some("/var/log/x.log")));
    }

    #[test]
    fn nothing_to_make_needs_no_bond() {
        assert_eq!(parse(r#"{"name":"n","interfaces":["ens192"]}"#).unwrap().wanted, None);
        assert_eq!(NetConf::default().log_options(), LogOptions::new("ifacer"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_code() {
        for (json, code, part) in [
            (r#"{"interfaces":["a"]}"#, 7, "name is missing"),
            (r#"{"name":"n"}"#, 7, "interfaces is missing"),
            (r#"{"name":"n","interfaces":["a"],"vlanID":"5"}"#, 6, "\"5\""),
            (r#"{"name":"n","interfaces":["a"],"vlanID":4095}"#, 7, "4095"),
            (
                r#"{"name":"n","interfaces":["a","b"],"bond":{"mode":1,"options":"x=1"}}"#,
                7,
                "\"x\" is no option",
            ),
        ] {
            let error = parse(json).unwrap_err().to_object("1.0.0");
            assert_eq!(error.code, code, "{json}");
            assert!(error.details.contains(part), "{}", error.details);
        }
        assert!(NetConf::parse(br#"{"name":"n","vlanID":"5"}"#, Command::Del).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(bytes in any::<Vec<u8>>(), options in any::<String>()) {
            let json = serde_json::json!({
                "name": "n", "interfaces": ["a", "b"], "bond": {"mode": 1, "options": options}
            });
            let _ = parse(&json.to_string());
            for command in [Command::Add, Command::Del] {
                let _ = NetConf::parse(&bytes, command);
            }
        }
    }
}
