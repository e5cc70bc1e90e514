//! The binaries as a runtime sees them: environment and standard input in, one JSON object and an exit code out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions it calls")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The plugins that ask the agent.
const ASKING: [&str; 2] = [env!("CARGO_BIN_EXE_spiderpool"), env!("CARGO_BIN_EXE_coordinator")];
const IFACER: &str = env!("CARGO_BIN_EXE_ifacer");
const PLUGINS: [&str; 3] = [ASKING[0], ASKING[1], IFACER];
const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c0ffee"),
    ("CNI_NETNS", "/no/such/netns"),
    ("CNI_IFNAME", "net1"),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=n;K8S_POD_UID=u"),
];

/// Exit code and what was printed; nothing is null.
fn run(plugin: &str, environment: &[(&str, &str)], input: &str) -> (i32, Value) {
    let (exit, printed, _) = run_logged(plugin, environment, input.as_bytes());
    (exit, printed)
}

/// The same, and what was written to standard error.
fn run_logged(plugin: &str, environment: &[(&str, &str)], input: &[u8]) -> (i32, Value, String) {
    let mut child = Command::new(plugin)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin that fails for its environment need not read.
    drop(child.stdin.take().unwrap().write_all(input));
    let output = child.wait_with_output().unwrap();
    let printed =
        if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    (output.status.code().unwrap(), printed, String::from_utf8(output.stderr).unwrap())
}

/// It logs to standard error, as its log file is none that plugins write to.
fn config() -> Value {
    let log = "/nowhere/plugin.log";
    json!({
        "cniVersion": "1.0.0", "name": "n", "type": "x", "prevResult": {"ips": []},
        "ipam": {"log_file_path": log, "ipam_unix_socket_path": "/no/such/socket"},
        "interfaces": ["lo"], "ipamUnixSocketPath": "/no/such/socket", "logOptions": {"logFile": log},
    })
}

#[track_caller]
fn check(environment: &[(&str, &str)], input: &str, code: u64, part: &str) {
    check_each(&PLUGINS, environment, input, code, part);
}

