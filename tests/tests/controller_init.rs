//! spiderpool-init and `spiderpool-controller clean` against a real API server: twice, with changed values, over what
//! users have edited and what older versions have left.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Crds, Options};
use spiderpool_tests::{process, tools};
use support::Bench;

/// Runs a program with the administrator's rights.
fn run(
    plane: &ControlPlane,
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> anyhow::Result<String> {
    let mut command = Command::new("sh");
    // What it says goes to standard error.
    command
        .args(["-c", "exec \"$0\" \"$@\" 2>&1"])
        .arg(tools::spiderpool(program)?)
        .args(arguments)
        .env("KUBECONFIG", plane.admin())
        .envs(environment.iter().copied());
    process::output(&command)
}

fn get(plane: &ControlPlane, arguments: &[&str]) -> Value {
    let text = plane.kubectl(&[&["get", "-o", "json"], arguments].concat()).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Runs spiderpool-init with this file.
fn init(plane: &ControlPlane, file: &Value, environment: &[(&str, &str)]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("init.yml");
    std::fs::write(&path, file.to_string())?;
    run(plane, "spiderpool-init", &["--config-path", path.to_str().unwrap()], environment)
}

/// Upstream takes an object that exists for success: an upgrade changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_applies_changed_values_except_those_a_user_has_set() {
    let plane = ControlPlane::shared();
    let name = "init-pool";
    let file = |range: &str, mode: &str, hijack: &str| {
        json!({
            "ipv4Pool": {
                "name": name, "subnet": "10.50.0.0/16", "ipRanges": [range], "gateway": "10.50.0.1",
            },
            "coordinator": {"name": "init-scc", "spec": {"mode": mode, "hijackCIDR": [hijack]}},
        })
    };
    let first = file("10.50.1.1-10.50.1.9", "auto", "169.254.0.0/16");
    init(plane, &first, &[]).unwrap();
    let made = get(plane, &["spiderippool", name]);
    assert_eq!(
        made["spec"],
        json!({
            "ipVersion": 4, "subnet": "10.50.0.0/16", "ips": ["10.50.1.1-10.50.1.9"], "gateway": "10.50.0.1",
            "default": true, "disable": false,
        })
    );
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    init(plane, &first, &[]).unwrap();
    assert_eq!(
        version(&get(plane, &["spiderippool", name])),
        version(&made),
        "the second time changes nothing"
    );

    // By hand: what the user has changed stays, the rest follows the values.
    let edit = r#"{"spec": {"mode": "overlay"}}"#;
    plane.kubectl(&["patch", "spidercoordinator", "init-scc", "--type=merge", "-p", edit]).unwrap();
    let second = file("10.50.1.1-10.50.1.99", "underlay", "1.2.3.4");
    let output = init(plane, &second, &[]).unwrap();
    assert!(output.contains(".spec.mode") && output.contains("is kept"), "{output}");
    let coordinator = get(plane, &["spidercoordinator", "init-scc"]);
    assert_eq!(coordinator["spec"]["mode"], "overlay");
    assert_eq!(coordinator["spec"]["hijackCIDR"], json!(["1.2.3.4/32"]));
    assert_eq!(get(plane, &["spiderippool", name])["spec"]["ips"], json!(["10.50.1.1-10.50.1.99"]));
}

/// Upstream makes subnets before pools.
#[tokio::test(flavor = "multi_thread")]
async fn subnets_of_default_pools_are_made_with_them_and_follow_the_values() {
    let plane = ControlPlane::shared();
    let file = |range: &str| {
        json!({
            "ipv4Pool": {
                "name": "init-v4-pool", "subnetName": "init-v4-subnet", "subnet": "10.52.0.0/16",
                "ipRanges": [range], "gateway": "10.52.0.1",
            },
            "ipv6Pool": {"subnetName": "init-v6-subnet", "subnet": "fd52::/64", "ipRanges": ["fd52::1-fd52::9"]},
        })
    };
    let first = file("10.52.1.1-10.52.1.9");
    let output = init(plane, &first, &[]).unwrap();
    let at =
        |object: &str| output.find(&format!("\"{object}\"")).unwrap_or_else(|| panic!("{object}: {output}"));
    assert!(at("SpiderSubnet init-v4-subnet") < at("SpiderIPPool init-v4-pool"), "{output}");
    let subnet = get(plane, &["spidersubnet", "init-v4-subnet"]);
    let pool = get(plane, &["spiderippool", "init-v4-pool"]);
    let expected = json!({
        "ipVersion": 4, "subnet": "10.52.0.0/16", "ips": ["10.52.1.1-10.52.1.9"], "gateway": "10.52.0.1",
    });
    assert_eq!(subnet["spec"], expected);
    for field in ["ipVersion", "subnet", "ips", "gateway"] {
        assert_eq!(pool["spec"][field], expected[field], "{field}");
    }
    assert_eq!(get(plane, &["spidersubnet", "init-v6-subnet"])["spec"]["ips"], json!(["fd52::1-fd52::9"]));

    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    init(plane, &first, &[]).unwrap();
    let again = get(plane, &["spidersubnet", "init-v4-subnet"]);
    assert_eq!(version(&again), version(&subnet), "the second time changes nothing");
    init(plane, &file("10.52.1.1-10.52.1.99"), &[]).unwrap();
    let wider = get(plane, &["spidersubnet", "init-v4-subnet"]);
    assert_eq!(wider["spec"]["ips"], json!(["10.52.1.1-10.52.1.99"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_value_fails_at_once_with_the_reason() {
    let plane = ControlPlane::shared();
    let refused = |file: &Value, part: &str| {
        let error = init(plane, file, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error}");
    };
    let pool = json!({"name": "same", "subnet": "10.51.0.0/16"});
    refused(&json!({"ipv4Pool": pool, "ipv6Pool": {"name": "same"}}), "both named");
    let coordinator = |spec: Value| json!({"coordinator": {"name": "init-bad", "spec": spec}});
    refused(&coordinator(json!({"mode": "sideways"})), "mode \"sideways\" is unknown");
    refused(&coordinator(json!({"vethMTU": 0})), "vethMTU 0");
    refused(&coordinator(json!({"podRPFilter": 1})), "podRPFilter 1 is strict");
    // What only the API server knows: it is the last to refuse.
    refused(&json!({"coordinator": {"name": "Init_Bad"}}), "is refused");
    refused(&json!({"ipv4Pool": {"subnetName": "s"}}), "IPv4 pool s needs a subnet");
}

/// Upstream waits without end.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_definitions_ends_at_the_deadline() {
    let options = Options { crds: Crds::None, ..Options::default() };
    let plane = ControlPlane::start(options).unwrap();
    let begun = Instant::now();
    let file = json!({"coordinator": {"name": "default"}});
    let error = init(&plane, &file, &[("SPIDERPOOL_INIT_DEADLINE", "3")]).unwrap_err().to_string();
    assert!(
        error.contains("SpiderCoordinator default") && error.contains("SPIDERPOOL_INIT_DEADLINE"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));

    // Crds of an older version, which lack fields and have what ours must not have.
    run(&plane, "spiderpool-init", &["apply-crds"], &[]).unwrap();
    let endpoint = "spiderendpoints.spiderpool.spidernet.io";
    let wanted = get(&plane, &["crd", endpoint])["spec"].clone();
    let mut older = wanted.clone();
    older["versions"][0]["subresources"] = json!({"status": {}});
    older["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["old"] = json!({"type": "string"});
    older["names"]["shortNames"] = json!([]);
    let patch = json!({"spec": older, "metadata": {"labels": {"user": "label"}}}).to_string();
    plane.kubectl(&["patch", "crd", endpoint, "--type=merge", "-p", &patch]).unwrap();
    run(&plane, "spiderpool-init", &["apply-crds"], &[]).unwrap();
    let now = get(&plane, &["crd", endpoint]);
    assert_eq!(now["spec"], wanted);
    assert_eq!(now["metadata"]["labels"]["user"], "label");
    init(&plane, &file, &[]).unwrap();
}

/// Multus' networks are not ours alone: another installation may have brought a newer definition.
#[test]
fn the_definition_of_networks_is_made_if_it_is_missing_and_left_as_it_is_otherwise() {
    let plane = ControlPlane::start(Options::default()).unwrap();
    let networks = "network-attachment-definitions.k8s.cni.cncf.io";
    let patch = json!({"spec": {"names": {"shortNames": ["of-another"]}}}).to_string();
    plane.kubectl(&["patch", "crd", networks, "--type=merge", "-p", &patch]).unwrap();
    run(&plane, "spiderpool-init", &["apply-crds"], &[]).unwrap();
    let short_names = || get(&plane, &["crd", networks])["spec"]["names"]["shortNames"].clone();
    assert_eq!(short_names(), json!(["of-another"]));
    plane.kubectl(&["delete", "crd", networks]).unwrap();
    run(&plane, "spiderpool-init", &["apply-crds"], &[]).unwrap();
    assert_eq!(short_names(), json!(["net-attach-def"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_leaves_only_addresses_of_running_pods() {
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "clean").await;
    let environment = [("SPIDERPOOL_POD_NAMESPACE", "clean"), ("SPIDERPOOL_AGENT_NAME", "spiderpool-agent")];
    bench.pool("p", "10.52.0.0/24", &["10.52.0.2-10.52.0.9"], &json!({}));
    let finalizer = r#"{"metadata": {"finalizers": ["spiderpool.spidernet.io"]}}"#;
    plane.kubectl(&["patch", "spiderippool", &bench.name("p"), "--type=merge", "-p", finalizer]).unwrap();
    let (runs, gone) = (bench.pod_with_pool("runs", "n1", "p"), bench.pod_with_pool("gone", "n1", "p"));
    let agent = bench.agent("n1").await;
    for pod in [&runs, &gone] {
        let add = pod.add("eth0", "c1");
        agent.ask(http::Method::POST, spiderpool_api::agent::path::IP, &add).await.unwrap().ok().unwrap();
        bench.endpoint(pod).await;
    }
    agent.kill().unwrap();
    bench.delete_pod(&gone);
    let held = bench.held(&runs)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    // The agent of a node that is not ready cannot be ended, and its Lease stays.
    bench.apply(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "spiderpool-agent.gone", "namespace": "clean"}, "spec": {"holderIdentity": "gone"},
    }));

    let said = run(&plane, "spiderpool-controller", &["clean"], &environment).unwrap();
    assert!(said.contains("running pods still use these addresses") && said.contains(&held), "{said}");
    // That of Multus' networks is not ours.
    let definitions = || {
        let all = plane.kubectl(&["get", "crd", "-o", "name"]).unwrap();
        all.lines().filter(|name| !name.contains("k8s.cni.cncf.io")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        definitions().trim(),
        "customresourcedefinition.apiextensions.k8s.io/spideripaddresses.spiderpool.spidernet.io"
    );
    let left = get(&plane, &["spideripaddresses"]);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], json!(held));
    assert_eq!(plane.kubectl(&["get", "leases", "-n", "clean", "-o", "name"]).unwrap(), "");

    // A new installation does not give that address to others.
    run(&plane, "spiderpool-init", &["apply-crds"], &[]).unwrap();
    bench.pool("p", "10.52.0.0/24", &[&held], &json!({}));
    let other = bench.pod_with_pool("other", "n1", "p");
    let agent = bench.agent("n1").await;
    support::failure(&agent, &other.add("eth0", "c2"), &bench.name("p")).await;
    agent.stop().unwrap();

    // And when the pod is gone nothing stays.
    bench.delete_pod(&runs);
    run(&plane, "spiderpool-controller", &["clean"], &environment).unwrap();
    assert_eq!(definitions(), "");
}

/// An earlier try deleted the agents' DaemonSet and ended before their pods did; and a node is dead.
#[tokio::test(flavor = "multi_thread")]
async fn clean_waits_for_pods_without_owner_but_not_for_nodes_that_are_not_ready() {
    let plane = ControlPlane::start(Options::default()).unwrap();
    let _bench = Bench::on(&plane, "left").await;
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let pod = |component: &str, node: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{component}-{node}"), "namespace": "left",
                "labels": {"app.kubernetes.io/component": component},
            },
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none.test/none"}]},
        })
    };
    for object in [
        node("answers"),
        node("dead"),
        pod("spiderpool-controller", "dead"),
        pod("spiderpool-agent", "dead"),
        pod("spiderpool-agent", "answers"),
    ] {
        plane.apply(&object.to_string()).unwrap();
    }
    let ready = r#"{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}"#;
    plane
        .kubectl(&["patch", "node", "answers", "--subresource=status", "--type=merge", "-p", ready])
        .unwrap();
    let environment = [
        ("SPIDERPOOL_POD_NAMESPACE", "left"),
        ("SPIDERPOOL_AGENT_NAME", "spiderpool-agent"),
        ("SPIDERPOOL_CONTROLLER_NAME", "spiderpool-controller"),
        ("SPIDERPOOL_CLEAN_STEP_LIMIT", "1"),
        ("SPIDERPOOL_MULTUS_NAME", "multus-access"),
    ];
    multus_access(&plane, "left");
    let failed = run(&plane, "spiderpool-controller", &["clean"], &environment).unwrap_err().to_string();
    assert!(failed.contains("pods of spiderpool-agent are still on answers after 1s"), "{failed}");
    assert!(!failed.contains("pods of spiderpool-controller"), "{failed}");
    plane.kubectl(&["delete", "pod", "spiderpool-agent-answers", "-n", "left", "--force"]).unwrap();
    let said = run(&plane, "spiderpool-controller", &["clean"], &environment).unwrap();
    // Where nobody has removed Multus' configuration, no pod would start without its access.
    assert!(said.contains("Remove 00-multus.conf from these nodes"), "{said}");
    let access = || {
        let kinds = "serviceaccounts,clusterroles,clusterrolebindings";
        let all = plane.kubectl(&["get", kinds, "-n", "left", "-o", "name"]).unwrap();
        all.lines().filter(|name| name.ends_with("/multus-access")).count()
    };
    assert_eq!(access(), 3);
    plane.kubectl(&["delete", "pods", "--all", "-n", "left", "--force"]).unwrap();
    plane.kubectl(&["delete", "nodes", "--all"]).unwrap();
    run(&plane, "spiderpool-controller", &["clean"], &environment).unwrap();
    assert_eq!(access(), 0);
}

/// Service account, role and binding, all called multus-access.
fn multus_access(plane: &ControlPlane, namespace: &str) {
    let name = "multus-access";
    for create in [
        &["create", "serviceaccount", name, "-n", namespace][..],
        &["create", "clusterrole", name, "--verb=get", "--resource=pods"],
        &["create", "clusterrolebinding", name, "--clusterrole", name, "--group=none"],
    ] {
        plane.kubectl(create).unwrap();
    }
}
