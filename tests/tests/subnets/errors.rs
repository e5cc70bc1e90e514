//! What a pod's Events and those of its workload say when there is no address.

use serde_json::json;
use spiderpool_tests::control_plane::{ControlPlane, Options};

use super::*;
use crate::support::{failure, messages};

/// I00023, and an annotation for pools that names a subnet.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_have_a_pool_is_told_why() {
    let bench = Bench::new("why").await;
    bench.subnet("s", "10.128.0.0/24", &["10.128.0.10-10.128.0.11"], &json!({}));
    let agent = bench.subnet_agent("n1").await;
    let subnet = bench.subnet_annotation("s");
    let bare = bench.pod("bare", "n1", &[(subnet.0.as_str(), subnet.1.as_str())]);
    failure(&agent, &bare.add("eth0", "c"), "SpiderSubnet feature doesn't support no-controller pod").await;
    let named = json!({"ipv4": [bench.name("s")]}).to_string();
    let named = bench.pod("named", "n1", &[("ipam.spidernet.io/ippool", named.as_str())]);
    failure(
        &agent,
        &named.add("eth0", "c"),
        "there is a SpiderSubnet of this name: name it in the annotation 'ipam.spidernet.io/subnet'",
    )
    .await;
    // Controllers of other tests serve this one's subnets, too.
    let listed = json!([{"interface": "eth0", "ipv4": [bench.name("absent")]}]).to_string();
    let web = bench.deployment("web", 1, &[(SUBNETS.to_owned(), listed)]);
    let pod = bench.pod_of_workload(&web, "web-1");
    failure(&agent, &pod.add("net1", "c"), "interface net1 must be specified").await;
    failure(
        &agent,
        &pod.add("eth0", "c"),
        "there is no valid IPv4 SpiderSubnet why-absent, which is listed for NIC eth0",
    )
    .await;
    let without = bench.agent("n2").await;
    let pod = bench.pod("off", "n2", &[(subnet.0.as_str(), subnet.1.as_str())]);
    failure(&without, &pod.add("eth0", "c"), "annotation when Auto-Pool feature is disabled").await;
    assert_eq!(bench.records("s"), json!({}));
}

/// I00024. On a control plane of its own: controllers of other tests make pools for all applications.
#[tokio::test(flavor = "multi_thread")]
async fn without_pools_for_applications_none_is_made_and_a_pod_that_asks_is_told() {
    let plane = ControlPlane::start(Options::default()).unwrap();
    let bench = Bench::on(&plane, "off").await;
    let file = json!({"enableSpiderSubnet": true, "enableAutoPoolForApplication": false});
    let controller = bench.controller_with("a", &file).await;
    let agent = bench.agent_with("n1", &file).await;
    bench.subnet("s", "10.131.0.0/24", &["10.131.0.10-10.131.0.19"], &json!({}));
    let web = bench.deployment("web", 2, &[bench.subnet_annotation("s")]);
    let pod = bench.pod_of_workload(&web, "web-1");
    let part = "annotation when Auto-Pool feature is disabled";
    failure(&agent, &pod.add("eth0", "c"), part).await;
    bench.until("its Event", async || bench.events(&pod).iter().any(|note| note.contains(part))).await;
    assert!(bench.held(&pod).is_empty());
    // Pools that are made by hand are the subnet's: its leader is at work, and has seen the application before.
    bench.pool("p", "10.131.0.0/24", &["10.131.0.10"], &json!({}));
    let expect = json!({(bench.name("p")): {"ips": ["10.131.0.10"]}});
    bench.until("the subnet has the pool", async || bench.records("s") == expect).await;
    assert!(bench.pools_of("web").is_empty());
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// The Event is the workload's: there may be no pod yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_without_addresses_says_so_and_serves_when_it_has_some() {
    let bench = Bench::new("small").await;
    bench.subnet("s", "10.129.0.0/24", &["10.129.0.10-10.129.0.11"], &json!({}));
    let controller = bench.controller("a").await;
    let web = bench.deployment("web", 3, &[bench.subnet_annotation("s")]);
    let events = || {
        let events =
            ControlPlane::shared().events(bench.namespace(), &format!("involvedObject.uid={}", web.uid));
        messages(&events.unwrap())
    };
    let says = |note: &String| {
        note.contains("no IPv4 SpiderIPPool of SpiderSubnet small-s")
            && note.contains("required '4' but only left '2'")
    };
    bench.until("the workload's Event", async || events().iter().any(says)).await;
    assert!(bench.pools_of("web").is_empty());
    let agent = bench.subnet_agent("n1").await;
    let pod = bench.pod_of_workload(&web, "web-1");
    let more = async {
        bench.subnet("s", "10.129.0.0/24", &["10.129.0.10-10.129.0.19"], &json!({}));
    };
    let (address, ()) = tokio::join!(add(&agent, &pod, "eth0"), more);
    assert_eq!(address.unwrap().len(), 1);
    controller.stop().unwrap();
}