#[track_caller]
fn check_each(plugins: &[&str], environment: &[(&str, &str)], input: &str, code: u64, part: &str) {
    for plugin in plugins {
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
    let good = config().to_string();
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
    check(&ADD, r#"{"cniVersion":"","name":"n"}"#, 1, "\"0.1.0\"");
    check(&ADD, r#"{"cniVersion":"0.2.0"}"#, 1, "incompatible CNI version");
    check(&ADD, r#"{"cniVersion":"1.0.0","name":3}"#, 6, "expected a string");
}

/// The kernel lets connections wait; nobody answers them.
#[test]
fn del_of_all_plugins_ends_with_an_agent_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let _agent = UnixListener::bind(&socket).unwrap();
    let mut config = config();
    config["ipam"]["ipam_unix_socket_path"] = json!(socket);
    config["ipamUnixSocketPath"] = json!(socket);
    let begun = Instant::now();
    for plugin in PLUGINS {
        let (exit, printed) = run(plugin, &with("CNI_COMMAND", "DEL"), &config.to_string());
        assert_eq!((exit, printed), (0, Value::Null), "{plugin}");
    }
    // By the plugins' own deadlines 13 s; on a busy machine processes start late.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}

/// Answers `count` requests with this status; the lines and bodies of the requests.
fn agent(
    folder: &tempfile::TempDir,
    status: &'static str,
    count: usize,
) -> (String, JoinHandle<Vec<String>>) {
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let mut requests = Vec::new();
        for _ in 0..count {
            let mut stream = listener.accept().unwrap().0;
            let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") && !request.ends_with(b"null") {
                let length = stream.read(&mut chunk).unwrap();
                request.extend_from_slice(&chunk[..length]);
            }
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
            let request = String::from_utf8(request).unwrap();
            let (line, body) = (request.lines().next().unwrap(), request.lines().last().unwrap());
            requests.push(format!("{line} {body}"));
        }
        requests
    });
    (socket.to_str().unwrap().to_owned(), server)
}

fn of_network(socket: &str) -> Value {
    let mut config = config();
    config.as_object_mut().unwrap().remove("prevResult");
    config["cniVersion"] = json!("1.1.0");
    config["ipam"]["ipam_unix_socket_path"] = json!(socket);
    config["ipamUnixSocketPath"] = json!(socket);
    config
}

/// A runtime takes its node for unusable on any error, so an agent that answers must be enough.
#[test]
fn status_is_the_agents_answer() {
    let status = [("CNI_COMMAND", "STATUS")];
    check_each(
        &ASKING,
        &status,
        &of_network("/no/such/socket").to_string(),
        50,
        "spiderpool-agent does not answer",
    );
    check(&status, &config().to_string(), 4, "CNI_COMMAND \"STATUS\"");
    let folder = tempfile::tempdir().unwrap();
    let (socket, server) = agent(&folder, "200 OK", ASKING.len());
    for plugin in ASKING {
        assert_eq!(run(plugin, &status, &of_network(&socket).to_string()), (0, Value::Null), "{plugin}");
    }
    assert_eq!(server.join().unwrap(), ["GET /v1/ipam/healthy HTTP/1.1 null"; 2]);
    let folder = tempfile::tempdir().unwrap();
    let (socket, server) = agent(&folder, "503 Service Unavailable", ASKING.len());
    check_each(&ASKING, &status, &of_network(&socket).to_string(), 50, "503");
    server.join().unwrap();
    assert_eq!(
        run(IFACER, &status, &of_network("/no/such/socket").to_string()),
        (0, Value::Null),
        "it asks nobody"
    );
}

#[test]
fn gc_hands_the_agent_the_list_and_never_a_missing_one() {
    let gc = [("CNI_COMMAND", "GC")];
    let folder = tempfile::tempdir().unwrap();
    let (socket, server) = agent(&folder, "200 OK", ASKING.len());
    let mut input = of_network(&socket);
    check(&gc, &input.to_string(), 7, "cni.dev/valid-attachments is missing");
    input["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "net1"}]);
    for plugin in ASKING {
        assert_eq!(run(plugin, &gc, &input.to_string()), (0, Value::Null), "{plugin}");
    }
    let body = r#"{"network":"n","validAttachments":[{"containerID":"c1","ifName":"net1"}]}"#;
    let expect = ["ipam", "dataplane"].map(|part| format!("POST /v1/{part}/gc HTTP/1.1 {body}"));
    assert_eq!(server.join().unwrap(), expect);
    assert_eq!(run(IFACER, &gc, &input.to_string()), (0, Value::Null), "it has nothing of one attachment");
    check_each(&ASKING, &gc, &input.to_string(), 11, "unhealthy spiderpool-agent backend");
    input["cniVersion"] = json!("1.0.0");
    check(&gc, &input.to_string(), 4, "CNI_COMMAND \"GC\"");
}

#[test]
fn an_unknown_log_level_is_an_error() {
    let mut loud = config();
    loud["ipam"]["log_level"] = json!("loud");
    loud["logOptions"]["logLevel"] = json!("loud");
    check(&ADD, &loud.to_string(), 7, "unsupported log level \"loud\"");
}

#[test]
fn deleting_succeeds_without_namespace_and_agent() {
    let input = config().to_string();
    for plugin in PLUGINS {
        for netns in ["/no/such/netns", ""] {
            let (exit, printed, log) = run_logged(plugin, &del(netns), input.as_bytes());
            assert_eq!((exit, printed), (0, Value::Null), "{plugin}: {log}");
            let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let first = lines.next().unwrap();
            assert_eq!(first["message"], "log file cannot be opened");
            assert_eq!(first["error"], "log files must be below /var/log");
            let lines: Vec<Value> = lines.collect();
            let is_spanned =
                |line: &Value| line["span"]["container_id"] == "c0ffee" && line["span"]["nic"] == "net1";
            assert!(!lines.is_empty() && lines.iter().all(is_spanned), "{log}");
        }
    }
}

fn del(netns: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut environment = with("CNI_COMMAND", "DEL");
    environment.iter_mut().filter(|pair| pair.0 == "CNI_NETNS").for_each(|pair| pair.1 = netns);
    environment
}

/// A DEL that fails is repeated for ever, and the pod stays in Terminating.
#[test]
fn deleting_takes_any_version_and_a_configuration_lost_with_the_power() {
    let config = |version: &str| {
        let mut config = config();
        config["cniVersion"] = json!(version);
        config.to_string().into_bytes()
    };
    let mut inputs: Vec<Vec<u8>> = ["", "0.1.0", "0.2.0", "1.2.0", "one"].map(config).into();
    let mut without = self::config();
    without.as_object_mut().unwrap().remove("cniVersion");
    inputs.push(without.to_string().into_bytes());
    let whole = self::config().to_string().into_bytes();
    inputs.extend([0, 1, whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec()));
    inputs.extend([&b"[]"[..], b"null", b"7", b"\0\0\0\0", b"{\"cniVersion\":7}"].map(<[u8]>::to_vec));
    for plugin in PLUGINS {
        for input in &inputs {
            // Some log to the default file, as on a node.
            let (exit, printed, log) = run_logged(plugin, &del(""), input);
            let text = String::from_utf8_lossy(input);
            assert_eq!((exit, printed), (0, Value::Null), "{plugin} {text}: {log}");
        }
    }
}
