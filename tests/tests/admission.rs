//! The chart's admission policies on a real API server, with tokens as pods have them.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use spiderpool_api::node_lease;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::{poll, process, tools};

const LIMIT: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "spiderpool";
/// By which the controller's replicas elect a leader.
const LEADER: &str = "spiderpool-controller-leases";
const POLICIES: [&str; 2] = ["templates/admission/policies.yaml", "templates/agent/rbac.yaml"];

/// The control plane with the policies in force, an agent's pod on each of two nodes, and the token of each.
struct Bench {
    plane: &'static ControlPlane,
    agents: [String; 2],
}

impl Bench {
    fn start() -> Self {
        let plane = ControlPlane::shared();
        plane
            .apply(
                &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
                    .to_string(),
            )
            .unwrap();
        plane.apply(&rendered()).unwrap();
        let agents = ["node-a", "node-b"].map(|node| token(plane, node));
        let bench = Self { plane, agents };
        // The API server takes policies up a moment after they are written.
        poll::until("policies in force", LIMIT, || {
            for (kind, object) in [
                ("address", address("203.0.113.1", "node-b")),
                ("endpoint", endpoint("probe", "node-b")),
                ("Lease", lease("node-b")),
            ] {
                let refused = bench.agent(0, &["create", "--dry-run=server", "-f", "-"], &object);
                anyhow::ensure!(refused.is_err(), "an agent may write another node's {kind}");
            }
            bench.plane.kubectl_with_input(&["apply", "-f", "-"], &address("203.0.113.2", "node-a"))?;
            let refused = bench.plane.kubectl(&["delete", "sip", "203.0.113.2", "--dry-run=server"]);
            anyhow::ensure!(refused.is_err(), "an address in use may be deleted");
            Ok(())
        })
        .unwrap();
        bench
    }

    /// kubectl with the token of an agent alone.
    fn agent(&self, index: usize, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let home = tempfile::tempdir()?;
        let mut kubectl = Command::new(tools::kubernetes("kubectl")?);
        kubectl.env("HOME", home.path()).env("KUBECONFIG", "/dev/null");
        kubectl.args(["--server", &self.plane.url(), "--insecure-skip-tls-verify"]);
        kubectl.args(["--token", &self.agents[index]]).args(arguments);
        process::output_with_input(&kubectl, input)
    }

    #[track_caller]
    fn refused(&self, index: usize, arguments: &[&str], input: &str, expect: &str) {
        match self.agent(index, arguments, input) {
            Ok(answer) => panic!("{arguments:?}: {answer}"),
            Err(error) => assert!(format!("{error:#}").contains(expect), "{arguments:?}: {error:#}"),
        }
    }
}

fn rendered() -> String {
    let mut helm = Command::new(tools::kubernetes("helm").unwrap());
    helm.args(["template", "spiderpool"]).arg(tools::chart().unwrap());
    helm.args([
        "--namespace",
        NAMESPACE,
        "--api-versions",
        "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",
    ]);
    for file in POLICIES {
        helm.args(["--show-only", file]);
    }
    process::output(&helm).unwrap()
}

/// As the kubelet asks for it: bound to a pod that runs on the node.
fn token(plane: &ControlPlane, node: &str) -> String {
    let pod = format!("spiderpool-agent-{node}");
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE}, "spec": {
            "nodeName": node, "serviceAccountName": "spiderpool-agent",
            "containers": [{"name": "agent", "image": "none"}]}},
    ]});
    plane.apply(&objects.to_string()).unwrap();
    let create = ["create", "token", "spiderpool-agent", "-n", NAMESPACE, "--bound-object-kind=Pod"];
    let token = plane.kubectl(&[&create[..], &[&format!("--bound-object-name={pod}")]].concat());
    token.unwrap().trim().to_owned()
}

fn address(ip: &str, node: &str) -> String {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress", "metadata": {"name": ip},
        "spec": {"address": format!("{ip}/24"), "pool": "p", "node": node, "interface": "net1",
            "podNamespace": "default", "podName": "web", "podUID": "u", "state": "bound"},
    })
    .to_string()
}

fn endpoint(name: &str, node: &str) -> String {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderEndpoint",
        "metadata": {"name": name, "namespace": "default"},
        "status": {"current": {"uid": "u", "node": node, "ips": []}, "ownerControllerType": "Pod", "ownerControllerName": name},
    })
    .to_string()
}

/// As the agent of `node` writes it.
fn lease(node: &str) -> String {
    let now = Timestamp::now();
    let mut lease = node_lease::lease(&node.parse().unwrap(), "u", &BTreeSet::new(), now);
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    serde_json::to_string(&lease).unwrap()
}

const CREATE: [&str; 3] = ["create", "-f", "-"];

