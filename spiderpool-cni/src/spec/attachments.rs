//! What GC gets beside the configuration: the attachments of the network that are valid.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use spiderpool_core::gc::SandboxNic;
use spiderpool_core::go_json::from_go_value;

use crate::error::{ConfigError, PluginError};

/// The specification's name, and the one that its text had by mistake and libcni writes too.
const NAMES: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Reads them. Without a list nothing may be removed; libcni writes an empty one as `null`.
pub fn valid_attachments(input: &[u8]) -> Result<BTreeSet<SandboxNic>, PluginError> {
    let config: Value = serde_json::from_slice(input).map_err(PluginError::Decode)?;
    let list = NAMES.iter().find_map(|name| config.get(name)).ok_or(ConfigError::NoAttachments)?;
    let list: Option<Vec<Attachment>> = from_go_value(list.clone()).map_err(PluginError::Decode)?;
    // What is no name of a sandbox or NIC was never set up by us.
    let nic = |attachment: &Attachment| {
        Some(SandboxNic {
            container_id: attachment.container_id.parse().ok()?,
            nic: attachment.ifname.parse().ok()?,
        })
    };
    Ok(list.iter().flatten().filter_map(nic).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expect: Result<&[&str], u32>) {
        let got = valid_attachments(json.as_bytes());
        let got = got.map(|nics| nics.iter().map(|n| format!("{} {}", n.container_id, n.nic)).collect());
        let expect = expect.map(|nics| nics.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(got.map_err(|error| error.reason().code()), expect, "{json}");
    }

    #[test]
    fn a_missing_list_is_no_empty_list() {
        check("{}", Err(7));
        check("{", Err(6));
        check(r#"{"cni.dev/valid-attachments":"all"}"#, Err(6));
        check(r#"{"cni.dev/valid-attachments":[]}"#, Ok(&[]));
        check(r#"{"cni.dev/valid-attachments":null,"cni.dev/attachments":null}"#, Ok(&[]));
    }

    #[test]
    fn attachments_are_read_by_either_name() {
        let list = r#"[{"containerID":"c1","ifname":"net1"},{"containerID":"../","ifname":"a/b"}]"#;
        for name in NAMES {
            check(&format!(r#"{{"{name}":{list}}}"#), Ok(&["c1 net1"]));
        }
    }
}
