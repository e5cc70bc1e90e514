//! The network configuration as the IPAM plugin reads it: `name` and `ipam`, the rest is the main plugin's.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use spiderpool_api::agent::DEFAULT_SOCKET;
use spiderpool_core::go_json::{from_go_value, from_readable_members};
use spiderpool_core::ipam::parse_requested;

use crate::env::Command;
use crate::error::{ConfigError, PluginError};
use crate::log::LogOptions;

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetConf {
    /// The network's name.
    pub name: String,
    /// Our part.
    pub ipam: IpamConf,
    /// Of the main plugin, at CHECK and DEL.
    pub prev_result: Value,
    /// What the runtime passes by the capabilities of the configuration.
    pub runtime_config: RequestedIps,
    /// What the user passes.
    pub args: Args,
}

/// `args` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Args {
    /// Of the conventions of CNI.
    pub cni: RequestedIps,
}

/// Addresses that are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RequestedIps {
    /// As written, with or without prefix length.
    pub ips: Vec<String>,
}

/// `ipam` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IpamConf {
    /// debug, info, warn, error, fatal, panic.
    pub log_level: String,
    /// The log file.
    pub log_file_path: PathBuf,
    /// In MiB.
    pub log_file_max_size: i64,
    /// In days.
    pub log_file_max_age: i64,
    /// Renamed files.
    pub log_file_max_count: i64,
    /// Candidate pools.
    pub default_ipv4_ippool: Option<Vec<String>>,
    /// Candidate pools.
    pub default_ipv6_ippool: Option<Vec<String>>,
    /// No default route for this NIC.
    pub clean_gateway: bool,
    /// Take a pool of the master's subnet.
    pub match_master_subnet: bool,
    /// The agent's socket.
    pub ipam_unix_socket_path: PathBuf,
}

/// The configuration with a part that is not looked at yet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Unparsed {
    ipam: Value,
}

impl Default for IpamConf {
    fn default() -> Self {
        let log = LogOptions::new("spiderpool");
        Self {
            log_level: log.level,
            log_file_path: log.path,
            log_file_max_size: 0,
            log_file_max_age: 0,
            log_file_max_count: 0,
            default_ipv4_ippool: None,
            default_ipv6_ippool: None,
            clean_gateway: false,
            match_master_subnet: false,
            ipam_unix_socket_path: DEFAULT_SOCKET.into(),
        }
    }
}

impl NetConf {
    /// Parses and checks it, names of fields in any case. DEL takes what can be read of whatever is there.
    pub fn parse(bytes: &[u8], command: Command) -> Result<Self, PluginError> {
        if command == Command::Del {
            return Ok(Self::parse_readable(bytes));
        }
        let config: Self =
            serde_json::from_slice(bytes).and_then(from_go_value).map_err(PluginError::Decode)?;
        if config.name.is_empty() {
            return Err(ConfigError::NoName.into());
        }
        Ok(config)
    }

    /// What cannot be read now could not be read at ADD either, or was lost with the node's power.
    fn parse_readable(bytes: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let ipam = from_readable_members(from_readable_members::<Unparsed>(value.clone()).ipam);
        Self { ipam, ..from_readable_members(value) }
    }

    /// The addresses that are asked for.
    pub fn requested_ips(&self) -> Result<Vec<IpAddr>, PluginError> {
        let ways = [("runtimeConfig.ips", &self.runtime_config), ("args.cni.ips", &self.args.cni)];
        let texts = ways.iter().flat_map(|(member, way)| way.ips.iter().map(|text| (*member, text)));
        let parse = |(member, text): (&'static str, &String)| {
            let invalid = || ConfigError::RequestedAddress { member, text: text.clone() };
            Ok(parse_requested(text).ok_or_else(invalid)?)
        };
        texts.map(parse).collect()
    }

    /// Where to log.
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            level: self.ipam.log_level.clone(),
            path: self.ipam.log_file_path.clone(),
            max_size: self.ipam.log_file_max_size,
            max_age: self.ipam.log_file_max_age,
            max_count: self.ipam.log_file_max_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_error(json: &str, part: &str) {
        let error = NetConf::parse(json.as_bytes(), Command::Add).unwrap_err().to_object("1.0.0");
        let text = format!("{} {}: {}", error.code, error.msg, error.details);
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn defaults_are_upstreams() {
        let config =
            NetConf::parse(br#"{"name":"n","type":"macvlan","ipam":{"type":"spiderpool"}}"#, Command::Add);
        let config = config.unwrap();
        assert_eq!(config.ipam, IpamConf::default());
        assert_eq!(config.ipam.ipam_unix_socket_path, PathBuf::from("/var/run/spidernet/spiderpool.sock"));
        assert_eq!(config.log_options().path, PathBuf::from("/var/log/spidernet/spiderpool.log"));
    }

    #[test]
    fn everything_that_can_be_set() {
        let json =
            br#"{"name":"n","ipam":{"type":"spiderpool","log_level":"INFO","log_file_path":"/var/log/x.log",
            "log_file_max_size":1,"log_file_max_age":2,"log_file_max_count":3,"default_ipv4_ippool":["a","b"],
            "default_ipv6_ippool":[],"clean_gateway":true,"match_master_subnet":true,
            "ipam_unix_socket_path":"/tmp/x.sock","later":{"fields":"are ignored"}}}"#;
        let config = NetConf::parse(json, Command::Add).unwrap();
        assert_eq!(config.ipam.default_ipv4_ippool.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(config.ipam.default_ipv6_ippool.as_deref(), Some(&[][..]));
        assert!(config.ipam.clean_gateway && config.ipam.match_master_subnet);
        assert_eq!(config.log_options().max_count, 3);
    }

    #[test]
    fn fields_are_read_as_go_reads_them() {
        let json = br#"{"name":"n","prevResult":null,"ipam":{"log_level":null,"log_file_max_size":null,
            "Default_IPv4_IPPool":["a"],"clean_gateway":null,"ipam_unix_socket_path":null}}"#;
        let pools = Some(vec!["a".to_owned()]);
        let expect = IpamConf { default_ipv4_ippool: pools, ..IpamConf::default() };
        assert_eq!(NetConf::parse(json, Command::Add).unwrap().ipam, expect);
        let nothing = NetConf::parse(br#"{"name":"n","ipam":null}"#, Command::Add).unwrap();
        assert_eq!(nothing.ipam, IpamConf::default());
    }

