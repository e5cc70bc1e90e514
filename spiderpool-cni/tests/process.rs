//! The binaries as a runtime sees them: environment and standard input in, one JSON object and an exit code out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions it calls")]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const PLUGINS: [&str; 2] = [env!("CARGO_BIN_EXE_spiderpool"), env!("CARGO_BIN_EXE_coordinator")];
const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c0ffee"),
    ("CNI_NETNS", "/no/such/netns"),
    ("CNI_IFNAME", "net1"),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=n;K8S_POD_UID=u"),
];

/// Exit code and what was printed; nothing is null.
fn run(plugin: &str, environment: &[(&str, &str)], input: &str) -> (i32, Value) {
    let mut child = Command::new(plugin)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A plugin that fails for its environment need not read.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let printed =
        if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    (output.status.code().unwrap(), printed)
}

fn config(folder: &tempfile::TempDir) -> Value {
    let log = folder.path().join("log").join("plugin.log");
    json!({
        "cniVersion": "1.0.0", "name": "n", "type": "x", "prevResult": {"ips": []},
        "ipam": {"log_file_path": log, "ipam_unix_socket_path": "/no/such/socket"},
        "ipamUnixSocketPath": "/no/such/socket", "logOptions": {"logFile": log},
    })
}

#[track_caller]
fn check(environment: &[(&str, &str)], input: &str, code: u64, part: &str) {
    for plugin in PLUGINS {
        let (exit, error) = run(plugin, environment, input);
        assert_eq!((exit, error["code"].as_u64()), (1, Some(code)), "{plugin}: {error}");
        let text = format!("{}: {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap());
        assert!(text.contains(part), "{plugin}: {text}");
        assert!(error["cniVersion"].is_string(), "{plugin}: {error}");
    }
}

fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    ADD.iter().map(|pair| if pair.0 == name { (name, value) } else { *pair }).collect()
}

#[test]
fn version_needs_nothing() {
    for plugin in PLUGINS {
        for (input, version) in [("", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
            let (exit, answer) = run(plugin, &[("CNI_COMMAND", "VERSION")], input);
            assert_eq!((exit, answer["cniVersion"].as_str()), (0, Some(version)));
            assert_eq!(answer["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        }
    }
}

#[test]
fn bad_requests_are_one_error_each() {
    let folder = tempfile::tempdir().unwrap();
    let good = config(&folder).to_string();
    check(&[], &good, 4, "CNI_COMMAND");
    check(&[("CNI_COMMAND", "ADD")], &good, 4, "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME");
    check(&with("CNI_COMMAND", "RUN"), &good, 4, "CNI_COMMAND \"RUN\"");
    check(&with("CNI_COMMAND", "STATUS"), &good, 4, "STATUS");
    check(&with("CNI_IFNAME", "a/b"), &good, 4, "CNI_IFNAME");
    check(&with("CNI_ARGS", "FOO=1"), &good, 4, "failed to load CNI ENV args");
    check(&ADD, &good, 4, "network namespace /no/such/netns is gone");
    check(&ADD, "", 6, "failed to decode");
    check(&ADD, "[]", 6, "expected a map");
    check(&ADD, r#"{"name":"n"}"#, 1, "\"0.1.0\"");
    check(&ADD, r#"{"cniVersion":"0.2.0"}"#, 1, "incompatible CNI version");
    check(&ADD, r#"{"cniVersion":"1.0.0","name":3}"#, 6, "expected a string");
    for command in ["STATUS", "GC"] {
        check(&with("CNI_COMMAND", command), r#"{"cniVersion":"1.1.0"}"#, 102, "not supported yet");
    }
}

#[test]
fn an_unknown_log_level_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut loud = config(&folder);
    loud["ipam"]["log_level"] = json!("loud");
    loud["logOptions"]["logLevel"] = json!("loud");
    check(&ADD, &loud.to_string(), 7, "unsupported log level \"loud\"");
}

#[test]
fn deleting_succeeds_without_namespace_and_agent() {
    let folder = tempfile::tempdir().unwrap();
    let input = config(&folder).to_string();
    for plugin in PLUGINS {
        for netns in ["/no/such/netns", ""] {
            let environment: Vec<_> = ADD
                .iter()
                .map(|pair| match pair.0 {
                    "CNI_COMMAND" => ("CNI_COMMAND", "DEL"),
                    "CNI_NETNS" => ("CNI_NETNS", netns),
                    _ => *pair,
                })
                .collect();
            assert_eq!(run(plugin, &environment, &input), (0, Value::Null), "{plugin}");
        }
    }
    let log = std::fs::read_to_string(folder.path().join("log").join("plugin.log")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines.iter().all(|line| line["span"]["container_id"] == "c0ffee" && line["span"]["nic"] == "net1"),
        "{log}"
    );
}