#[test]
fn an_address_in_use_is_deleted_by_spiderpool_alone_or_on_purpose() {
    let bench = Bench::start();
    let (plane, ip) = (bench.plane, "198.51.100.7");
    plane.kubectl_with_input(&CREATE, &address(ip, "node-a")).unwrap();
    let refused = format!("{:#}", plane.kubectl(&["delete", "sip", ip]).unwrap_err());
    // As docs/install.md shows it.
    let text = "Error from server (Forbidden): spideripaddresses.spiderpool.spidernet.io \"198.51.100.7\" is forbidden: \
                ValidatingAdmissionPolicy 'spiderpool-addresses-in-use' with binding 'spiderpool-addresses-in-use' \
                denied request: address 198.51.100.7 is in use by pod default/web, and another pod could get it";
    assert!(refused.contains(text), "{refused}");
    assert!(refused.contains("allow-deletion=true"), "{refused}");
    assert!(plane.kubectl(&["delete", "sip", "--all"]).is_err(), "nor with others");
    let allowed = format!("{}=true", spiderpool_api::annotations::ALLOW_DELETION);
    plane.kubectl(&["annotate", "sip", ip, &allowed]).unwrap();
    plane.kubectl(&["delete", "sip", ip]).unwrap();
    // One that no pod uses.
    let kept = address(ip, "node-a").replace("bound", "kept");
    plane.kubectl_with_input(&CREATE, &kept).unwrap();
    plane.kubectl(&["delete", "sip", ip]).unwrap();
}