    #[test]
    fn the_ipam_section_is_found_in_any_case() {
        for ipam in ["IPAM", "Ipam", "ipam"] {
            let json = format!(r#"{{"NAME":"n","{ipam}":{{"default_ipv4_ippool":["a"]}}}}"#);
            for command in [Command::Add, Command::Del] {
                let config = NetConf::parse(json.as_bytes(), command).unwrap();
                assert_eq!(config.ipam.default_ipv4_ippool, Some(vec!["a".to_owned()]), "{json}");
                assert_eq!(config.name, "n");
            }
        }
    }

    #[test]
    fn addresses_are_asked_for_by_capability_or_convention() {
        let json = br#"{"name":"n","runtimeConfig":{"ips":["10.6.0.7/16"],"mac":"x"},"args":{"cni":{"ips":["fd00::7"]}}}"#;
        let ips = NetConf::parse(json, Command::Add).unwrap().requested_ips().unwrap();
        assert_eq!(ips, ["10.6.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        let json = br#"{"name":"n","runtimeConfig":{"ips":null},"args":{"cni":null}}"#;
        assert!(NetConf::parse(json, Command::Add).unwrap().requested_ips().unwrap().is_empty());
        let json = br#"{"name":"n","args":{"cni":{"ips":["10.6.0"]}}}"#;
        let error =
            NetConf::parse(json, Command::Add).unwrap().requested_ips().unwrap_err().to_object("1.0.0");
        assert_eq!(
            (error.code, error.details.as_str()),
            (7, "args.cni.ips: \"10.6.0\" is not an IP address")
        );
    }

    #[test]
    fn negative_log_limits_are_taken() {
        let json =
            br#"{"name":"n","ipam":{"log_file_max_size":-1,"log_file_max_age":-1,"log_file_max_count":-1}}"#;
        assert_eq!(NetConf::parse(json, Command::Add).unwrap().log_options().max_size, -1);
    }

    #[test]
    fn bad_configurations_are_named() {
        check_error("{", "6 failed to decode");
        check_error(r#"{"ipam":{}}"#, "7 invalid network configuration: name is missing");
        check_error(r#"{"name":"n","ipam":{"default_ipv4_ippool":"pool"}}"#, "expected a sequence");
        check_error(r#"{"name":"n","ipam":{"log_file_max_size":"100"}}"#, "invalid type: string");
        check_error(r#"{"name":"n","ipam":{"clean_gateway":"yes"}}"#, "expected a boolean");
    }

    #[test]
    fn del_takes_what_add_refused() {
        for ipam in [r#"{"default_ipv4_ippool":"p"}"#, r#"{"log_file_max_size":"100"}"#, "7"] {
            let json = format!(r#"{{"name":"n","ipam":{ipam}}}"#);
            assert!(NetConf::parse(json.as_bytes(), Command::Add).is_err(), "{ipam}");
            assert_eq!(NetConf::parse(json.as_bytes(), Command::Del).unwrap().ipam, IpamConf::default());
        }
        for truncated in ["", "[]", "null", r#"{"cniVersion":"1.0"#, r#"{"name":7}"#] {
            assert_eq!(NetConf::parse(truncated.as_bytes(), Command::Del).unwrap(), NetConf::default());
        }
    }

    /// With the socket lost, a DEL would ask nobody.
    #[test]
    fn del_reads_the_socket_beside_what_it_cannot_read() {
        let json =
            br#"{"name":7,"ipam":{"log_level":[],"ipam_unix_socket_path":"/run/s","clean_gateway":"yes"}}"#;
        let config = NetConf::parse(json, Command::Del).unwrap();
        assert_eq!(config.ipam, IpamConf { ipam_unix_socket_path: "/run/s".into(), ..IpamConf::default() });
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = NetConf::parse(&bytes, Command::Add);
            prop_assert!(NetConf::parse(&bytes, Command::Del).is_ok());
        }
    }
}
