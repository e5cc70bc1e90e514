//! What agent and controller show of themselves: metrics as docs/metrics.md has them, their values, Events and probes.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "metrics/table.rs"]
mod table;

mod support;

use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Kind, Options};
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod, messages};
use table::{documented, served, value};

const SUBNET: Kind = Kind::spiderpool("SpiderSubnet");

async fn controller(
    plane: &ControlPlane,
    bench: &Bench<'_>,
    environment: &[(&str, &str)],
) -> StandaloneController {
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "one", environment };
    StandaloneController::start(plane, start).await.unwrap()
}

async fn add(agent: &StandaloneAgent, pod: &TestPod) -> bool {
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", "c1")).await.unwrap();
    answer.status == 200
}

async fn del(agent: &StandaloneAgent, pod: &TestPod) {
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c1")).await.unwrap().ok().unwrap();
}

fn subnet(bench: &Bench<'_>, name: &str, status: &Value) -> String {
    let name = bench.name(name);
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet", "metadata": {"name": name},
        "spec": {"subnet": "10.201.0.0/24", "ips": ["10.201.0.2-10.201.0.9"]},
    }));
    ControlPlane::shared().patch_status(SUBNET, "", &name, status).unwrap();
    name
}

/// What Events of this reason say of an object without a namespace.
fn notes(plane: &ControlPlane, name: &str, reason: &str) -> String {
    let of_it = format!("involvedObject.name={name},reason={reason}");
    messages(&plane.events("default", &of_it).unwrap()).join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_what_is_served_and_nothing_else() {
    let bench = Bench::new("metric-names").await;
    bench.pool("p", "10.200.0.0/24", &["10.200.0.2-10.200.0.9"], &json!({}));
    subnet(&bench, "s", &json!({"totalIPCount": 8, "allocatedIPCount": 0}));
    let controller =
        controller(ControlPlane::shared(), &bench, &[("SPIDERPOOL_ENABLED_DEBUG_METRIC", "true")]).await;
    let agent = bench.agent("n1").await;
    assert!(add(&agent, &bench.pod_with_pool("a", "n1", "p")).await);
    assert_eq!(served(&agent.metrics().await.unwrap()).unwrap(), documented("agent").unwrap());
    // What there is of pools and subnets comes with the watches.
    bench
        .until("pools and subnets are shown", async || {
            let text = controller.metrics().await.unwrap();
            ["spiderpool_ippool_total_ips{", "spiderpool_subnet_total_ips{"]
                .iter()
                .all(|part| text.contains(part))
        })
        .await;
    assert_eq!(served(&controller.metrics().await.unwrap()).unwrap(), documented("controller").unwrap());
    agent.stop().unwrap();
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_probes_answer_get_and_head() {
    let bench = Bench::new("metric-head").await;
    let (controller, agent) =
        (controller(ControlPlane::shared(), &bench, &[]).await, bench.agent("n1").await);
    bench.until("the agent is ready", async || agent.probe("/readyz").await.unwrap().0 == 200).await;
    assert_eq!(
        (agent.head_metrics().await.unwrap(), controller.head_metrics().await.unwrap()),
        (http::StatusCode::OK, http::StatusCode::OK)
    );
    for path in
        ["/v1/runtime/startup", "/v1/runtime/readiness", "/v1/runtime/liveness", "/readyz", "/healthz"]
    {
        assert_eq!(agent.probe(path).await.unwrap().0, 200, "{path}");
        assert_eq!(agent.head_probe(path).await.unwrap(), 200, "{path}");
        assert_eq!(controller.probe(path).await.unwrap().0, 200, "{path}");
        assert_eq!(controller.head_probe(path).await.unwrap(), 200, "{path}");
    }
    assert_eq!(agent.head_probe("/none").await.unwrap(), 404);
    for text in [agent.metrics().await.unwrap(), controller.metrics().await.unwrap()] {
        assert_eq!(value(&text, "spiderpool_ready"), Some(1.0), "{text}");
    }
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// An allocation, one that fails because all is in use, a release, and what nobody has released.
#[tokio::test(flavor = "multi_thread")]
async fn values_follow_what_happens_and_events_say_it() {
    // Leaders of other tests would free addresses of this one.
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "metric-values").await;
    bench.pool("p", "10.202.0.0/24", &["10.202.0.2"], &json!({}));
    let pool = bench.name("p");
    let controller = controller(&plane, &bench, &[]).await;
    let agent = bench.agent("n1").await;
    let of_agent = async |sample: &str| value(&agent.metrics().await.unwrap(), sample).unwrap_or(-1.0);
    let usage = async || {
        let text = controller.metrics().await.unwrap();
        ["total", "used", "free"]
            .map(|name| value(&text, &format!("spiderpool_ippool_{name}_ips{{SpiderIPPool={pool:?}}}")))
    };
    bench.until("the pool is shown", async || usage().await == [Some(1.0), Some(0.0), Some(1.0)]).await;

    let (first, second) = (bench.pod_with_pool("first", "n1", "p"), bench.pod_with_pool("second", "n1", "p"));
    assert!(add(&agent, &first).await && !add(&agent, &second).await);
    for (sample, wanted) in [
        ("spiderpool_ipam_allocation_counts_total", 2.0),
        ("spiderpool_ipam_allocation_failure_counts_total", 1.0),
        ("spiderpool_ipam_allocation_err_ip_used_out_counts_total", 1.0),
        ("spiderpool_ipam_allocation_err_internal_counts_total", 0.0),
        ("spiderpool_ipam_allocation_duration_seconds_count", 2.0),
        (r#"spiderpool_ipam_picks_total{outcome="taken"}"#, 1.0),
        (r#"spiderpool_ipam_picks_total{outcome="collided"}"#, 0.0),
        ("spiderpool_ipam_pick_view_age_seconds_count", 1.0),
        (r#"spiderpool_api_requests_total{verb="create",resource="spideripaddresses",code="201"}"#, 1.0),
        (r#"spiderpool_api_request_duration_seconds_count{verb="create",resource="spideripaddresses"}"#, 1.0),
        ("spiderpool_api_writes_waiting", 0.0),
    ] {
        assert!((of_agent(sample).await - wanted).abs() < 0.5, "{sample}: {}", of_agent(sample).await);
    }
    bench.until("the pool is full", async || usage().await == [Some(1.0), Some(1.0), Some(0.0)]).await;
    bench
        .until("an Event on the pool says so", async || {
            notes(&plane, &pool, "AddressesUsedOut").contains("all 1 IP addresses are in use")
        })
        .await;
    bench
        .until("and one on the pod", async || {
            bench.events(&second).join(" ").contains("all IP addresses used out of IPPool metric-values-p")
        })
        .await;

    bench.delete_pod(&first);
    del(&agent, &first).await;
    assert!((of_agent("spiderpool_ipam_release_counts_total").await - 1.0).abs() < 0.5);
    assert!(of_agent("spiderpool_ipam_release_failure_counts_total").await.abs() < 0.5);
    bench.until("the pool is free", async || usage().await == [Some(1.0), Some(0.0), Some(1.0)]).await;

    // No DEL comes for the next one.
    bench.until("the freed address is given", async || add(&agent, &second).await).await;
    bench.delete_pod(&second);
    let freed = async || {
        let of_leader = value(&controller.metrics().await.unwrap(), "spiderpool_ip_gc_counts_total");
        let by_agent = of_agent(r#"spiderpool_ipam_swept_total{reason="gone"}"#).await;
        (of_leader.unwrap(), by_agent)
    };
    bench
        .until("the leader or the agent has freed it", async || {
            let (leader, agent) = freed().await;
            bench.held(&second).is_empty() && leader + agent > 0.5
        })
        .await;
    agent.stop().unwrap();
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_frees_and_writes_again_is_counted_and_said() {
    // Leaders of other tests would free addresses of this one.
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "metric-gc").await;
    bench.pool("p", "10.203.0.0/24", &["10.203.0.2-10.203.0.9"], &json!({}));
    let pool = bench.name("p");
    let controller = controller(&plane, &bench, &[]).await;
    let agent = bench.agent("n1").await;
    let (gone, stays) = (bench.pod_with_pool("gone", "n1", "p"), bench.pod_with_pool("stays", "n1", "p"));
    for pod in [&gone, &stays] {
        assert!(add(&agent, pod).await);
        bench.endpoint(pod).await;
    }
    agent.kill().unwrap();
    let of = async |sample: &str| value(&controller.metrics().await.unwrap(), sample).unwrap_or(-1.0);
    let (freed, restored) = (
        r#"spiderpool_controller_freed_total{reason="gone"}"#,
        "spiderpool_controller_addresses_restored_total",
    );
    assert!(of(freed).await.abs() < 0.5 && of(restored).await.abs() < 0.5);
    let address = bench.held(&gone)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    bench.delete_pod(&gone);
    bench.until("it is freed", async || bench.held(&gone).is_empty() && of(freed).await > 0.5).await;
    assert!(of("spiderpool_ip_gc_counts_total").await > 0.5);
    bench
        .until("an Event on the pool names it", async || {
            notes(&plane, &pool, "AddressesFreed")
                .contains(&format!("{address} of Pod metric-gc/gone (gone)"))
        })
        .await;

    let kept = bench.held(&stays)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    bench.run_pod(&stays);
    bench.delete_address(&kept);
    bench
        .until("it is written again", async || of(restored).await > 0.5 && !bench.held(&stays).is_empty())
        .await;
    bench.until("and said", async || bench.events(&stays).join(" ").contains("has been written again")).await;

    // As whoever sees another host with the address writes it.
    let state = json!({"spec": {"state": "quarantined"}}).to_string();
    let patch = ["patch", "spideripaddress", &kept, "--type=merge", "-p", &state];
    plane.kubectl(&patch).unwrap();
    let quarantined = format!("spiderpool_ippool_quarantined_ips{{SpiderIPPool={pool:?}}}");
    bench.until("it is counted", async || (of(&quarantined).await - 1.0).abs() < 0.5).await;
    controller.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_frees_without_a_del_is_counted_and_said_on_its_node() {
    // Leaders of other tests would free addresses of this one.
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "metric-sweep").await;
    bench.pool("p", "10.204.0.0/24", &["10.204.0.2-10.204.0.9"], &json!({}));
    let agent = bench.agent("n1").await;
    let pod = bench.pod_with_pool("a", "n1", "p");
    assert!(add(&agent, &pod).await);
    let address = bench.held(&pod)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    bench.delete_pod(&pod);
    bench
        .until("it is freed", async || {
            let text = agent.metrics().await.unwrap();
            value(&text, r#"spiderpool_ipam_swept_total{reason="gone"}"#).is_some_and(|count| count > 0.5)
        })
        .await;
    assert!(bench.held(&pod).is_empty());
    let node = bench.name("n1");
    bench
        .until("an Event of the node names it", async || {
            notes(&plane, &node, "AddressesFreed").contains(&format!("{address} (Pod metric-sweep/a)"))
        })
        .await;
    agent.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_and_subnets_that_come_and_go_are_counted_by_every_replica() {
    let bench = Bench::new("metric-counts").await;
    let pools = json!({"a": {"ips": ["10.201.0.2"]}, "b": {"ips": ["10.201.0.3"]}}).to_string();
    let name =
        subnet(&bench, "s", &json!({"controlledIPPools": pools, "totalIPCount": 8, "allocatedIPCount": 2}));
    let environment = [("SPIDERPOOL_METRIC_RENEW_PERIOD", "1"), ("SPIDERPOOL_ENABLED_DEBUG_METRIC", "true")];
    let leader = controller(ControlPlane::shared(), &bench, &environment).await;
    bench.until("it leads", async || leader.leads().await.unwrap()).await;
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let start = Start { folder: &folder, namespace, name: "two", environment: &environment };
    let follower = StandaloneController::start(ControlPlane::shared(), start).await.unwrap();
    let of_subnet = async |controller: &StandaloneController, metric: &str| {
        value(&controller.metrics().await.unwrap(), &format!("{metric}{{SpiderSubnet={name:?}}}"))
    };
    bench
        .until("the leader shows the subnet", async || {
            of_subnet(&leader, "spiderpool_debug_subnet_ippool_counts").await == Some(2.0)
        })
        .await;
    for (metric, wanted) in [
        ("spiderpool_subnet_total_ips", 8.0),
        ("spiderpool_subnet_used_ips", 2.0),
        ("spiderpool_subnet_free_ips", 6.0),
        ("spiderpool_debug_subnet_total_ip_counts", 8.0),
        ("spiderpool_debug_subnet_available_ip_counts", 6.0),
    ] {
        assert_eq!(of_subnet(&leader, metric).await, Some(wanted), "{metric}");
        assert_eq!(of_subnet(&follower, metric).await, None, "{metric} of a replica that does not lead");
    }
    let are_there = async |least: f64| {
        let metric = "spiderpool_total_subnet_counts";
        leader.metric(metric).await.unwrap() >= least && follower.metric(metric).await.unwrap() >= least
    };
    bench.until("both count it", async || are_there(1.0).await).await;
    ControlPlane::shared().kubectl(&["delete", "spidersubnet", &name]).unwrap();
    bench
        .until("it is gone", async || of_subnet(&leader, "spiderpool_subnet_total_ips").await.is_none())
        .await;
    bench.pool("p", "10.205.0.0/24", &["10.205.0.2-10.205.0.9"], &json!({}));
    let metric = "spiderpool_total_ippool_counts";
    bench
        .until("both count the pool", async || {
            leader.metric(metric).await.unwrap() > 0.5 && follower.metric(metric).await.unwrap() > 0.5
        })
        .await;
    follower.stop().unwrap();
    leader.stop().unwrap();
}
