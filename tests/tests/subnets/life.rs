//! From the first pod of a workload to its end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use spiderpool_tests::control_plane::ControlPlane;

use super::*;
use crate::support::{at_once, messages};

/// I00003, I00012, I00020 and E00010: both NICs and families; the pool is there in the ADD that comes before it, follows the
/// replicas, serves no other workload, and goes.
#[tokio::test(flavor = "multi_thread")]
async fn pools_follow_their_deployment_from_its_first_pod_to_its_end() {
    let bench = Bench::new("life").await;
    bench.subnet("v4", "10.120.0.0/24", &["10.120.0.10-10.120.0.99"], &json!({"gateway": "10.120.0.1"}));
    bench.subnet("v6", "fd20::/64", &["fd20::10-fd20::99"], &json!({}));
    bench.subnet("net1", "10.121.0.0/24", &["10.121.0.10-10.121.0.19"], &json!({}));
    let nics = [
        (json!("eth0"), bench.of_subnets("v4", Some("v6"))),
        (json!("net1"), bench.of_subnets("net1", None)),
    ];
    let nics: Vec<_> = nics
        .into_iter()
        .map(|(nic, mut entry)| {
            entry["interface"] = nic;
            entry
        })
        .collect();
    let annotations =
        [(SUBNETS.to_owned(), json!(nics).to_string()), (IP_NUMBER.to_owned(), "+1".to_owned())];
    let agent = bench.subnet_agent("n1").await;
    let web = bench.deployment("web", 2, &annotations);
    // As for real, a ReplicaSet is in between.
    let mut of_web =
        bench.workload(("apps/v1", "ReplicaSet"), "web-5d", &json!({"replicas": 2}), &annotations);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": web.uid, "controller": true}]);
    let patch = json!({"metadata": {"ownerReferences": owner}}).to_string();
    bench.kubectl(&["patch", "replicaset", "web-5d", "--type=merge", "-p", &patch]);
    of_web.annotations = web.annotations.clone();
    let pods: Vec<_> =
        (1..=4).map(|number| bench.pod_of_workload(&of_web, &format!("web-5d-{number}"))).collect();
    // Nobody has made a pool yet.
    let early = add(&agent, &pods[0], "eth0");
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.controller("a").await
    };
    let (early, controller) = tokio::join!(early, late);
    let early = early.unwrap();
    assert_eq!(early.len(), 2, "{early:?}");
    let pools = bench.pools_of("web");
    let names: Vec<_> = pools.iter().map(|pool| &pool.name[..pool.name.rfind('-').unwrap()]).collect();
    assert_eq!(names, ["auto4-web-eth0", "auto4-web-net1", "auto6-web-eth0"]);
    for address in &early {
        assert!(pools.iter().any(|pool| has(pool, address)), "{address} {pools:?}");
    }
    assert!(pools.iter().all(|pool| pool.addresses().len() == 3), "{pools:?}");
    let pool = found_pool(&pools[0].name).unwrap();
    assert_eq!(pool["metadata"]["annotations"][IP_NUMBER], json!("+1"));
    assert_eq!(pool["spec"]["gateway"], json!("10.120.0.1"));
    assert_eq!(pool["metadata"]["labels"][OWNER_SUBNET], json!("life-v4"));
    let record = &bench.records("v4")[&pools[0].name];
    assert_eq!(record["application"], json!("apps_v1_Deployment_life_web"));
    assert_eq!(record["ips"], json!(pools[0].ips));

    add(&agent, &pods[1], "eth0").await.unwrap();
    let net1 = add(&agent, &pods[1], "net1").await.unwrap();
    assert!(net1.iter().all(|address| address.starts_with("10.121.0.")), "{net1:?}");
    // Another workload's pod that names the pool by hand.
    let other = bench.deployment(
        "other",
        1,
        &[("ipam.spidernet.io/ippool".to_owned(), json!({"ipv4": [pools[0].name]}).to_string())],
    );
    let other = bench.pod_of_workload(&other, "other-1");
    support::failure(&agent, &other.add("eth0", "c"), "unmatched Pod affinity of IPPool").await;

    // More pods come before the pool has grown.
    let scaled = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bench.deployment("web", 4, &annotations);
    };
    let (third, fourth, ()) =
        tokio::join!(add(&agent, &pods[2], "eth0"), add(&agent, &pods[3], "eth0"), scaled);
    let fourth = fourth.unwrap();
    assert_eq!((third.unwrap().len(), fourth.len()), (2, 2));

    bench.deployment("web", 1, &annotations);
    for pod in &pods[1..] {
        bench.delete_pod(pod);
        del(&agent, pod, "eth0").await;
    }
    bench
        .until_ok("the pools shrink", async || {
            let pools = bench.pools_of("web");
            anyhow::ensure!(pools.iter().all(|pool| pool.addresses().len() == 2), "{pools:?}");
            let held = early.iter().all(|address| pools.iter().any(|pool| has(pool, address)));
            anyhow::ensure!(held, "what is in use stays: {pools:?}");
            Ok(())
        })
        .await;

    bench.delete_workload(&web);
    bench.kubectl(&["delete", "replicaset", "web-5d"]);
    // Its last pod still has addresses.
    bench.until("net1's pool goes", async || bench.pools_of("web").len() == 2).await;
    assert_eq!(bench.held(&pods[0]).len(), 2);
    bench.delete_pod(&pods[0]);
    del(&agent, &pods[0], "eth0").await;
    bench.until("all pools go", async || bench.pools_of("web").is_empty()).await;
    for subnet in ["v4", "v6", "net1"] {
        bench.until("nothing is given", async || bench.given(subnet) == json!(0)).await;
        assert_eq!(bench.records(subnet), json!({}));
    }
    controller.stop().unwrap();
}

