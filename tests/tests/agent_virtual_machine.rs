//! The addresses of KubeVirt's virtual machines: they stay with the machine, whose pods have other names each time. Agents against a
//! real API server with KubeVirt's kinds; upstream's cases are named by their numbers.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::kubevirt::{Instance, Migration};
use spiderpool_tests::standalone_agent::StandaloneAgent;
use support::{Bench, TestPod, failure, outage};

/// The answer's addresses of a NIC.
async fn answered(agent: &StandaloneAgent, pod: &TestPod, nic: &str, container: &str) -> Vec<Value> {
    let answer = agent.ask(Method::POST, path::IP, &pod.add(nic, container)).await.unwrap();
    let ips = answer.ok().unwrap()["ips"].as_array().unwrap().clone();
    ips.into_iter().filter(|ip| ip["nic"] == nic).collect()
}

async fn add(agent: &StandaloneAgent, pod: &TestPod, nic: &str, container: &str) -> Vec<String> {
    let ips = answered(agent, pod, nic, container).await;
    ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

async fn del(agent: &StandaloneAgent, pod: &TestPod, nic: &str, container: &str) {
    agent.ask(Method::DELETE, path::IP, &pod.del(nic, container)).await.unwrap().ok().unwrap();
}

/// The object of an address.
fn object(bench: &Bench<'_>, address: &str) -> Option<Value> {
    bench.address(&object_name(address.split_once('/').unwrap().0.parse().unwrap()))
}

/// State, pod and virtual machine of an address.
fn whose(bench: &Bench<'_>, address: &str) -> (String, String, String) {
    let spec = object(bench, address).unwrap()["spec"].clone();
    let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("podUID"), text("virtualMachine"))
}

fn of(state: &str, pod: &TestPod) -> (String, String, String) {
    (state.to_owned(), pod.uid.clone(), "db".to_owned())
}

/// F00001 and F00003: the machine is stopped, and started on another node as another instance in a pod of another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_restarts_has_the_address_of_each_nic_on_another_node() {
    let bench = Bench::new("vm-restart").await;
    bench.pool("p4", "10.100.0.0/24", &["10.100.0.2-10.100.0.200"], &json!({"gateway": "10.100.0.1"}));
    bench.pool("p6", "fd10::/64", &["fd10::2-fd10::ff"], &json!({}));
    let annotation = json!({"ipv4": [bench.name("p4")], "ipv6": [bench.name("p6")]}).to_string();
    let annotations = [("ipam.spidernet.io/ippool".to_owned(), annotation)];
    let kubevirt = bench.kubevirt();
    let machine = kubevirt.machine("db").unwrap();
    let (one, two) = (bench.agent("n1").await, bench.agent("n2").await);
    let mut had: Option<Vec<Vec<String>>> = None;
    for (suffix, agent, node) in [("aaaaa", &one, "n1"), ("bbbbb", &two, "n2"), ("ccccc", &two, "n2")] {
        let instance = kubevirt.instance("db", Some(&machine)).unwrap();
        let pod = bench.launcher(&instance, suffix, node, None, &annotations);
        let mut has = Vec::new();
        for nic in ["eth0", "net1"] {
            has.push(add(agent, &pod, nic, suffix).await);
            // An ADD that is repeated changes nothing.
            assert_eq!(add(agent, &pod, nic, suffix).await, has[has.len() - 1]);
        }
        assert_eq!(had.get_or_insert_with(|| has.clone()), &has);
        let all: Vec<&String> = has.iter().flatten().collect();
        assert_eq!((all.len(), bench.held(&pod).len()), (4, 4));
        bench
            .until("the machine's endpoint is the pod's", async || {
                let Some(endpoint) = bench.endpoint_named("db") else { return false };
                let (current, meta) = (&endpoint["status"]["current"], &endpoint["metadata"]);
                current["uid"] == json!(pod.uid)
                    && current["ips"].as_array().unwrap().len() == 2
                    && meta["annotations"]["spiderpool.spidernet.io/pod"] == json!(pod.name)
                    && meta.get("ownerReferences").is_none()
            })
            .await;
        assert_eq!(bench.find_endpoint(&pod), None, "the pod's name says nothing");
        for address in &all {
            assert_eq!(whose(&bench, address), of("bound", &pod));
        }
        kubevirt.delete_instance(&instance).unwrap();
        bench.delete_pod(&pod);
        for nic in ["net1", "eth0"] {
            del(agent, &pod, nic, suffix).await;
        }
        kubevirt.finish_instance(&instance).unwrap();
        for address in &all {
            assert_eq!(whose(&bench, address), of("kept", &pod));
            assert_eq!(object(&bench, address).unwrap()["spec"].get("node"), None);
        }
    }
}