#[test]
fn an_agents_token_writes_what_is_its_own_nodes() {
    let bench = Bench::start();
    let (own, other) = (address("198.51.100.10", "node-a"), address("198.51.100.11", "node-b"));
    bench.agent(0, &CREATE, &own).unwrap();
    bench.refused(
        0,
        &CREATE,
        &other,
        "the agent of node node-a may not write what belongs to node \"node-b\"",
    );
    bench.agent(1, &CREATE, &other).unwrap();
    let patch = |ip: &str, spec: &str| {
        let spec = format!(r#"{{"spec":{spec}}}"#);
        ["patch", "sip", ip, "--type=merge", "-p", &spec].map(str::to_owned).to_vec()
    };
    let refused = |arguments: Vec<String>, expect: &str| {
        bench.refused(0, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "", expect);
    };
    let allowed = |arguments: Vec<String>| {
        bench.agent(0, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "").unwrap();
    };
    let foreign = "may not write what belongs to node \"node-b\"";
    refused(patch("198.51.100.11", r#"{"containerID":"c"}"#), foreign);
    refused(patch("198.51.100.11", r#"{"node":"node-a"}"#), foreign);
    bench.refused(0, &["delete", "sip", "198.51.100.11"], "", foreign);
    allowed(patch("198.51.100.10", r#"{"containerID":"c"}"#));
    refused(patch("198.51.100.10", r#"{"node":"node-b"}"#), "may not write");
    // Without a node it is for the next pod of its owner's name, wherever that runs.
    bench
        .plane
        .kubectl(&[
            "patch",
            "sip",
            "198.51.100.11",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/spec/node"}]"#,
        ])
        .unwrap();
    refused(patch("198.51.100.11", r#"{"node":"node-a","podName":"other"}"#), "may not write");
    bench.refused(0, &["delete", "sip", "198.51.100.11"], "", "may not write");
    allowed(patch("198.51.100.11", r#"{"node":"node-a","podUID":"v"}"#));
    bench.agent(0, &["delete", "sip", "198.51.100.10", "198.51.100.11"], "").unwrap();
}

/// The pods of a virtual machine have other names each time; of two machines neither takes what the other has left.
#[test]
fn an_agents_token_takes_over_what_is_kept_for_the_same_virtual_machine() {
    let bench = Bench::start();
    let ip = "198.51.100.12";
    let mut kept: serde_json::Value = serde_json::from_str(&address(ip, "node-b")).unwrap();
    kept["spec"].as_object_mut().unwrap().remove("node");
    kept["spec"]["virtualMachine"] = "db".into();
    bench.plane.kubectl_with_input(&CREATE, &kept.to_string()).unwrap();
    let patch =
        |spec: &str| format!(r#"{{"spec":{{"node":"node-a","podName":"other","podUID":"v"{spec}}}}}"#);
    for machine in [r#","virtualMachine":"web""#, r#","virtualMachine":null"#, r#","podNamespace":"x""#] {
        let patch = patch(machine);
        bench.refused(0, &["patch", "sip", ip, "--type=merge", "-p", &patch], "", "may not write");
    }
    bench.agent(0, &["patch", "sip", ip, "--type=merge", "-p", &patch("")], "").unwrap();
    bench.agent(0, &["delete", "sip", ip], "").unwrap();
    // What is no machine's is none of a pod with another name, whatever machine that says to be of.
    kept["spec"].as_object_mut().unwrap().remove("virtualMachine");
    bench.plane.kubectl_with_input(&CREATE, &kept.to_string()).unwrap();
    for machine in ["", r#","virtualMachine":"db""#] {
        let patch = patch(machine);
        bench.refused(0, &["patch", "sip", ip, "--type=merge", "-p", &patch], "", "may not write");
    }
    let same = r#"{"spec":{"node":"node-a"}}"#;
    bench.agent(0, &["patch", "sip", ip, "--type=merge", "-p", same], "").unwrap();
    bench.agent(0, &["delete", "sip", ip], "").unwrap();
}

#[test]
fn an_agents_token_writes_endpoints_of_its_own_node() {
    let bench = Bench::start();
    bench.agent(0, &CREATE, &endpoint("own", "node-a")).unwrap();
    bench.refused(
        0,
        &CREATE,
        &endpoint("foreign", "node-b"),
        "may not write what belongs to node \"node-b\"",
    );
    bench.agent(1, &CREATE, &endpoint("foreign", "node-b")).unwrap();
    bench.refused(0, &["delete", "se", "foreign", "-n", "default"], "", "node-b");
    bench.refused(0, &["replace", "-f", "-"], &endpoint("foreign", "node-a"), "node-b");
    // What a StatefulSet's pod leaves is no node's: any agent completes it, takes it over or removes it, and makes none such.
    bench.refused(0, &CREATE, &endpoint("nobodys", ""), "may not write");
    bench.agent(0, &["replace", "-f", "-"], &endpoint("own", "")).unwrap();
    for (index, node) in [(1, ""), (1, "node-b"), (1, "")] {
        bench.agent(index, &["replace", "-f", "-"], &endpoint("own", node)).unwrap();
    }
    bench.refused(0, &["replace", "-f", "-"], &endpoint("own", "node-b"), "node-b");
    bench.agent(0, &["delete", "se", "own", "-n", "default"], "").unwrap();
}

/// Another node's would keep or free that node's addresses, and the leader's would end its lead.
#[test]
fn an_agents_token_writes_the_lease_of_its_own_node_alone() {
    let bench = Bench::start();
    let (own, other) = (lease("node-a"), lease("node-b"));
    let foreign = "the agent of node node-a may not write Lease spiderpool-agent.node-b";
    bench.agent(0, &CREATE, &own).unwrap();
    bench.agent(0, &["replace", "-f", "-"], &with_version(&bench, "node-a")).unwrap();
    bench.refused(0, &CREATE, &other, foreign);
    bench.agent(1, &CREATE, &other).unwrap();
    bench.refused(0, &["replace", "-f", "-"], &with_version(&bench, "node-b"), foreign);
    bench.refused(0, &of_namespace(&["delete", "lease", "spiderpool-agent.node-b"]), "", foreign);
    // The name is what counts.
    let renamed = other.replace("spiderpool-agent.node-b", "spiderpool-agent.node-a");
    assert!(node_lease::node(&serde_json::from_str(&renamed).unwrap()).is_none());
    let generated =
        own.replace(r#""name":"spiderpool-agent.node-a""#, r#""generateName":"spiderpool-agent.node-""#);
    assert_ne!(generated, own);
    bench.refused(0, &CREATE, &generated, "may not write Lease spiderpool-agent.node-");

    let leader = own.replace("spiderpool-agent.node-a", LEADER);
    bench.refused(0, &CREATE, &leader, &format!("may not write Lease {LEADER}"));
    bench.plane.kubectl_with_input(&CREATE, &leader).unwrap();
    bench.refused(
        0,
        &of_namespace(&["delete", "lease", LEADER]),
        "",
        &format!("may not write Lease {LEADER}"),
    );
    // No policy, but no right either.
    let elsewhere = own.replace(&format!(r#""namespace":"{NAMESPACE}""#), r#""namespace":"default""#);
    bench.refused(0, &CREATE, &elsewhere, "cannot create resource \"leases\"");

    bench.agent(0, &of_namespace(&["delete", "lease", "spiderpool-agent.node-a"]), "").unwrap();
    bench.agent(1, &of_namespace(&["delete", "lease", "spiderpool-agent.node-b"]), "").unwrap();
    bench.plane.kubectl(&of_namespace(&["delete", "lease", LEADER])).unwrap();
}

fn of_namespace<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["-n", NAMESPACE]].concat()
}

/// A node's Lease as it is, for a replacement.
fn with_version(bench: &Bench, node: &str) -> String {
    let name = format!("spiderpool-agent.{node}");
    bench.plane.kubectl(&of_namespace(&["get", "lease", &name, "-o", "json"])).unwrap()
}

/// A token that somebody made of the service account is bound to no pod.
#[test]
fn a_token_without_a_node_writes_nothing() {
    let mut bench = Bench::start();
    let token = bench.plane.kubectl(&["create", "token", "spiderpool-agent", "-n", NAMESPACE]).unwrap();
    bench.agents[0] = token.trim().to_owned();
    bench.refused(0, &CREATE, &address("198.51.100.20", "node-a"), "the agent's token names no node");
    bench.refused(0, &CREATE, &lease("node-c"), "the agent's token names no node");
}
