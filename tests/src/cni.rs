//! Executes CNI plugins as a container runtime does: environment, configuration on standard input, result on
//! standard output, each plugin's result handed to the next one.

use std::env;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiderpool_core::coordinator::{COORDINATOR, VETH};

use crate::namespaces::Namespaces;
use crate::tools;

/// One NIC of one sandbox: what the runtime puts into the environment.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`, as the node sees it.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`.
    pub arguments: String,
}

/// A list of plugins, as a NetworkAttachmentDefinition holds it.
#[derive(Debug, Clone)]
pub struct Network {
    /// `name` of the configuration.
    pub name: String,
    /// `cniVersion` of the configuration.
    pub version: String,
    /// The plugins' configurations, without name and version.
    pub plugins: Vec<Value>,
}

/// How a plugin failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// `type` of the plugin.
    pub plugin: String,
    /// ADD, DEL, CHECK or VERSION.
    pub command: String,
    /// Its exit code; none if a signal ended it.
    pub exit: Option<i32>,
    /// The CNI error object, if standard output holds one.
    pub error: Option<Value>,
    /// Standard output and standard error.
    pub output: String,
}

impl Failure {
    /// `code` of the error object; 0 if there is none.
    pub fn code(&self) -> u64 {
        self.error.as_ref().and_then(|error| error["code"].as_u64()).unwrap_or(0)
    }

    /// `msg` and `details` of the error object.
    pub fn message(&self) -> String {
        let text = |key: &str| self.error.as_ref().and_then(|error| error[key].as_str()).unwrap_or_default();
        format!("{}: {}", text("msg"), text("details"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (exit {:?}): {}", self.plugin, self.command, self.exit, self.output.trim())
    }
}

impl std::error::Error for Failure {}

/// Where plugins are looked for: our own binaries, then the reference plugins.
fn folders() -> Result<Vec<PathBuf>> {
    let ours = tools::spiderpool("coordinator").ok().and_then(|path| path.parent().map(Path::to_owned));
    Ok(ours.into_iter().chain([tools::cni_plugins()?]).collect())
}

/// Runs one plugin in `namespaces`. The answer is empty where the command has no result.
pub fn execute(
    namespaces: &Namespaces,
    command: &str,
    attachment: &Attachment,
    config: &[u8],
) -> Result<Value> {
    let kind: Value = serde_json::from_slice(config).unwrap_or_default();
    execute_type(
        namespaces,
        kind["type"].as_str().context("no type in the configuration")?,
        command,
        attachment,
        config,
    )
}

/// As [`execute`], for configurations that do not even parse.
pub fn execute_type(
    namespaces: &Namespaces,
    plugin: &str,
    command: &str,
    attachment: &Attachment,
    config: &[u8],
) -> Result<Value> {
    let folders = folders()?;
    // Where agents install it, it is there by both names.
    let program = if plugin == VETH { COORDINATOR } else { plugin };
    let program = folders.iter().map(|folder| folder.join(program)).find(|path| path.exists());
    let program = program.with_context(|| format!("CNI plugin {plugin} is in none of {folders:?}"))?;
    let output = namespaces.run(|| {
        let mut child = Command::new(&program)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &attachment.container)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", &attachment.interface)
            .env("CNI_ARGS", &attachment.arguments)
            .env("CNI_PATH", env::join_paths(&folders)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut input = child.stdin.take().context("no standard input")?;
        // A plugin that fails early need not read all of it.
        drop(input.write_all(config));
        drop(input);
        Ok(child.wait_with_output()?)
    })?;
    answer(plugin, command, &output)
}

fn answer(plugin: &str, command: &str, output: &Output) -> Result<Value> {
    let parsed: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if output.status.success() {
        let empty_is_fine = matches!(command, "DEL" | "CHECK" | "GC" | "STATUS");
        return match parsed {
            Some(value) => Ok(value),
            None if empty_is_fine => Ok(Value::Null),
            None => Err(failure(plugin, command, output, None).into()),
        };
    }
    Err(failure(plugin, command, output, parsed).into())
}

fn failure(plugin: &str, command: &str, output: &Output, error: Option<Value>) -> Failure {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Failure {
        plugin: plugin.to_owned(),
        command: command.to_owned(),
        exit: output.status.code(),
        error,
        output: text.join("\n"),
    }
}

impl Network {
    /// ADD through the list; the last plugin's result.
    pub fn add(&self, namespaces: &Namespaces, attachment: &Attachment) -> Result<Value> {
        let mut result = Value::Null;
        for plugin in &self.plugins {
            result = execute(namespaces, "ADD", attachment, &self.config(plugin, &result)?)?;
        }
        Ok(result)
    }

    /// DEL through the list in reverse, with the result of ADD.
    pub fn del(&self, namespaces: &Namespaces, attachment: &Attachment, result: &Value) -> Result<()> {
        for plugin in self.plugins.iter().rev() {
            execute(namespaces, "DEL", attachment, &self.config(plugin, result)?)?;
        }
        Ok(())
    }

    /// CHECK through the list, with the result of ADD.
    pub fn check(&self, namespaces: &Namespaces, attachment: &Attachment, result: &Value) -> Result<()> {
        for plugin in &self.plugins {
            execute(namespaces, "CHECK", attachment, &self.config(plugin, result)?)?;
        }
        Ok(())
    }

    /// What a plugin of this list reads on standard input.
    pub fn config(&self, plugin: &Value, previous: &Value) -> Result<Vec<u8>> {
        let mut config = plugin.clone();
        config["cniVersion"] = json!(self.version);
        config["name"] = json!(self.name);
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        Ok(serde_json::to_vec(&config)?)
    }
}
