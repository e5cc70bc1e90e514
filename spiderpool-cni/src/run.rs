//! From the process's environment and standard input to its standard output and exit code.

use std::io::{self, Read, Write};
use std::panic;
use std::process::{self, ExitCode};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Map, Value};
use spiderpool_core::gc::ValidAttachments;
use spiderpool_core::names::{PodName, PodUid};
use tracing::{Span, error, info, info_span};

use crate::env::{Command, EnvError, Request};
use crate::error::{ConfigError, PanicText, PluginError};
use crate::log::{self, LogOptions};
use crate::spec::{Version, valid_attachments, versions_json};

/// One of our plugins.
pub trait Plugin {
    /// The parsed network configuration.
    type Config;
    /// Name of the binary.
    const NAME: &'static str;

    /// Parses the configuration for `command`; for DEL, whatever it is.
    fn parse(bytes: &[u8], command: Command) -> Result<Self::Config, PluginError>;
    /// Where to log.
    fn log_options(config: &Self::Config) -> LogOptions;
    /// The network's name.
    fn network(config: &Self::Config) -> &str;
    /// STATUS: whether ADD can work.
    fn status(config: &Self::Config) -> Result<(), PluginError>;
    /// ADD; the result in `version`.
    fn add(request: &Request, config: Self::Config, version: Version) -> Result<Value, PluginError>;
    /// DEL.
    fn del(request: &Request, config: Self::Config) -> Result<(), PluginError>;
    /// CHECK.
    fn check(request: &Request, config: Self::Config) -> Result<(), PluginError>;
    /// GC.
    fn gc(config: &Self::Config, valid: ValidAttachments) -> Result<(), PluginError>;
}

/// `cniVersion` of the request, for errors of whatever comes later.
static CNI_VERSION: OnceLock<&str> = OnceLock::new();

/// Runs the plugin: one request, one answer.
pub fn run<P: Plugin>() -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let error = PluginError::Panic(PanicText(info.to_string()));
        error!(error = %info, "plugin panicked");
        print_error(&error);
        process::exit(1);
    }));
    match answer::<P>() {
        Ok(Some(json)) => {
            print(&json);
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn answer<P: Plugin>() -> Result<Option<Value>, PluginError> {
    let command: Command = variable("CNI_COMMAND").unwrap_or_default().parse()?;
    let mut input = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut input);
    if command == Command::Version {
        read.map_err(PluginError::Stdin)?;
        return Ok(Some(versions_json(&cni_version(&input).unwrap_or_default())));
    }
    let version: Version = if command == Command::Del {
        // A pod must be able to end whatever its configuration says, and DEL answers nothing that has a version.
        cni_version(&input).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    } else {
        read.map_err(PluginError::Stdin)?;
        cni_version(&input)?.parse().map_err(PluginError::Version)?
    };
    let _first = CNI_VERSION.set(version.as_str());
    if command.is_of_network() && version < Version::V1_1_0 {
        return Err(EnvError::Command(command.to_string()).into());
    }
    let request = Request::read(command, variable)?;
    let config = P::parse(&input, command)?;
    let options = P::log_options(&config);
    log::start(&options);
    if options.filter().is_none() && command != Command::Del {
        return Err(ConfigError::LogLevel(options.level).into());
    }
    let started = Instant::now();
    let span = request
        .as_ref()
        .map_or_else(|| network_span::<P>(command, &config), |request| request_span::<P>(command, request));
    let _entered = span.enter();
    let result = match request {
        Some(request) => serve::<P>(command, &request, config, version),
        None => serve_network::<P>(command, &config, &input).map(|()| None),
    };
    log_outcome(&result, started);
    result
}

fn network_span<P: Plugin>(command: Command, config: &P::Config) -> Span {
    info_span!("cni", plugin = P::NAME, %command, network = P::network(config))
}

fn request_span<P: Plugin>(command: Command, request: &Request) -> Span {
    info_span!(
        "cni",
        plugin = P::NAME,
        %command,
        container_id = %request.container_id,
        netns = request.netns,
        nic = %request.nic,
        pod_namespace = request.pod.as_ref().map(PodName::namespace),
        pod = request.pod.as_ref().map(PodName::name),
        pod_uid = request.pod_uid.as_ref().map(PodUid::as_str),
    )
}

/// What is about a network, not about an attachment.
fn serve_network<P: Plugin>(command: Command, config: &P::Config, input: &[u8]) -> Result<(), PluginError> {
    if command == Command::Status {
        return P::status(config);
    }
    let network = P::network(config).to_owned();
    P::gc(config, ValidAttachments { network, nics: valid_attachments(input)? })
}

fn serve<P: Plugin>(
    command: Command,
    request: &Request,
    config: P::Config,
    version: Version,
) -> Result<Option<Value>, PluginError> {
    match command {
        Command::Add => P::add(request, config, version).map(Some),
        Command::Check => P::check(request, config).map(|()| None),
        _ => P::del(request, config).map(|()| None),
    }
}

fn log_outcome(result: &Result<Option<Value>, PluginError>, started: Instant) {
    let micros = started.elapsed().as_micros() as u64;
    match result {
        Ok(_) => info!(micros, "request done"),
        Err(e) => {
            let object = e.to_object("");
            error!(
                micros,
                reason = %e.reason(),
                code = object.code,
                error = object.msg,
                details = object.details,
                "request failed"
            );
        }
    }
}

/// Decides how the rest is read; a configuration without one is of a version before ours. Where it has none, libcni
/// writes an empty one.
fn cni_version(input: &[u8]) -> Result<String, PluginError> {
    let object: Map<String, Value> = serde_json::from_slice(input).map_err(PluginError::Decode)?;
    let version = object.get("cniVersion").and_then(Value::as_str).filter(|version| !version.is_empty());
    Ok(version.unwrap_or("0.1.0").to_owned())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn print_error(error: &PluginError) {
    let version = CNI_VERSION.get().copied().unwrap_or(Version::V1_0_0.as_str());
    print(&error.to_object(version));
}

/// Nobody is left to tell if standard output is closed.
fn print(json: &impl serde::Serialize) {
    let mut text = serde_json::to_vec(json).unwrap_or_default();
    text.push(b'\n');
    let mut out = io::stdout().lock();
    drop(out.write_all(&text).and_then(|()| out.flush()));
}
