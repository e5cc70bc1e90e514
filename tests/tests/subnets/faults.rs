//! Controllers that end at any moment, two at a time, and such as see their own writes late.

use serde_json::json;
use spiderpool_tests::outage::{Outage, Trouble};

use super::*;

/// Nothing says how soon a watch shows what its client has written.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_sees_its_pools_late_gives_no_address_twice() {
    let bench = Bench::new("late").await;
    bench.subnet("s", "10.165.0.0/24", &["10.165.0.10-10.165.0.99"], &json!({}));
    let identity = StandaloneController::identity(bench.plane(), "a").unwrap();
    let outage = Outage::start(&identity).await.unwrap();
    let folder = bench.folder("controllers");
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &[] };
    let (kubeconfig, file) = (outage.kubeconfig(&folder).unwrap(), subnets_enabled());
    let controller = StandaloneController::start_by(bench.plane(), start, &kubeconfig, &file).await.unwrap();
    let annotations = [bench.subnet_annotation("s"), (IP_NUMBER.to_owned(), "+0".to_owned())];
    let pool = async |name: &str, size: u32| {
        bench.deployment(name, size, &annotations);
        bench.pool_of(name, size.into()).await
    };
    pool("b", 2).await;
    outage.set(Trouble::LateWatches("spiderippools"));
    let grown = pool("b", 4).await;
    // Whose turn comes before that of those that have some already.
    let [new, newer] = [pool("c", 2).await, pool("a", 3).await];
    let check = |pools: &[&FoundPool]| {
        let none = IpSet::empty(Family::V4);
        let all = pools.iter().fold(none, |all, pool| all.union(&pool.addresses()));
        assert_eq!(all.len(), pools.iter().map(|pool| pool.addresses().len()).sum(), "{pools:?}");
    };
    check(&[&grown, &new, &newer]);
    // One becomes smaller, and others get what it has no more.
    let small = pool("b", 1).await;
    check(&[&small, &new, &newer, &pool("aa", 8).await]);
    outage.set(Trouble::None);
    bench.until("the status says so", async || bench.given("s") == json!(14)).await;
    let now: Vec<_> = ["a", "aa", "b", "c"].iter().map(|name| bench.pools_of(name).remove(0)).collect();
    check(&now.iter().collect::<Vec<_>>());
    controller.stop().unwrap();
}

/// I00006, I00008 and G00008: whatever was written last, each workload has one pool of its size, and no address is two pools'.
#[tokio::test(flavor = "multi_thread")]
async fn pools_are_right_after_controllers_that_were_killed() {
    const WORKLOADS: u32 = 12;
    let bench = Bench::new("killed").await;
    bench.subnet("s", "10.130.0.0/24", &["10.130.0.10-10.130.0.99"], &json!({}));
    let name = |number: u32| format!("web-{number}");
    let annotations = [bench.subnet_annotation("s"), (IP_NUMBER.to_owned(), "+0".to_owned())];
    let sizes = |round: u32| move |number: u32| 1 + (number + round) % 4;
    for round in 0..3 {
        let size = sizes(round);
        let controller = bench.controller("a").await;
        for number in 0..WORKLOADS {
            bench.deployment(&name(number), size(number), &annotations);
        }
        // Some are made, some are not.
        bench
            .until("it has begun", async || {
                (0..WORKLOADS).any(|number| {
                    let pools = bench.pools_of(&name(number));
                    pools.iter().any(|pool| pool.addresses().len() == u128::from(size(number)))
                })
            })
            .await;
        controller.kill().unwrap();
    }
    let controller = bench.controller("b").await;
    let size = sizes(2);
    let mut all = IpSet::empty(Family::V4);
    for number in 0..WORKLOADS {
        let pool = bench.pool_of(&name(number), size(number).into()).await;
        assert!(all.intersection(&pool.addresses()).is_empty(), "{pool:?} {all:?}");
        all = all.union(&pool.addresses());
    }
    let sum: u32 = (0..WORKLOADS).map(size).sum();
    bench.until("the status says so", async || bench.given("s") == json!(sum)).await;
    assert_eq!(bench.records("s").as_object().unwrap().len(), WORKLOADS as usize);
    for number in 0..WORKLOADS {
        bench.kubectl(&["delete", "deployment", &name(number)]);
    }
    bench.until("nothing is left", async || bench.given("s") == json!(0)).await;
    controller.stop().unwrap();
}