/// I00021.
#[tokio::test(flavor = "multi_thread")]
async fn the_kept_pools_of_several_nics_are_those_of_the_next_workload() {
    let bench = Bench::new("stays-nics").await;
    bench.subnet("eth0", "10.132.0.0/24", &["10.132.0.10-10.132.0.99"], &json!({}));
    bench.subnet("net1", "10.133.0.0/24", &["10.133.0.10-10.133.0.99"], &json!({}));
    let controller = bench.controller("a").await;
    let agent = bench.subnet_agent("n1").await;
    let nics = ["eth0", "net1"].map(|nic| {
        let mut entry = bench.of_subnets(nic, None);
        entry["interface"] = json!(nic);
        entry
    });
    let annotations = [
        (SUBNETS.to_owned(), json!(nics).to_string()),
        (IP_NUMBER.to_owned(), "2".to_owned()),
        (RECLAIM.to_owned(), "false".to_owned()),
    ];
    let add_all = async |pod: &TestPod| {
        [add(&agent, pod, "eth0").await.unwrap(), add(&agent, pod, "net1").await.unwrap()]
    };
    let first = bench.deployment("web", 1, &annotations);
    let pod = bench.pod_of_workload(&first, "web-1");
    add_all(&pod).await;
    let kept = bench.pools_of("web");
    assert!(kept.len() == 2 && kept.iter().all(|pool| pool.addresses().len() == 2), "{kept:?}");
    bench.delete_workload(&first);
    bench.delete_pod(&pod);
    for nic in ["net1", "eth0"] {
        del(&agent, &pod, nic).await;
    }
    let second = bench.deployment("web", 1, &annotations);
    let is_seconds = |pool: &FoundPool| {
        found_pool(&pool.name).unwrap()["metadata"]["labels"][APPLICATION_UID] == json!(second.uid)
    };
    bench.until("they are the next one's", async || kept.iter().all(is_seconds)).await;
    assert_eq!(bench.pools_of("web"), kept);
    for (given, pool) in add_all(&bench.pod_of_workload(&second, "web-2")).await.iter().zip(&kept) {
        assert!(given.len() == 1 && given.iter().all(|address| has(pool, address)), "{given:?} {pool:?}");
    }
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// I00015, I00016 and I00019.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_not_reclaimed_waits_for_the_next_workload_of_its_name_and_kind() {
    let bench = Bench::new("stays").await;
    bench.subnet("s", "10.122.0.0/24", &["10.122.0.10-10.122.0.99"], &json!({}));
    let controller = bench.controller("a").await;
    let keeps = |keeps: bool| {
        let reclaim = (RECLAIM.to_owned(), (!keeps).to_string());
        [bench.subnet_annotation("s"), (IP_NUMBER.to_owned(), "2".to_owned()), reclaim]
    };
    let first = bench.deployment("web", 1, &keeps(true));
    let pool = bench.pool_of("web", 2).await;
    bench.delete_workload(&first);
    let other = bench.workload(("apps/v1", "StatefulSet"), "web", &json!({"replicas": 1}), &keeps(false));
    bench.until("the other kind has its own", async || bench.pools_of("web").len() == 2).await;
    bench.delete_workload(&other);
    bench.until("that one goes", async || bench.pools_of("web").len() == 1).await;
    assert_eq!(bench.pools_of("web"), std::slice::from_ref(&pool));
    let second = bench.deployment("web", 1, &keeps(true));
    let uid = || found_pool(&pool.name).unwrap()["metadata"]["labels"][APPLICATION_UID].clone();
    bench.until("it is the next one's", async || uid() == json!(second.uid)).await;
    let agent = bench.subnet_agent("n1").await;
    let address = add(&agent, &bench.pod_of_workload(&second, "web-1"), "eth0").await.unwrap();
    assert!(address.iter().all(|address| has(&pool, address)), "{address:?} {pool:?}");
    bench.deployment("web", 1, &keeps(false));
    let label = || found_pool(&pool.name).unwrap()["metadata"]["labels"][RECLAIM].clone();
    bench.until("it is to be reclaimed", async || label() == json!("true")).await;
    controller.stop().unwrap();
}

