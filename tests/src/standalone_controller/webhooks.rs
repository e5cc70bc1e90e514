//! The chart's webhook configurations, for a controller that is no pod: the API server calls it by a URL in place of a
//! Service.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{process, tools};

/// A label of the objects that a controller's webhooks are for: several share an API server.
pub const LABEL: &str = "bench";

/// Both configurations, called `name`, for objects whose [`LABEL`] is `name`; the webhooks are at `port` of the loopback.
pub fn webhook_configurations(name: &str, port: u16) -> Result<Vec<Value>> {
    webhook_configurations_with(name, port, &[])
}

/// The same with these values, each as `path=value`.
pub fn webhook_configurations_with(name: &str, port: u16, values: &[&str]) -> Result<Vec<Value>> {
    let mut helm = Command::new(tools::kubernetes("helm")?);
    helm.args(["template", "spiderpool"]).arg(tools::chart()?);
    helm.args(["--show-only", "templates/controller/webhooks.yaml"]);
    for value in values {
        helm.args(["--set", value]);
    }
    let text = process::output(&helm)?;
    let mut configurations = Vec::new();
    for document in serde_norway::Deserializer::from_str(&text) {
        let mut configuration = Value::deserialize(document)?;
        if configuration.is_null() {
            continue;
        }
        configuration["metadata"]["name"] = json!(name);
        for webhook in configuration["webhooks"].as_array_mut().context("webhooks")? {
            let path = webhook["clientConfig"]["service"]["path"].as_str().context("path")?;
            webhook["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}{path}")});
            webhook["objectSelector"] = json!({"matchLabels": {LABEL: name}});
        }
        configurations.push(configuration);
    }
    Ok(configurations)
}
