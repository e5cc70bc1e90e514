//! The leader and the addresses of KubeVirt's virtual machines: it gives them to the pod that a machine has moved to, and frees them
//! when the machine is gone.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod, addresses};

async fn controller(bench: &Bench<'_>, plane: &ControlPlane, interval: &str) -> StandaloneController {
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    let environment = [("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", interval)];
    let start = Start { folder: &folder, namespace, name: "a", environment: &environment };
    StandaloneController::start(plane, start).await.unwrap()
}

/// ADD; the name of the address's object.
async fn add(agent: &StandaloneAgent, pod: &TestPod, nic: &str) -> String {
    let answer = agent.ask(Method::POST, path::IP, &pod.add(nic, &pod.uid)).await.unwrap().ok().unwrap();
    let address = addresses(&answer).pop_first().unwrap();
    address.split_once('/').unwrap().0.to_owned()
}

async fn del(agent: &StandaloneAgent, pod: &TestPod, nic: &str) {
    agent.ask(Method::DELETE, path::IP, &pod.del(nic, &pod.uid)).await.unwrap().ok().unwrap();
}

fn spec(bench: &Bench<'_>, address: &str) -> Value {
    bench.address(address).map(|object| object["spec"].clone()).unwrap_or_default()
}

/// F00002.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_has_moved_takes_its_addresses_along() {
    let bench = Bench::new("lead-move").await;
    bench.pool("p", "10.106.0.0/24", &["10.106.0.2-10.106.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let controller = controller(&bench, ControlPlane::shared(), "1").await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let mut running = bench.launcher(&instance, "p0", "n1", None, &annotations);
    let mut had = Vec::new();
    for nic in ["eth0", "net1"] {
        had.push(add(&one, &running, nic).await);
    }
    bench.run_pod(&running);
    bench.until("the endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    // There and back: the pod that it leaves the second time is one that it has moved to.
    for (suffix, from, to, node) in [("p1", &one, &two, "n2"), ("p2", &two, &one, "n1")] {
        let migration = kubevirt.migration(&format!("to-{suffix}"), &instance).unwrap();
        let target = bench.launcher(&instance, suffix, node, Some(&migration), &annotations);
        for (nic, had) in ["eth0", "net1"].iter().zip(&had) {
            assert_eq!(&add(to, &target, nic).await, had);
        }
        bench.run_pod(&target);
        bench.succeed_pod(&running);
        for nic in ["net1", "eth0"] {
            del(from, &running, nic).await;
        }
        let compared = || controller.log().unwrap().matches("full resync done").count();
        let before = compared();
        bench.until("it was compared twice", async || compared() >= before + 2).await;
        for address in &had {
            assert_eq!(spec(&bench, address)["state"], json!("kept"), "nobody has said that it has moved");
        }
        kubevirt.place(&instance, &bench.name(node), &[(&target.uid, &bench.name(node))]).unwrap();
        kubevirt.end_migration(&migration, "Succeeded").unwrap();
        for address in &had {
            bench
                .until("the address is the target's", async || {
                    let spec = spec(&bench, address);
                    let node = json!(bench.name(node));
                    (&spec["state"], &spec["podUID"], &spec["node"])
                        == (&json!("bound"), &json!(target.uid), &node)
                })
                .await;
        }
        bench
            .until("the endpoint is the target's", async || {
                let endpoint = bench.endpoint_named("db").unwrap();
                endpoint["status"]["current"]["uid"] == json!(target.uid)
                    && endpoint["status"]["current"]["ips"].as_array().unwrap().len() == 2
                    && endpoint["metadata"]["annotations"]["spiderpool.spidernet.io/pod"]
                        == json!(target.name)
            })
            .await;
        bench.delete_pod(&running);
        running = target;
    }
    // The DEL knows what it has brought along. That the others have ended, nobody says before the instance is gone.
    kubevirt.delete_machine("db").unwrap();
    kubevirt.delete_instance(&instance).unwrap();
    bench.delete_pod(&running);
    for nic in ["net1", "eth0"] {
        del(&one, &running, nic).await;
    }
    for address in &had {
        assert_eq!(spec(&bench, address)["state"], json!("kept"));
    }
    kubevirt.finish_instance(&instance).unwrap();
    for address in &had {
        bench.until("it is free", async || bench.address(address).is_none()).await;
    }
    bench.until("the endpoint is gone", async || bench.endpoint_named("db").is_none()).await;
    controller.stop().unwrap();
}

/// Nothing on the API server says which addresses the pod uses before they are its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_restarts_while_a_machine_moves_learns_what_it_brings_along() {
    let bench = Bench::new("lead-restart").await;
    bench.pool("p", "10.113.0.0/24", &["10.113.0.2-10.113.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let controller = controller(&bench, ControlPlane::shared(), "600").await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let address = add(&one, &source, "eth0").await;
    bench.run_pod(&source);
    bench.until("the endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    let migration = kubevirt.migration("moves", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&migration), &annotations);
    assert_eq!(add(&two, &target, "eth0").await, address);
    bench.run_pod(&target);
    two.kill().unwrap();
    let two = bench.agent("n2").await;
    bench.succeed_pod(&source);
    del(&one, &source, "eth0").await;
    kubevirt.place(&instance, &bench.name("n2"), &[(&target.uid, &bench.name("n2"))]).unwrap();
    kubevirt.end_migration(&migration, "Succeeded").unwrap();
    bench
        .until("the address is that of the target's sandbox", async || {
            let spec = spec(&bench, &address);
            (&spec["podUID"], &spec["containerID"]) == (&json!(target.uid), &json!(target.uid))
        })
        .await;
    // Its namespace is none.
    bench
        .until("neighbors were to be told", async || two.log().unwrap().contains("addresses not announced"))
        .await;
    kubevirt.delete_machine("db").unwrap();
    kubevirt.delete_instance(&instance).unwrap();
    kubevirt.finish_instance(&instance).unwrap();
    bench.delete_pod(&target);
    del(&two, &target, "eth0").await;
    assert_eq!(bench.address(&address), None, "its DEL frees it");
    controller.stop().unwrap();
}

/// The leader does not know which NICs a pod has, and makes all that is left the target's.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_had_by_a_nic_that_its_target_lacks_is_freed() {
    let bench = Bench::new("lead-nic").await;
    bench.pool("p", "10.114.0.0/24", &["10.114.0.2-10.114.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let controller = controller(&bench, ControlPlane::shared(), "600").await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let stays = add(&one, &source, "eth0").await;
    let unplugged = add(&one, &source, "net1").await;
    bench.run_pod(&source);
    bench
        .until("the endpoint is complete", async || {
            bench.endpoint_named("db").is_some_and(|endpoint| {
                endpoint["status"]["current"]["ips"].as_array().is_some_and(|ips| ips.len() == 2)
            })
        })
        .await;
    let migration = kubevirt.migration("moves", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&migration), &annotations);
    assert_eq!(add(&two, &target, "eth0").await, stays);
    bench.run_pod(&target);
    bench.succeed_pod(&source);
    for nic in ["net1", "eth0"] {
        del(&one, &source, nic).await;
    }
    kubevirt.place(&instance, &bench.name("n2"), &[(&target.uid, &bench.name("n2"))]).unwrap();
    kubevirt.end_migration(&migration, "Succeeded").unwrap();
    bench
        .until("no sandbox is known to use the address of net1", async || {
            spec(&bench, &unplugged)["detached"] == json!(true)
        })
        .await;
    // An ADD is waited for for a minute.
    poll::until_async("the address of net1 is free", Duration::from_secs(100), async || {
        anyhow::ensure!(bench.address(&unplugged).is_none(), "{}", spec(&bench, &unplugged));
        Ok(())
    })
    .await
    .unwrap();
    let spec = spec(&bench, &stays);
    assert_eq!((&spec["podUID"], &spec["containerID"]), (&json!(target.uid), &json!(target.uid)));
    bench
        .until("the endpoint names what is left", async || {
            let current = bench.endpoint_named("db").unwrap()["status"]["current"].clone();
            let nics = current["ips"].as_array().unwrap().iter().map(|ip| ip["interface"].clone());
            current["uid"] == json!(target.uid) && nics.collect::<Vec<_>>() == [json!("eth0")]
        })
        .await;
    controller.stop().unwrap();
}

/// Its target goes on using it, and the next pod of the machine is as any other.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_shares_becomes_its_own_also_where_machines_do_not_keep_addresses_any_more() {
    let bench = Bench::new("lead-off").await;
    bench.pool("p", "10.115.0.0/24", &["10.115.0.2-10.115.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let agents = [bench.agent("n1").await, bench.agent("n2").await];
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let address = add(&agents[0], &source, "eth0").await;
    bench.run_pod(&source);
    bench.until("the endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    let migration = kubevirt.migration("moves", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&migration), &annotations);
    assert_eq!(add(&agents[1], &target, "eth0").await, address);
    bench.run_pod(&target);
    for agent in agents {
        agent.stop().unwrap();
    }

    let off = json!({"enableKubevirtStaticIP": false});
    let (one, two) = (bench.agent_with("n1", &off).await, bench.agent_with("n2", &off).await);
    let pods = [(source.uid.as_str(), "n1"), (target.uid.as_str(), "n2")];
    kubevirt.place(&instance, &bench.name("n1"), &pods).unwrap();
    bench.succeed_pod(&source);
    del(&one, &source, "eth0").await;
    assert_eq!(spec(&bench, &address)["state"], json!("kept"), "the target uses it");
    let folder = bench.folder("controllers");
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &[] };
    let controller = StandaloneController::start_with(ControlPlane::shared(), start, &off).await.unwrap();
    let patch = json!({"status": {"nodeName": bench.name("n2"), "activePods": {source.uid.clone(): null}}});
    kubevirt.patch_instance(&instance, &patch).unwrap();
    kubevirt.end_migration(&migration, "Succeeded").unwrap();
    bench
        .until("the address is that of the target's sandbox", async || {
            let spec = spec(&bench, &address);
            (&spec["podUID"], &spec["containerID"]) == (&json!(target.uid), &json!(target.uid))
        })
        .await;
    bench.delete_pod(&target);
    del(&two, &target, "eth0").await;
    assert_eq!(bench.address(&address), None, "nothing stays with a machine");
    controller.stop().unwrap();
}

/// A migration that fails leaves nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_did_not_move_keeps_its_addresses_where_it_is() {
    let bench = Bench::new("lead-stay").await;
    bench.pool("p", "10.107.0.0/24", &["10.107.0.2-10.107.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let controller = controller(&bench, ControlPlane::shared(), "1").await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let address = add(&one, &source, "eth0").await;
    bench.run_pod(&source);
    bench.until("the endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    kubevirt.place(&instance, &bench.name("n1"), &[(&source.uid, &bench.name("n1"))]).unwrap();
    let objects = || (bench.address(&address), bench.endpoint_named("db"));
    let before = objects();
    let migration = kubevirt.migration("fails", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&migration), &annotations);
    assert_eq!(add(&two, &target, "eth0").await, address);
    bench.run_pod(&target);
    kubevirt.end_migration(&migration, "Failed").unwrap();
    bench.delete_pod(&target);
    del(&two, &target, "eth0").await;
    let compared = || controller.log().unwrap().matches("full resync done").count();
    let seen = compared();
    bench.until("it was compared twice", async || compared() >= seen + 2).await;
    assert_eq!(objects(), before, "resourceVersions included");
    controller.stop().unwrap();
}

/// A machine that is stopped has no instance; its addresses wait for as long as there is the machine.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_stopped_machine_is_freed_when_that_is_deleted() {
    let bench = Bench::new("lead-stop").await;
    bench.pool("p", "10.108.0.0/24", &["10.108.0.2-10.108.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    bench.node("n2", true);
    let controller = controller(&bench, ControlPlane::shared(), "1").await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let pod = bench.launcher(&instance, "a", "n1", None, &annotations);
    let address = add(&one, &pod, "eth0").await;
    bench.until("the endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    kubevirt.delete_instance(&instance).unwrap();
    bench.delete_pod(&pod);
    del(&one, &pod, "eth0").await;
    kubevirt.finish_instance(&instance).unwrap();
    let compared = || controller.log().unwrap().matches("full resync done").count();
    let before = compared();
    bench.until("it was compared three times", async || compared() >= before + 3).await;
    assert_eq!(spec(&bench, &address)["state"], json!("kept"));
    // Started again on another node, and stopped there without its agent: the leader keeps what it had.
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let pod = bench.launcher(&instance, "b", "n2", None, &annotations);
    assert_eq!(add(&two, &pod, "eth0").await, address);
    bench.run_pod(&pod);
    two.kill().unwrap();
    kubevirt.delete_instance(&instance).unwrap();
    bench.delete_pod(&pod);
    bench.until("it is kept again", async || spec(&bench, &address)["state"] == json!("kept")).await;
    kubevirt.finish_instance(&instance).unwrap();
    kubevirt.delete_machine("db").unwrap();
    bench.until("it is free", async || bench.address(&address).is_none()).await;
    bench.until("the endpoint is gone", async || bench.endpoint_named("db").is_none()).await;
    controller.stop().unwrap();
}

/// An instance without machine that is deleted while it moves: its second pod may use the addresses until the instance is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_instance_had_is_freed_when_none_of_its_pods_can_use_it() {
    let bench = Bench::new("lead-gone").await;
    bench.pool("p", "10.109.0.0/24", &["10.109.0.2-10.109.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let controller = controller(&bench, ControlPlane::shared(), "600").await;
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let instance = kubevirt.instance("db", None).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let address = add(&one, &source, "eth0").await;
    bench.until("the endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    let migration = kubevirt.migration("moves", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&migration), &annotations);
    assert_eq!(add(&two, &target, "eth0").await, address);
    let pods = [(source.uid.as_str(), "n1"), (target.uid.as_str(), "n2")];
    kubevirt.place(&instance, &bench.name("n1"), &pods).unwrap();
    kubevirt.delete_instance(&instance).unwrap();
    bench.delete_pod(&source);
    del(&one, &source, "eth0").await;
    assert_eq!(spec(&bench, &address)["state"], json!("kept"));
    bench.delete_pod(&target);
    del(&two, &target, "eth0").await;
    kubevirt.finish_instance(&instance).unwrap();
    bench.until("it is free", async || bench.address(&address).is_none()).await;
    bench.until("the endpoint is gone", async || bench.endpoint_named("db").is_none()).await;
    controller.stop().unwrap();
}

/// That KubeVirt's kinds are not served does not say that its machines are gone.
#[tokio::test(flavor = "multi_thread")]
async fn without_kubevirts_kinds_what_is_kept_stays() {
    let plane = tokio::task::block_in_place(|| ControlPlane::start(Options::default())).unwrap();
    let bench = Bench::on(&plane, "lead-none").await;
    let kept = |name: &str, machine: &str| {
        bench.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress", "metadata": {"name": name},
            "spec": {
                "address": format!("{name}/24"), "pool": bench.name("p"), "interface": "eth0",
                "podNamespace": bench.namespace(), "podName": format!("virt-launcher-{machine}-x"), "podUID": machine,
                "ownerKind": "VirtualMachineInstance", "ownerName": machine, "virtualMachine": machine,
                "state": "kept",
            },
        }));
    };
    kept("10.110.0.2", "db");
    kept("10.110.0.3", "web");
    let controller = controller(&bench, &plane, "1").await;
    let says = |part: &str| controller.log().unwrap().matches(part).count();
    bench
        .until("it was compared, and nobody knows the machines", async || {
            says("full resync done") >= 3 && says("kubevirt.io/v1 is not served") >= 1
        })
        .await;
    for address in ["10.110.0.2", "10.110.0.3"] {
        assert_eq!(spec(&bench, address)["state"], json!("kept"), "{address}");
    }
    // Once they are served, what is said of machines counts. A machine is there before its addresses.
    plane.kubectl(&["delete", "sip", "10.110.0.2"]).unwrap();
    let kubevirt = bench.kubevirt();
    kubevirt.machine("db").unwrap();
    kept("10.110.0.2", "db");
    bench.until("nobody claims it", async || bench.address("10.110.0.3").is_none()).await;
    let compared = says("full resync done");
    bench.until("it was compared again", async || says("full resync done") > compared).await;
    assert_eq!(spec(&bench, "10.110.0.2")["state"], json!("kept"));
    controller.stop().unwrap();
}