/// Nobody makes another pod: of an instance without machine, of a machine that is deleted, and of an instance that is not
/// KubeVirt's.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_machine_the_address_is_free() {
    let bench = Bench::new("vm-end").await;
    bench.pool("p", "10.101.0.0/24", &["10.101.0.2-10.101.0.99"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let agent = bench.agent("n1").await;
    let alone = kubevirt.instance("alone", None).unwrap();
    let machine = kubevirt.machine("deleted").unwrap();
    let deleted = kubevirt.instance("deleted", Some(&machine)).unwrap();
    let pods = [&alone, &deleted].map(|instance| bench.launcher(instance, "x", "n1", None, &annotations));
    let annotation = [(annotations[0].0.as_str(), annotations[0].1.as_str())];
    let kind = ("example.com/v1", "VirtualMachineInstance");
    let foreign = bench.pod_of(kind.0, kind.1, "alone", "virt-launcher-alone-y", "n1", &annotation);
    for pod in pods.iter().chain([&foreign]) {
        add(&agent, pod, "eth0", "c").await;
        bench.until("it has an address", async || bench.held(pod).len() == 1).await;
    }
    assert_eq!(bench.held(&foreign)[0]["spec"].get("virtualMachine"), None);
    for instance in [&alone, &deleted] {
        bench.until("its endpoint is there", async || bench.endpoint_named(&instance.name).is_some()).await;
        kubevirt.delete_instance(instance).unwrap();
    }
    kubevirt.delete_machine("deleted").unwrap();
    for pod in pods.iter().chain([&foreign]) {
        bench.delete_pod(pod);
        del(&agent, pod, "eth0", "c").await;
        assert!(bench.held(pod).is_empty(), "{}", pod.name);
    }
    for instance in [&alone, &deleted] {
        assert_eq!(bench.endpoint_named(&instance.name), None, "{}", instance.name);
        kubevirt.finish_instance(instance).unwrap();
    }
}

/// Whoever may create pods writes into them what he likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_only_says_that_it_is_a_machines_has_none_of_its_addresses() {
    let bench = Bench::new("vm-forged").await;
    bench.pool("p", "10.102.0.0/24", &["10.102.0.2-10.102.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let agent = bench.agent("n1").await;
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let pod = bench.launcher(&instance, "real", "n1", None, &annotations);
    let had = add(&agent, &pod, "eth0", "c1").await;
    bench.until("its endpoint is there", async || bench.endpoint_named("db").is_some()).await;

    // While it runs: another UID, and no such machine.
    let forged = Instance { uid: "00000000-0000-0000-0000-000000000000".to_owned(), ..instance.clone() };
    let unknown = Instance { name: "none".to_owned(), ..forged.clone() };
    for (claimed, suffix) in [(&forged, "f1"), (&unknown, "f2")] {
        let pod = bench.launcher(claimed, suffix, "n1", None, &annotations);
        let has = add(&agent, &pod, "eth0", suffix).await;
        assert_ne!(has, had);
        assert_eq!(bench.held(&pod)[0]["spec"].get("virtualMachine"), None);
        let endpoint = bench.endpoint(&pod).await;
        assert_eq!(endpoint["metadata"]["ownerReferences"][0]["uid"], json!(pod.uid));
        bench.delete_pod(&pod);
        del(&agent, &pod, "eth0", suffix).await;
        assert!(bench.held(&pod).is_empty() && bench.find_endpoint(&pod).is_none());
    }
    // It knows the UID, and that of a migration which does not go on, or not of this machine.
    let other = kubevirt.instance("other", None).unwrap();
    let elsewhere = kubevirt.migration("elsewhere", &other).unwrap();
    let over = kubevirt.migration("over", &instance).unwrap();
    kubevirt.end_migration(&over, "Failed").unwrap();
    let goes_on = kubevirt.migration("goes-on", &instance).unwrap();
    let guessed = Migration { uid: over.uid.clone(), ..goes_on };
    let claims = [("f3", None), ("f4", Some(&elsewhere)), ("f5", Some(&over)), ("f6", Some(&guessed))];
    let pods =
        claims.map(|(suffix, migration)| bench.launcher(&instance, suffix, "n1", migration, &annotations));
    // Each waits for the other pod's DEL.
    join_all(pods.iter().map(|pod| {
        let agent = &agent;
        async move { outage(agent, &pod.add("eth0", "f"), "of its VirtualMachineInstance db").await }
    }))
    .await;
    for pod in &pods {
        assert!(bench.held(pod).is_empty(), "{}", pod.name);
        bench.delete_pod(pod);
    }
    assert_eq!(whose(&bench, &had[0]), of("bound", &pod));

    // While the machine is stopped.
    kubevirt.delete_instance(&instance).unwrap();
    bench.delete_pod(&pod);
    del(&agent, &pod, "eth0", "c1").await;
    kubevirt.finish_instance(&instance).unwrap();
    let late = bench.launcher(&instance, "f7", "n1", None, &annotations);
    assert_ne!(add(&agent, &late, "eth0", "f7").await, had);
    assert_eq!(whose(&bench, &had[0]), of("kept", &pod));
    let endpoint = bench.endpoint_named("db").unwrap();
    assert_eq!(
        endpoint["status"]["current"]["uid"],
        json!(pod.uid),
        "the machine's endpoint names what is kept"
    );
}

/// Whoever may create pods may give one the name of a machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_the_name_of_a_machine_has_neither_its_addresses_nor_its_endpoint() {
    let bench = Bench::new("vm-name").await;
    bench.pool("p", "10.111.0.0/24", &["10.111.0.2-10.111.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let agent = bench.agent("n1").await;
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let launcher = bench.launcher(&instance, "a", "n1", None, &annotations);
    let had = add(&agent, &launcher, "eth0", "c1").await;
    bench.until("its endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    kubevirt.delete_instance(&instance).unwrap();
    bench.delete_pod(&launcher);
    del(&agent, &launcher, "eth0", "c1").await;
    kubevirt.finish_instance(&instance).unwrap();
    assert_eq!(whose(&bench, &had[0]), of("kept", &launcher));
    let endpoint = bench.endpoint_named("db");

    let pod = bench.pod_with_pool("db", "n1", "p");
    assert_ne!(add(&agent, &pod, "eth0", "c2").await, had);
    assert_eq!(bench.held(&pod)[0]["spec"].get("virtualMachine"), None);
    bench
        .until("the agent says why the pod has no endpoint", async || {
            agent.log().unwrap().contains("a pod and a virtual machine have the same name")
        })
        .await;
    bench.delete_pod(&pod);
    del(&agent, &pod, "eth0", "c2").await;
    assert!(bench.held(&pod).is_empty());
    assert_eq!(bench.endpoint_named("db"), endpoint, "resourceVersion included");
    assert_eq!(whose(&bench, &had[0]), of("kept", &launcher));

    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let next = bench.launcher(&instance, "b", "n1", None, &annotations);
    assert_eq!(add(&agent, &next, "eth0", "c3").await, had);
}

/// As any pod that no workload makes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_has_another_address_each_time_where_it_is_not_to_keep_it() {
    let bench = Bench::new("vm-off").await;
    bench.pool("p", "10.103.0.0/24", &["10.103.0.2-10.103.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let agent = bench.agent_with("n1", &json!({"enableKubevirtStaticIP": false})).await;
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let pod = bench.launcher(&instance, "a", "n1", None, &annotations);
    add(&agent, &pod, "eth0", "c1").await;
    let endpoint = bench.endpoint(&pod).await;
    assert_eq!(endpoint["status"]["ownerControllerType"], json!("VirtualMachineInstance"));
    assert_eq!(bench.endpoint_named("db"), None);
    bench.delete_pod(&pod);
    del(&agent, &pod, "eth0", "c1").await;
    assert!(bench.held(&pod).is_empty() && bench.find_endpoint(&pod).is_none());
}

/// F00002, until the machine has moved, and where it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_moves_has_its_addresses_in_both_pods_and_the_second_writes_nothing() {
    let bench = Bench::new("vm-move").await;
    bench.pool("p4", "10.104.0.0/24", &["10.104.0.2-10.104.0.200"], &json!({"gateway": "10.104.0.1"}));
    bench.pool("p6", "fd14::/64", &["fd14::2-fd14::ff"], &json!({}));
    let annotation = json!({"ipv4": [bench.name("p4")], "ipv6": [bench.name("p6")]}).to_string();
    let annotations = [("ipam.spidernet.io/ippool".to_owned(), annotation)];
    let kubevirt = bench.kubevirt();
    let probing = json!({
        "enableIPConflictDetection": true, "enableGatewayDetection": true, "enableDuplicateAddressDetection": true,
    });
    let (one, two) = (bench.agent_with("n1", &probing).await, bench.agent_with("n2", &probing).await);
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let mut had = Vec::new();
    for nic in ["eth0", "net1"] {
        had.push(add(&one, &source, nic, "c1").await);
    }
    bench.run_pod(&source);
    let (from, to) = (bench.name("n1"), bench.name("n2"));
    kubevirt.place(&instance, &from, &[(&source.uid, &from)]).unwrap();
    bench
        .until("the endpoint is complete", async || {
            bench.endpoint_named("db").is_some_and(|endpoint| {
                endpoint["status"]["current"]["ips"].as_array().is_some_and(|ips| ips.len() == 2)
            })
        })
        .await;
    let objects = || {
        let addresses = had.iter().flatten().map(|address| object(&bench, address).unwrap());
        addresses.chain(bench.endpoint_named("db")).collect::<Vec<_>>()
    };
    let before = objects();

    let migration = kubevirt.migration("first", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&migration), &annotations);
    for (nic, had) in ["eth0", "net1"].iter().zip(&had) {
        let answer = two.ask(Method::POST, path::IP, &target.add(nic, "c2")).await.unwrap().ok().unwrap();
        assert_eq!(answer["enableDuplicateAddressDetection"], json!(false));
        assert_eq!(answer["announce"], json!(false), "neighbors go on sending to the other pod");
        let ips = answer["ips"].as_array().unwrap();
        let addresses: Vec<_> = ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect();
        assert_eq!(&addresses, had);
        for ip in ips {
            assert_eq!(ip["enableIPConflictDetection"], json!(false), "the other pod would answer");
            assert_eq!(ip["enableGatewayDetection"], json!(false), "asking it would announce the address");
        }
        // Its sandbox restarts.
        del(&two, &target, nic, "c2").await;
        assert_eq!(&add(&two, &target, nic, "c3").await, had);
    }
    assert_eq!(objects(), before, "resourceVersions included");

    // It fails: the target ends, and the machine runs on where it was.
    kubevirt.end_migration(&migration, "Failed").unwrap();
    bench.delete_pod(&target);
    for nic in ["net1", "eth0"] {
        del(&two, &target, nic, "c3").await;
    }
    assert_eq!(objects(), before);

    // The next one succeeds; the source's network is taken down.
    let migration = kubevirt.migration("second", &instance).unwrap();
    let target = bench.launcher(&instance, "again", "n2", Some(&migration), &annotations);
    for (nic, had) in ["eth0", "net1"].iter().zip(&had) {
        assert_eq!(&add(&two, &target, nic, "c4").await, had);
    }
    bench.run_pod(&target);
    kubevirt.place(&instance, &to, &[(&source.uid, &from), (&target.uid, &to)]).unwrap();
    kubevirt.end_migration(&migration, "Succeeded").unwrap();
    bench.succeed_pod(&source);
    for nic in ["net1", "eth0"] {
        del(&one, &source, nic, "c1").await;
    }
    for address in had.iter().flatten() {
        assert_eq!(whose(&bench, address), of("kept", &source), "the leader hands it over");
    }
    // Without a leader, the next ADD takes it over.
    for (nic, had) in ["eth0", "net1"].iter().zip(&had) {
        assert_eq!(&add(&two, &target, nic, "c5").await, had);
    }
    for address in had.iter().flatten() {
        assert_eq!(whose(&bench, address), of("bound", &target));
    }
}

/// No leader has made the addresses those of the pod that the machine has moved to, and that uses them.
#[tokio::test(flavor = "multi_thread")]
async fn the_target_of_a_second_migration_shares_what_is_kept_while_the_machine_uses_it() {
    let bench = Bench::new("vm-twice").await;
    bench.pool("p", "10.112.0.0/24", &["10.112.0.2-10.112.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let agents = [bench.agent("n1").await, bench.agent("n2").await, bench.agent("n3").await];
    let machine = kubevirt.machine("db").unwrap();
    let instance = kubevirt.instance("db", Some(&machine)).unwrap();
    let source = bench.launcher(&instance, "source", "n1", None, &annotations);
    let had = add(&agents[0], &source, "eth0", "c1").await;
    bench.run_pod(&source);
    bench.until("its endpoint is there", async || bench.endpoint_named("db").is_some()).await;
    let first = kubevirt.migration("first", &instance).unwrap();
    let target = bench.launcher(&instance, "target", "n2", Some(&first), &annotations);
    assert_eq!(add(&agents[1], &target, "eth0", "c2").await, had);
    bench.run_pod(&target);
    kubevirt.place(&instance, &bench.name("n2"), &[(&target.uid, &bench.name("n2"))]).unwrap();
    kubevirt.end_migration(&first, "Succeeded").unwrap();
    bench.succeed_pod(&source);
    del(&agents[0], &source, "eth0", "c1").await;
    assert_eq!(whose(&bench, &had[0]), of("kept", &source));
    let objects = || (object(&bench, &had[0]), bench.endpoint_named("db"));
    let before = objects();

    let second = kubevirt.migration("second", &instance).unwrap();
    let next = bench.launcher(&instance, "next", "n3", Some(&second), &annotations);
    let answer = agents[2].ask(Method::POST, path::IP, &next.add("eth0", "c3")).await.unwrap().ok().unwrap();
    assert_eq!(answer["ips"][0]["address"], json!(had[0]));
    assert_eq!(answer["announce"], json!(false), "neighbors go on sending to the first target");
    assert_eq!(objects(), before, "resourceVersions included");
    // It fails; the first target goes on using the address.
    kubevirt.end_migration(&second, "Failed").unwrap();
    bench.delete_pod(&next);
    del(&agents[2], &next, "eth0", "c3").await;
    assert_eq!(objects(), before);
    assert_eq!(add(&agents[1], &target, "eth0", "c4").await, had);
    assert_eq!(whose(&bench, &had[0]), of("bound", &target));
}

/// Whose the pod is, nobody knows then.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_may_not_read_machines_says_which_right_it_lacks_and_what_to_do() {
    let bench = Bench::new("vm-rights").await;
    bench.pool("p", "10.116.0.0/24", &["10.116.0.2-10.116.0.200"], &json!({}));
    let (annotations, kubevirt) = (bench.pool_annotation("p"), bench.kubevirt());
    let (plane, user) = (ControlPlane::shared(), bench.name("agent"));
    let role = plane.kubectl(&["get", "clusterrole", "spiderpool-agent", "-o", "json"]).unwrap();
    let mut role: Value = serde_json::from_str(&role).unwrap();
    role["rules"].as_array_mut().unwrap().retain(|rule| rule["apiGroups"] != json!(["kubevirt.io"]));
    role["metadata"] = json!({"name": user});
    bench.apply(&role);
    bench.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }));
    let agent = bench.agent_by("n1", plane.identity(&user, None).unwrap()).await;
    let instance = kubevirt.instance("db", None).unwrap();
    let pod = bench.launcher(&instance, "a", "n1", None, &annotations);
    let right = "cannot get resource \"virtualmachineinstances\" in API group \"kubevirt.io\"";
    let advice =
        "give spiderpool-agent this right, as the chart does, or set ipam.enableKubevirtStaticIP to false";
    for part in [right, advice] {
        failure(&agent, &pod.add("eth0", "c1"), part).await;
    }
    bench
        .until("its Events say so", async || {
            bench.events(&pod).iter().any(|event| event.contains(right) && event.contains(advice))
        })
        .await;
    assert!(bench.held(&pod).is_empty());
    // A pod of anything else needs none.
    let other = bench.pod_with_pool("web", "n1", "p");
    add(&agent, &other, "eth0", "c2").await;
}

/// That KubeVirt's kinds are not served, or not any more, is no reason to take an address from a machine.
#[tokio::test(flavor = "multi_thread")]
async fn without_kubevirt_a_pod_is_as_any_other_and_what_machines_have_stays() {
    let plane = tokio::task::block_in_place(|| ControlPlane::start(Options::default())).unwrap();
    let bench = Bench::on(&plane, "vm-none").await;
    bench.pool("p", "10.105.0.0/24", &["10.105.0.2-10.105.0.200"], &json!({}));
    let annotations = bench.pool_annotation("p");
    let instance = Instance { name: "db".to_owned(), uid: "i".to_owned() };
    let [pod, machines] =
        ["a", "b"].map(|suffix| bench.launcher(&instance, suffix, "n1", None, &annotations));
    // What an agent has written while the kinds were there.
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress",
        "metadata": {
            "name": "10.105.0.201",
            "labels": {"ipam.spidernet.io/node": bench.name("n1"), "ipam.spidernet.io/pod-uid": machines.uid},
        },
        "spec": {
            "address": "10.105.0.201/24", "pool": bench.name("p"), "node": bench.name("n1"), "interface": "eth0",
            "containerID": "c2", "podNamespace": machines.namespace, "podName": machines.name,
            "podUID": machines.uid, "ownerKind": "VirtualMachineInstance", "ownerName": "db",
            "virtualMachine": "db", "state": "bound",
        },
    }));
    let agent = bench.agent("n1").await;
    add(&agent, &pod, "eth0", "c1").await;
    assert_eq!(bench.endpoint(&pod).await["metadata"]["ownerReferences"][0]["uid"], json!(pod.uid));
    for (pod, container) in [(&pod, "c1"), (&machines, "c2")] {
        bench.delete_pod(pod);
        del(&agent, pod, "eth0", container).await;
    }
    assert!(bench.held(&pod).is_empty() && bench.find_endpoint(&pod).is_none());
    assert_eq!(whose(&bench, "10.105.0.201/24"), of("kept", &machines));
}
