//! The default CNI's configuration, as a delegate of Multus.

use std::collections::BTreeSet;

use serde_json::Value;

/// Of newer versions the runtime would ask Multus for STATUS and GC, which the default CNI may not answer.
const NEWEST: &str = "1.0.0";
const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", NEWEST];

/// A network configuration.
pub(super) struct DefaultNetwork {
    /// As it is in the file.
    pub(super) conf: Value,
    /// The version of CNI that is spoken with it.
    pub(super) version: &'static str,
    /// What its plugins want of the runtime.
    pub(super) capabilities: BTreeSet<String>,
}

impl DefaultNetwork {
    /// Reads one plugin or a list of them.
    pub(super) fn parse(content: &str) -> Result<Self, String> {
        let conf: Value = serde_json::from_str(content).map_err(|error| error.to_string())?;
        if conf["name"].as_str().is_none_or(str::is_empty) {
            return Err("it has no name".to_owned());
        }
        let plugins: Vec<&Value> = match conf["plugins"].as_array() {
            Some(plugins) => plugins.iter().collect(),
            None => vec![&conf],
        };
        if plugins.is_empty()
            || plugins.iter().any(|plugin| plugin["type"].as_str().is_none_or(str::is_empty))
        {
            return Err("it has no plugin, or a plugin without type".to_owned());
        }
        let wanted = plugins.iter().filter_map(|plugin| plugin["capabilities"].as_object()).flatten();
        let capabilities =
            wanted.filter(|(_, wanted)| **wanted == true).map(|(name, _)| name.clone()).collect();
        let version = conf["cniVersion"].as_str().unwrap_or("0.3.1");
        let version = VERSIONS.into_iter().find(|known| *known == version).unwrap_or(NEWEST);
        Ok(Self { conf, version, capabilities })
    }
}
