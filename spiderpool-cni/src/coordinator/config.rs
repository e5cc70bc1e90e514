//! The network configuration as the coordinator reads it.

use serde_json::Value;
use spiderpool_api::agent::DEFAULT_SOCKET;
use spiderpool_api::agent::coordinator::{CoordinatorConfig, GetCoordinatorArgs};
use spiderpool_client::Client;
use spiderpool_core::coordinator::{COORDINATOR, Config, Settings, VETH, VethSettings};
use spiderpool_core::go_json::{from_go_value, from_readable_members};

use crate::base::Base;
use crate::env::{Command, Request};
use crate::error::{ConfigError, PluginError};
use crate::log::LogOptions;

/// The configuration: what every plugin has, and our settings beside it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetConf {
    /// What is not a setting.
    pub base: Base,
    /// The settings as written.
    pub settings: Settings,
    /// What a configuration for the plugin's second name has beside them.
    pub veth: Option<VethSettings>,
}

impl NetConf {
    /// Parses it. Values are checked when they are merged with the agent's, names of fields are not: fields of
    /// older releases are ignored. DEL takes what can be read of whatever is there: what cannot could not be read
    /// at ADD either, or was lost with the node's power; there is little to delete, and it is found by its names.
    pub fn parse(bytes: &[u8], command: Command) -> Result<Self, PluginError> {
        if command == Command::Del {
            let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
            return Ok(Self {
                base: from_readable_members(value.clone()),
                settings: from_readable_members(value),
                // A pod ends in the same way in each mode.
                veth: None,
            });
        }
        let value: Value = serde_json::from_slice(bytes).map_err(PluginError::Decode)?;
        let base = Base::parse(&value)?;
        let is_veth = value["type"] == VETH;
        let veth = is_veth.then(|| from_go_value(value.clone())).transpose().map_err(PluginError::Decode)?;
        let settings = from_go_value(value).map_err(PluginError::Decode)?;
        if !command.is_of_network() && !base.prev_result.is_object() {
            return Err(ConfigError::NoPrevResult.into());
        }
        Ok(Self { base, settings, veth })
    }

    /// Where to log.
    pub fn log_options(&self) -> LogOptions {
        self.base.log_options(COORDINATOR)
    }

    /// The agent of this node.
    pub fn client(&self) -> Client {
        Client::new(self.base.ipam_unix_socket_path.clone().unwrap_or_else(|| DEFAULT_SOCKET.into()))
    }

    /// The settings merged with the agent's, and the agent's answer.
    pub fn resolve(&self, request: &Request) -> Result<(Config, CoordinatorConfig), PluginError> {
        let args = GetCoordinatorArgs { pod: request.pod()?.clone() };
        let answer = self
            .client()
            .coordinator_config(&args)
            .map_err(|e| PluginError::of_client(e, PluginError::CoordinatorConfig))?;
        let mut network = self.settings.clone();
        if let Some(veth) = &self.veth {
            network = veth.translate(network, &answer.settings)?;
        }
        Ok((Settings::resolve(network, answer.settings.clone())?, answer))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str, command: Command) -> Result<NetConf, PluginError> {
        NetConf::parse(json.as_bytes(), command)
    }

    const MINIMAL: &str = r#"{"cniVersion":"0.3.1","name":"n","type":"coordinator","prevResult":{"ips":[]}}"#;

    #[test]
    fn a_generated_configuration_is_read() {
        let json = r#"{"cniVersion":"0.3.1","name":"n","type":"coordinator","prevResult":{},"mode":"auto",
            "podDefaultRouteNic":"net1","detectGateway":false,"hostRPFilter":0,"multusNicPrefix":"net",
            "logOptions":{"logLevel":"info","logFile":"/var/log/c.log"}}"#;
        let config = parse(json, Command::Add).unwrap();
        assert_eq!(config.settings.pod_default_route_nic.as_deref(), Some("net1"));
        assert_eq!(config.log_options().path, PathBuf::from("/var/log/c.log"));
        assert_eq!(parse(MINIMAL, Command::Add).unwrap().log_options().level, "debug");
    }

    /// As documents of older releases print it.
    #[test]
    fn a_configuration_for_veth_is_read() {
        let json = r#"{"cniVersion":"0.3.1","name":"macvlan-conf","type":"veth","service_cidr":["10.96.0.0/16"],
            "log_options":{"log_level":"debug"},"prevResult":{}}"#;
        for command in [Command::Add, Command::Check] {
            assert!(parse(json, command).unwrap().veth.is_some_and(|veth| veth != VethSettings::default()));
        }
        assert_eq!(parse(json, Command::Del).unwrap().veth, None);
        assert_eq!(parse(MINIMAL, Command::Add).unwrap().veth, None);
        let wrong = json.replace(r#"["10.96.0.0/16"]"#, r#""10.96.0.0/16""#);
        assert_eq!(parse(&wrong, Command::Add).unwrap_err().to_object("1.0.0").code, 6);
        assert!(parse(&wrong, Command::Del).is_ok());
    }

    #[test]
    fn null_is_nothing() {
        let json = r#"{"name":"n","prevResult":{},"mode":null,"policyRoutes":null,"podDefaultRouteNIC":"net1",
            "ipamUnixSocketPath":null,"logOptions":{"logLevel":null,"logFile":null,"logMaxSize":null}}"#;
        let config = parse(json, Command::Add).unwrap();
        assert_eq!(config.settings.pod_default_route_nic.as_deref(), Some("net1"));
        assert_eq!(config.log_options(), LogOptions::new("coordinator"));
        assert!(parse(r#"{"name":"n","prevResult":{},"logOptions":null}"#, Command::Add).is_ok());
        assert!(parse(r#"{"name":null,"prevResult":null}"#, Command::Del).is_ok());
    }

    #[test]
    fn bad_configurations_are_named() {
        for (json, code, part) in [
            ("", 6, "decode"),
            (r#"{"name":"n"}"#, 7, "prevResult is missing"),
            (r#"{"prevResult":{}}"#, 7, "name is missing"),
            (r#"{"name":"n","prevResult":{},"serviceCIDR":"10.0.0.0/8"}"#, 6, "expected a sequence"),
            (r#"{"name":"n","prevResult":{},"vethMTU":"1500"}"#, 6, "invalid type: string"),
            (r#"{"name":"n","prevResult":{},"logOptions":[1]}"#, 6, "decode"),
        ] {
            let object = parse(json, Command::Add).unwrap_err().to_object("1.0.0");
            assert_eq!(object.code, code, "{json}");
            assert!(format!("{} {}", object.msg, object.details).contains(part), "{object:?}");
        }
    }

    #[test]
    fn deleting_needs_no_more_than_names() {
        assert!(parse(r#"{"serviceCIDR":"wrong"}"#, Command::Del).is_ok());
        let json = r#"{"name":"n","serviceCIDR":"wrong","multusNicPrefix":7,"podDefaultRouteNic":"net1",
            "logOptions":[1],"ipamUnixSocketPath":"/run/s"}"#;
        let config = parse(json, Command::Del).unwrap();
        assert_eq!((config.base.name.as_str(), config.client().socket()), ("n", "/run/s".as_ref()));
        assert_eq!(config.settings.pod_default_route_nic.as_deref(), Some("net1"));
        for truncated in ["", "[]", "null", r#"{"cniVersion":"1.0"#] {
            assert_eq!(parse(truncated, Command::Del).unwrap(), NetConf::default());
        }
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = NetConf::parse(&bytes, Command::Add);
            prop_assert!(NetConf::parse(&bytes, Command::Del).is_ok());
        }
    }
}