/// I00002, I00005 and I00022, of I00004 what applications' pools have, and pools that were there before the subnet.
#[tokio::test(flavor = "multi_thread")]
async fn pools_made_by_hand_become_the_subnets_and_are_no_applications() {
    let bench = Bench::new("hand").await;
    let cidr = "10.123.0.0/24";
    bench.pool("plain", cidr, &["10.123.0.10-10.123.0.12"], &json!({}));
    bench.pool("own", cidr, &["10.123.0.13"], &json!({"gateway": "10.123.0.2", "routes": []}));
    let controller = bench.controller("a").await;
    let routes = json!([{"dst": "10.0.0.0/8", "gw": "10.123.0.3"}]);
    bench.subnet(
        "s",
        cidr,
        &["10.123.0.10-10.123.0.20"],
        &json!({"gateway": "10.123.0.1", "routes": routes, "excludeIPs": ["10.123.0.14"]}),
    );
    let pool = |name: &str| found_pool(&bench.name(name)).unwrap();
    let is_subnets = |name: &str| pool(name)["metadata"]["labels"][OWNER_SUBNET] == json!("hand-s");
    bench.until("they are the subnet's", async || is_subnets("plain") && is_subnets("own")).await;
    let [plain, own] = ["plain", "own"].map(pool);
    assert_eq!((&plain["spec"]["gateway"], &plain["spec"]["routes"]), (&json!("10.123.0.1"), &routes));
    assert_eq!(own["spec"]["gateway"], json!("10.123.0.2"));
    let owner = &plain["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["controller"]), (&json!("SpiderSubnet"), &json!(true)));
    let expect = json!({
        "hand-own": {"ips": ["10.123.0.13"]}, "hand-plain": {"ips": ["10.123.0.10-10.123.0.12"]},
    });
    bench.until("both are recorded", async || bench.records("s") == expect).await;

    // What the subnet says later is for later pools. With it come more addresses, which the status counts.
    let later = json!({"gateway": "10.123.0.4", "routes": [], "excludeIPs": ["10.123.0.14"]});
    bench.subnet("s", cidr, &["10.123.0.10-10.123.0.21"], &later);
    let total = || bench.found_subnet("s").unwrap()["status"]["totalIPCount"].clone();
    bench.until("the change is seen", async || total() == json!(11)).await;
    for (name, before) in [("plain", &plain), ("own", &own)] {
        for field in ["gateway", "routes"] {
            assert_eq!(pool(name)["spec"][field], before["spec"][field], "{name}");
        }
    }

    let status = json!({"controlledIPPools": json!({"nobody": {"ips": ["10.123.0.20"]}}).to_string()});
    ControlPlane::shared()
        .patch_status(Kind::spiderpool("SpiderSubnet"), "", &bench.name("s"), &status)
        .unwrap();
    bench.until("false records go", async || bench.records("s") == expect).await;

    bench.deployment("web", 3, &[bench.subnet_annotation("s"), (IP_NUMBER.to_owned(), "+0".to_owned())]);
    let made = bench.pool_of("web", 3).await;
    assert_eq!(made.ips, ["10.123.0.15-10.123.0.17"], "neither a pool's nor excluded");
    bench.pool("plain", cidr, &["10.123.0.10-10.123.0.11"], &json!({}));
    bench.deployment("web", 4, &[bench.subnet_annotation("s"), (IP_NUMBER.to_owned(), "+0".to_owned())]);
    let made = bench.pool_of("web", 4).await;
    assert!(has(&made, "10.123.0.12"), "what is free is given: {made:?}");
    controller.stop().unwrap();
}

/// D00007 and I00007: all of a kind at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn many_pools_made_by_hand_come_change_and_go() {
    const POOLS: usize = 30;
    let bench = Bench::new("many").await;
    let cidr = "10.134.0.0/16";
    bench.subnet("s", cidr, &["10.134.0.1-10.134.255.254"], &json!({}));
    let controller = bench.controller("a").await;
    let agent = bench.subnet_agent("n1").await;
    let name = |number: usize| format!("p{number}");
    // The addresses of each, which have a third number of their own.
    let write = |number: usize, last: usize| {
        bench.pool(&name(number), cidr, &[&format!("10.134.{number}.1-10.134.{number}.{last}")], &json!({}));
    };
    let until_recorded = async |last: usize| {
        let expect: BTreeMap<_, _> = (0..POOLS)
            .map(|number| {
                let ips = json!([format!("10.134.{number}.1-10.134.{number}.{last}")]);
                (bench.name(&name(number)), json!({"ips": ips}))
            })
            .collect();
        bench
            .until("the subnet has them all", async || {
                bench.records("s") == json!(expect) && bench.given("s") == json!(POOLS * last)
            })
            .await;
    };
    at_once(POOLS, |number| write(number, 2));
    until_recorded(2).await;
    at_once(POOLS, |number| write(number, 4));
    until_recorded(4).await;
    let pods: Vec<_> =
        (0..POOLS).map(|number| bench.pod_with_pool(&name(number), "n1", &name(number))).collect();
    for (number, pod) in pods.iter().enumerate() {
        let given = add(&agent, pod, "eth0").await.unwrap();
        assert!(given.iter().all(|ip| ip.starts_with(&format!("10.134.{number}."))), "{number}: {given:?}");
    }
    at_once(POOLS, |number| {
        let pool = bench.name(&name(number));
        ControlPlane::shared().kubectl(&["delete", "spiderippool", &pool, "--wait=false"]).unwrap();
    });
    assert!((0..POOLS).all(|number| found_pool(&bench.name(&name(number))).is_some()), "they are in use");
    for pod in &pods {
        bench.delete_pod(pod);
        del(&agent, pod, "eth0").await;
    }
    bench
        .until("all are gone", async || {
            (0..POOLS).all(|number| found_pool(&bench.name(&name(number))).is_none())
        })
        .await;
    bench.until("nothing is given", async || bench.given("s") == json!(0)).await;
    assert_eq!(bench.records("s"), json!({}));
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// I00009: nobody has refused one. They are of one second, as a rule, and then their names decide.
#[tokio::test(flavor = "multi_thread")]
async fn of_equal_subnets_that_come_at_the_same_moment_one_serves() {
    const COUNT: usize = 5;
    let bench = Bench::new("equal").await;
    let controller = bench.controller("a").await;
    let name = |number: usize| format!("s{number}");
    at_once(COUNT, |number| {
        bench.subnet(&name(number), "10.135.0.0/24", &["10.135.0.10-10.135.0.99"], &json!({}));
    });
    let age = |number: &usize| {
        let meta = &bench.found_subnet(&name(*number)).unwrap()["metadata"];
        (meta["creationTimestamp"].to_string(), meta["name"].to_string())
    };
    let oldest = (0..COUNT).min_by_key(age).unwrap();
    let others: Vec<_> = (0..COUNT).filter(|number| *number != oldest).collect();
    let part = format!("overlaps that of the older SpiderSubnet {}", bench.name(&name(oldest)));
    for number in &others {
        let field = format!("involvedObject.name={}", bench.name(&name(*number)));
        let says = || messages(&ControlPlane::shared().events("", &field).unwrap()).join(" ").contains(&part);
        bench.until("an Event says which one serves", async || says()).await;
    }
    let web = |number: usize| format!("web{number}");
    let workloads: Vec<_> = (0..COUNT)
        .map(|number| bench.deployment(&web(number), 1, &[bench.subnet_annotation(&name(number))]))
        .collect();
    bench.pool_of(&web(oldest), 2).await;
    assert!(others.iter().all(|number| bench.pools_of(&web(*number)).is_empty()));
    // The next one has them when it is gone.
    bench.delete_workload(&workloads[oldest]);
    bench.until("its pool goes", async || bench.pools_of(&web(oldest)).is_empty()).await;
    let gone = bench.name(&name(oldest));
    ControlPlane::shared().kubectl(&["delete", "spidersubnet", &gone, "--timeout=20s"]).unwrap();
    let next = others.into_iter().min_by_key(age).unwrap();
    bench.pool_of(&web(next), 2).await;
    controller.stop().unwrap();
}

/// A SpiderSubnet is gone when its pools are.
#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_that_is_deleted_waits_for_its_pools() {
    let bench = Bench::new("deleted").await;
    bench.subnet("s", "10.124.0.0/24", &["10.124.0.10-10.124.0.20"], &json!({}));
    bench.pool("p", "10.124.0.0/24", &["10.124.0.10"], &json!({}));
    let controller = bench.controller("a").await;
    let pool = || found_pool(&bench.name("p")).unwrap();
    bench
        .until("it is the subnet's", async || {
            pool()["metadata"]["labels"][OWNER_SUBNET] == json!("deleted-s")
        })
        .await;
    ControlPlane::shared().kubectl(&["delete", "spidersubnet", &bench.name("s"), "--wait=false"]).unwrap();
    let finalizers = || bench.found_subnet("s").unwrap()["metadata"]["finalizers"].clone();
    bench
        .until("its pools are to be deleted first", async || {
            finalizers().as_array().unwrap().contains(&json!("foregroundDeletion"))
        })
        .await;
    // As the garbage collector does it.
    ControlPlane::shared().kubectl(&["delete", "spiderippool", &bench.name("p")]).unwrap();
    bench
        .until("our finalizer goes", async || {
            bench.found_subnet("s").is_none_or(|_| finalizers() == json!(["foregroundDeletion"]))
        })
        .await;
    controller.stop().unwrap();
}
