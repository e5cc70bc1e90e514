//! Requests that the agent must refuse: each gets one clear text, and takes nothing.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use support::{Bench, TestPod, addresses, failure, senseless};

/// A pod with this annotation is refused with a text that contains `part`, and holds nothing.
async fn refused(
    bench: &Bench<'_>,
    agent: &StandaloneAgent,
    name: &str,
    annotation: (&str, &str),
    part: &str,
) {
    let pod = bench.pod(name, "n1", &[annotation]);
    failure(agent, &pod.add("eth0", "c"), part).await;
    assert!(bench.held(&pod).is_empty(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_and_pools_that_cannot_serve() {
    let bench = Bench::new("input").await;
    bench.pool("off", "10.50.0.0/24", &["10.50.0.2"], &json!({"disable": true}));
    bench.pool("elsewhere", "10.51.0.0/24", &["10.51.0.2"], &json!({"nodeName": ["other"]}));
    bench.pool("foreign", "10.52.0.0/24", &["10.52.0.2"], &json!({"namespaceName": ["other"]}));
    bench.pool("empty", "10.53.0.0/24", &[], &json!({}));
    bench.pool("broken", "10.54.0.0/24", &["10.99.0.1"], &json!({}));
    bench.pool(
        "chosen",
        "10.55.0.0/24",
        &["10.55.0.2"],
        &json!({"podAffinity": {"matchLabels": {"a": "b"}}}),
    );
    bench.pool("lower", "10.58.0.0/16", &["10.58.0.2-10.58.0.9"], &json!({}));
    bench.pool("upper", "10.58.0.0/24", &["10.58.0.9"], &json!({}));
    let agent = bench.agent("n1").await;
    let ippool = "ipam.spidernet.io/ippool";
    let of = |pool: &str| json!({"ipv4": [bench.name(pool)]}).to_string();
    let cases = [
        ("off", format!("disabled IPPool {}", bench.name("off"))),
        ("elsewhere", format!("unmatched Node name of IPPool {}", bench.name("elsewhere"))),
        ("foreign", format!("unmatched Namespace name of IPPool {}", bench.name("foreign"))),
        ("empty", "all IP addresses used out".to_owned()),
        ("broken", "10.99.0.1 is not inside of spec.subnet 10.54.0.0/24".to_owned()),
        (
            "chosen",
            format!(
                "unmatched Pod affinity of IPPool {}: its spec.podAffinity wants a=b",
                bench.name("chosen")
            ),
        ),
        ("upper", format!("overlaps the older IPPool {} in 10.58.0.9: change", bench.name("lower"))),
        ("missing", format!("failed to get original IPPool {}", bench.name("missing"))),
    ];
    for (pool, part) in &cases {
        refused(&bench, &agent, pool, (ippool, &of(pool)), part).await;
    }
    let older = bench.pod("lower", "n1", &[(ippool, &of("lower"))]);
    agent.ask(Method::POST, path::IP, &older.add("eth0", "c")).await.unwrap().ok().unwrap();
    let more = [
        ("json", ippool, "{", "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/ippool'"),
        (
            "wildcard",
            ippool,
            r#"{"ipv4": ["input-none-*"]}"#,
            "no IPv4 IPPool has a name like [input-none-*]",
        ),
        ("bracket", ippool, r#"{"ipv4": ["a[*"]}"#, "the wildcard \"a[*\" for IPPools is invalid"),
        ("twice", ippool, r#"{"ipv4": ["a", "a"]}"#, "duplicate IPPool a specified for NIC eth0"),
        ("items", "ipam.spidernet.io/ippools", "[]", "value requires at least one item"),
        (
            "nic",
            "ipam.spidernet.io/ippools",
            r#"[{"interface": "net1", "ipv4": ["a"]}]"#,
            "interface eth0 must be specified",
        ),
        ("subnet", "ipam.spidernet.io/subnet", "{}", "when Auto-Pool feature is disabled"),
        ("routes", "ipam.spidernet.io/routes", r#"[{"dst": "x", "gw": "10.0.0.1"}]"#, "invalid route format"),
    ];
    for (name, key, value, part) in more {
        refused(&bench, &agent, name, (key, value), part).await;
    }
    bench.annotate_namespace("ipam.spidernet.io/default-ipv4-ippool", "junk");
    let chosen = bench.pod("namespace", "n1", &[]);
    bench
        .until("the annotated namespace", async || {
            let answer = agent.ask(Method::POST, path::IP, &chosen.add("eth0", "c")).await.unwrap();
            answer.failure().contains("'ipam.spidernet.io/default-ipv4-ippool' of Namespace input: expected")
        })
        .await;
    bench.annotate_namespace("ipam.spidernet.io/default-ipv4-ippool", "[]");
    let unnamed = bench.pod("none", "n1", &[]);
    bench
        .until("no pool is named any more", async || {
            let answer = agent.ask(Method::POST, path::IP, &unnamed.add("eth0", "c")).await.unwrap();
            answer.failure().contains("no IPPool available")
        })
        .await;
}

/// As where the webhooks are away: each is named, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn pools_that_make_no_sense_fail_the_pods_that_name_no_other() {
    let bench = Bench::new("senseless").await;
    bench.pool("good", "10.63.0.0/24", &["10.63.0.2-10.63.0.99"], &json!({}));
    let agent = bench.agent("n1").await;
    let before = bench.pod_with_pool("before", "n1", "good");
    let had = agent.ask(Method::POST, path::IP, &before.add("eth0", "c")).await.unwrap().ok().unwrap();
    let senseless = senseless::pools();
    for (name, spec, _) in &senseless {
        bench.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": bench.name(name)}, "spec": spec,
        }));
    }
    let ippool = "ipam.spidernet.io/ippool";
    for (name, _, part) in &senseless {
        let pod = bench.pod(name, "n1", &[(ippool, &json!({"ipv4": [bench.name(name)]}).to_string())]);
        let says = format!("IPPool {} is invalid: ", bench.name(name));
        bench
            .until_ok("the pool is known, and what is wrong with it", async || {
                let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await?;
                let text = answer.failure();
                let is_right = answer.status == 500 && text.contains(&says) && text.contains(part);
                anyhow::ensure!(is_right && text.len() < 10_000, "{name}: {answer:?}");
                Ok(())
            })
            .await;
        assert!(bench.held(&pod).is_empty(), "{name}");
    }
    let names: Vec<_> =
        senseless.iter().map(|(name, ..)| *name).chain(["good"]).map(|name| bench.name(name)).collect();
    let all = bench.pod("all", "n1", &[(ippool, &json!({"ipv4": names}).to_string())]);
    let given = agent.ask(Method::POST, path::IP, &all.add("eth0", "c")).await.unwrap().ok().unwrap();
    assert_eq!(given["ips"][0]["ipPool"], json!(bench.name("good")));
    let again = agent.ask(Method::POST, path::IP, &before.add("eth0", "c")).await.unwrap().ok().unwrap();
    assert_eq!(addresses(&again), addresses(&had));
    assert!(!agent.log().unwrap().contains("panicked"));
    agent.stop().unwrap();
}

/// Kubernetes takes 256 KiB of annotations, and names of 253 characters.
#[tokio::test(flavor = "multi_thread")]
async fn annotations_that_are_huge_get_a_short_answer_and_long_names_serve() {
    let bench = Bench::new("huge").await;
    let long = |end: char| format!("{}{end}", "a.0123456789.".repeat(18));
    let full = |end: char| bench.name(&long(end));
    assert!(full('a').len() > 200 && full('a').len() <= 253);
    for (index, end) in ['a', 'b'].into_iter().enumerate() {
        bench.pool(&long(end), &format!("10.64.{index}.0/24"), &[&format!("10.64.{index}.2")], &json!({}));
    }
    let agent = bench.agent("n1").await;
    let ippool = "ipam.spidernet.io/ippool";
    // Two names that differ in their last character.
    for (end, address) in [('a', "10.64.0.2/24"), ('b', "10.64.1.2/24")] {
        let annotation = json!({"ipv4": [full(end)]}).to_string();
        let pod = bench.pod(&end.to_string(), "n1", &[(ippool, &annotation)]);
        let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await.unwrap().ok().unwrap();
        assert_eq!(addresses(&answer), [address.to_owned()].into());
    }
    let many: Vec<_> = (0..98).map(|number| bench.name(&format!("none-{number}"))).collect();
    let many = [many, vec![full('a'), full('b')]].concat();
    let text = "x".repeat(240_000);
    let cases = [
        ("many", ippool, json!({"ipv4": many}).to_string(), "failed to get original IPPool huge-none-0"),
        ("no-json", ippool, text.clone(), "invalid format of Pod annotation 'ipam.spidernet.io/ippool'"),
        ("name", ippool, json!({"ipv4": [text]}).to_string(), "it must be a DNS-1123 subdomain"),
        ("wildcard", ippool, json!({"ipv4": [format!("{text}[*")]}).to_string(), "for IPPools is invalid: "),
        ("nested", ippool, format!("{}{}", "[".repeat(120_000), "]".repeat(120_000)), "invalid format"),
        (
            "nic",
            "ipam.spidernet.io/ippools",
            json!([{"interface": text, "ipv4": [bench.name(&long('a'))]}]).to_string(),
            "a network interface name has 1 to 15 characters",
        ),
        (
            "route",
            "ipam.spidernet.io/routes",
            json!([{"dst": text, "gw": "10.64.0.1"}]).to_string(),
            "invalid route format",
        ),
    ];
    for (name, key, value, part) in &cases {
        let pod = bench.pod(name, "n1", &[(*key, value.as_str())]);
        let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await.unwrap();
        let text = answer.failure();
        assert!(answer.status == 500 && text.contains(part), "{name}: {answer:?}");
        assert!(text.len() < 1000, "{name}: {} bytes", text.len());
        assert!(bench.held(&pod).is_empty(), "{name}");
    }
    let log = agent.log().unwrap();
    let longest = log.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 10_000 && !log.contains("panicked"), "a line of {longest} bytes");
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_must_not_get_addresses() {
    let bench = Bench::new("pods").await;
    bench.pool("p", "10.56.0.0/24", &["10.56.0.2-10.56.0.9"], &json!({}));
    let agent = bench.agent("n1").await;

    let unknown = TestPod { namespace: "pods".into(), name: "unknown".into(), uid: "u".into() };
    failure(&agent, &unknown.add("eth0", "c"), "failed to get Pod pods/unknown: it does not exist").await;

    let replaced = TestPod { uid: "older".into(), ..bench.pod_with_pool("replaced", "n1", "p") };
    failure(&agent, &replaced.add("eth0", "c"), "was replaced").await;

    let elsewhere = bench.pod_with_pool("elsewhere", "n2", "p");
    failure(&agent, &elsewhere.add("eth0", "c"), "is bound to node").await;

    let alive = bench.pod_with_pool("ending", "n1", "p");
    bench.end_pod(&alive);
    failure(&agent, &alive.add("eth0", "c"), "dead Pod pods/ending").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_none() {
    let bench = Bench::new("requests").await;
    let agent = bench.agent("n1").await;
    let pod = TestPod { namespace: "n".into(), name: "p".into(), uid: String::new() };
    let mut incomplete = pod.add("eth0", "c");
    incomplete.as_object_mut().unwrap().remove("containerID");
    let mut mistyped = pod.add("eth0", "c");
    mistyped["cleanGateway"] = json!("yes");
    let misnamed = pod.add("much-too-long-a-name", "c");
    let cases: [(Method, &str, Vec<u8>, u16, &str); 10] = [
        (Method::POST, path::IP, b"{".to_vec(), 400, "not JSON"),
        (Method::POST, path::IP, Vec::new(), 422, "body is required"),
        (Method::POST, path::IP, incomplete.to_string().into(), 422, "containerID in body is required"),
        (Method::POST, path::IP, mistyped.to_string().into(), 422, "body is invalid"),
        (Method::POST, path::IP, misnamed.to_string().into(), 422, "interface name \"much-too-long-a-name\""),
        (Method::POST, path::IP, pod.add("eth0", "../c").to_string().into(), 422, "container ID \"../c\""),
        (Method::PUT, path::IP, Vec::new(), 405, "PUT"),
        (Method::GET, "/v1/nothing", Vec::new(), 404, "path /v1/nothing was not found"),
        (Method::GET, path::WORKLOAD_ENDPOINT, Vec::new(), 422, "podNamespace in query is required"),
        (Method::PUT, path::DATAPLANE_NICS, b"{}".to_vec(), 422, "in body is required"),
    ];
    for (method, path, body, status, part) in cases {
        let answer = agent.ask_raw(method, path, body).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        assert!(
            answer.body["message"].as_str().is_some_and(|text| text.contains(part)),
            "{part}: {answer:?}"
        );
        assert!(answer.body["code"].is_u64(), "{answer:?}");
    }
    let nothing = agent.ask(Method::POST, path::IPS, &Value::Null).await.unwrap();
    assert_eq!(nothing.status, StatusCode::OK);
    let absent = format!("{}?podNamespace=n&podName=p", path::WORKLOAD_ENDPOINT);
    let answer = agent.ask(Method::GET, &absent, &Value::Null).await.unwrap();
    assert_eq!(answer.failure(), "SpiderEndpoint not found for pod n/p");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_asked_for_in_vain() {
    let plane = spiderpool_tests::control_plane::ControlPlane::start(
        spiderpool_tests::control_plane::Options::default(),
    )
    .unwrap();
    let bench = Bench::on(&plane, "coordinator").await;
    let agent = bench.agent("n1").await;
    let ask = |name: &str| {
        let body = json!({"podNamespace": "coordinator", "podName": name});
        let agent = &agent;
        async move { agent.ask(Method::GET, path::COORDINATOR_CONFIG, &body).await.unwrap() }
    };
    assert!(ask("p").await.failure().contains("coordinator config not found"));

    bench.coordinator("z", &json!({"phase": "NotReady", "reason": "no CIDR"}));
    bench
        .until("not ready", async || ask("p").await.failure() == "spidercoordinator: z no ready: no CIDR")
        .await;

    let status =
        json!({"phase": "Synced", "serviceCIDR": ["10.96.0.0/16"], "overlayPodCIDR": ["10.244.0.0/16"]});
    bench.coordinator("default", &status);
    bench
        .until("the pod is missing", async || {
            ask("p").await.failure().contains("failed to get pod coordinator/p")
        })
        .await;

    bench.pod("p", "n1", &[("ipam.spidernet.io/default-route-nic", "net1")]);
    let config = ask("p").await.ok().unwrap();
    assert_eq!(config["serviceCIDR"], json!(["10.96.0.0/16"]));
    // This agent has no bpffs.
    assert_eq!((&config["podDefaultRouteNIC"], &config["dataplane"]), (&json!("net1"), &json!("policy")));
}

/// The answer to a dataplane request on a node whose bpffs is not mounted; addresses are still given.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_bpffs_still_allocates() {
    let bench = Bench::new("no-bpffs").await;
    bench.pool("p", "10.57.0.0/24", &["10.57.0.2"], &json!({}));
    let pod = bench.pod_with_pool("p", "n1", "p");
    let agent = bench.agent("n1").await;
    let request = json!({
        "containerID": "c", "network": "n", "ifName": "net1", "podNamespace": pod.namespace, "podName": pod.name,
        "netns": "/none", "defaultRouteNic": "eth0", "nics": [], "routeHints": "auto",
    });
    let answer = agent.ask(Method::PUT, path::DATAPLANE_NICS, &request).await.unwrap();
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.failure().contains("mount -t bpf bpf /sys/fs/bpf"), "{answer:?}");
    // New pods get rules in place of programs, so the agent is ready, and says why.
    bench
        .until("the readiness probe tells", async || {
            let (status, notes) = agent.probe("/v1/runtime/readiness").await.unwrap();
            status == StatusCode::OK
                && notes.contains("dataplane policy")
                && notes.contains("mount -t bpf bpf /sys/fs/bpf")
        })
        .await;
    assert!(agent.metrics().await.unwrap().contains("spiderpool_dataplane_fallback 1"));
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await.unwrap().ok().unwrap();
}
