//! Taking over the pools of a cluster that ran upstream, and going back: what its agents have allocated becomes SpiderIPAddresses,
//! while the pods run on.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "take_over/upstream.rs"]
mod upstream;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::Method;
use kube::api::ListParams;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Kind, Options};
use spiderpool_tests::long_form;
use spiderpool_tests::poll;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::{Bench, TestPod, addresses, messages};
use upstream::{Endpoint, UpstreamAgents, nic};

const POOL: Kind = Kind::spiderpool("SpiderIPPool");
const ADDRESS: Kind = Kind::spiderpool("SpiderIPAddress");
/// For thousands of objects.
const BULK_LIMIT: Duration = Duration::from_mins(3);

/// A control plane of its own: leaders of other tests would take the pools over.
fn plane() -> ControlPlane {
    ControlPlane::start(Options::default()).unwrap()
}

async fn controller(plane: &ControlPlane, bench: &Bench<'_>) -> StandaloneController {
    let (folder, namespace) = (bench.folder("controllers"), bench.namespace());
    StandaloneController::start(plane, Start { folder: &folder, namespace, name: "a", environment: &[] })
        .await
        .unwrap()
}

async fn ask(agent: &StandaloneAgent, pod: &TestPod, container: &str) -> anyhow::Result<String> {
    let answer = agent.ask(Method::POST, path::IP, &pod.add("eth0", container)).await?.ok()?;
    let address = addresses(&answer).pop_first().unwrap();
    Ok(address.split_once('/').unwrap().0.to_owned())
}

async fn del(agent: &StandaloneAgent, pod: &TestPod, container: &str) {
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", container)).await.unwrap().ok().unwrap();
}

fn pool(plane: &ControlPlane, name: &str) -> Value {
    plane.find(POOL, "", name).unwrap().unwrap()
}

fn is_marked(pool: &Value) -> bool {
    pool["metadata"]["annotations"]["ipam.spidernet.io/allocations"] == json!("SpiderIPAddress")
}

/// What Events of this reason say of a pool.
fn notes(plane: &ControlPlane, pool: &str, reason: &str) -> String {
    let fields = format!("involvedObject.name={pool},reason={reason}");
    messages(&plane.events("", &fields).unwrap()).join(" ")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The `index`-th address of both families.
fn pair(net: u8, index: u32) -> (IpAddr, IpAddr) {
    let v4 = u32::from_be_bytes([10, net, 0, 0]) + 2 + index;
    let v6 = u128::from(ip_v6(net)) + 2 + u128::from(index);
    (IpAddr::from(v4.to_be_bytes()), IpAddr::V6(v6.into()))
}

fn ip_v6(net: u8) -> std::net::Ipv6Addr {
    format!("fd00:{net}::").parse().unwrap()
}

/// Pods of upstream's with an address of each family, as its agents leave them.
async fn fixture(bench: &Bench<'_>, agents: &UpstreamAgents<'_>, net: u8, count: u32) -> Vec<TestPod> {
    let last = u32::max(count, 8) + 20;
    let ranges = |family: fn((IpAddr, IpAddr)) -> IpAddr| {
        format!("{}-{}", family(pair(net, 0)), family(pair(net, last)))
    };
    let (v4, v6) = (bench.name("v4"), bench.name("v6"));
    bench.pool("v4", &format!("10.{net}.0.0/16"), &[&ranges(|pair| pair.0)], &json!({}));
    bench.pool("v6", &format!("fd00:{net}::/64"), &[&ranges(|pair| pair.1)], &json!({}));
    let mut pods = Vec::new();
    let objects: Vec<_> =
        (0..count).map(|index| bench.pod_object(&format!("web-{index}"), "n1", &[])).collect();
    for chunk in objects.chunks(32) {
        pods.extend(bench.create_pods(chunk.to_vec()).await);
    }
    let pairs: Vec<_> = (0..count).map(|index| pair(net, index)).collect();
    let of_v4: Vec<_> = pairs.iter().zip(&pods).map(|(pair, pod)| (pair.0, pod)).collect();
    let of_v6: Vec<_> = pairs.iter().zip(&pods).map(|(pair, pod)| (pair.1, pod)).collect();
    agents.record(&v4, &of_v4).await.unwrap();
    agents.record(&v6, &of_v6).await.unwrap();
    let endpoints: Vec<_> = pairs
        .iter()
        .zip(&pods)
        .map(|((a, b), pod)| {
            let entry = nic("eth0", (&format!("{a}/16"), &v4), Some((&format!("{b}/64"), &v6)));
            (pod, Endpoint { node: bench.name("n1"), owner: "Deployment", ips: json!([entry]) })
        })
        .collect();
    agents.endpoints(&endpoints).await;
    pods
}

/// Both families, at several sizes: objects, marks and statuses.
#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_has_allocated_is_imported_record_by_record() {
    let plane = plane();
    let sizes: &[(u8, u32)] =
        if long_form::is_asked_for() { &[(71, 1), (72, 200), (73, 5000)] } else { &[(71, 1), (72, 200)] };
    for (net, count) in sizes {
        let bench = Bench::on(&plane, &format!("import-{count}")).await;
        bench.node("n1", true);
        let agents = UpstreamAgents::new(&plane, &bench).await;
        let pods = fixture(&bench, &agents, *net, *count).await;
        let names = [bench.name("v4"), bench.name("v6")];
        let before = [agents.records(&names[0]), agents.records(&names[1])];
        agents.revoke();
        let controller = controller(&plane, &bench).await;
        let begun = Instant::now();
        for (name, before) in names.iter().zip(&before) {
            let served = async || {
                let pool = pool(&plane, name);
                anyhow::ensure!(is_marked(&pool), "not marked");
                anyhow::ensure!(pool["status"]["conditions"][0]["status"] == json!("True"), "{pool}");
                // The view that the leader writes then is what upstream would go on with.
                anyhow::ensure!(agents_records(&pool) == json!(before), "other records");
                Ok(())
            };
            poll::until_async("the pool is imported", BULK_LIMIT, served).await.unwrap();
            assert!(notes(&plane, name, "AllocationsImported").contains(&format!("the {count} addresses")));
        }
        println!("{count} pods with both families: imported after {:?}", begun.elapsed());
        for (index, pod) in pods.iter().enumerate() {
            let (v4, v6) = pair(*net, u32::try_from(index).unwrap());
            let held: BTreeSet<String> = bench
                .held(pod)
                .iter()
                .map(|object| object["spec"]["address"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(held, BTreeSet::from([format!("{v4}/16"), format!("{v6}/64")]));
            if index >= 200 {
                break;
            }
        }
        let first = &bench.held(&pods[0])[0]["spec"];
        assert_eq!(first["node"], json!(bench.name("n1")));
        assert_eq!((&first["interface"], &first["state"]), (&json!("eth0"), &json!("bound")));
        assert_eq!((&first["ownerKind"], &first["ownerName"]), (&json!("Deployment"), &json!("web")));
        assert_eq!((&first["podName"], &first["podUID"]), (&json!("web-0"), &json!(pods[0].uid)));
        // Nothing of it was lost: what endpoints name is not written before its pool is imported.
        let counted = async |what: &str| {
            let name = format!("spiderpool_controller_addresses_{what}_total");
            controller.metric(&name).await.unwrap() as u32
        };
        assert_eq!((counted("imported").await, counted("restored").await), (2 * count, 0));
        controller.stop().unwrap();
    }
}

fn agents_records(pool: &Value) -> Value {
    serde_json::from_str(pool["status"]["allocatedIPs"].as_str().unwrap_or("{}")).unwrap()
}

/// In the rolling update some agents are still upstream's: an address would be given away twice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_imported_while_upstreams_agents_can_allocate() {
    let plane = plane();
    let bench = Bench::on(&plane, "rolling").await;
    bench.node("n1", true);
    let agents = UpstreamAgents::new(&plane, &bench).await;
    let ips: Vec<IpAddr> = (2..10).map(|last| ip(&format!("10.74.0.{last}"))).collect();
    bench.pool("p", "10.74.0.0/24", &["10.74.0.2-10.74.0.9"], &json!({}));
    let name = bench.name("p");
    let old = bench.pod_with_pool("old", "n1", "p");
    agents.allocate(&name, &ips, &old).await.unwrap();
    let controller = controller(&plane, &bench).await;
    let agent = bench.agent("n1").await;
    let account = format!("the ServiceAccount {}/spiderpool-agent may write", bench.namespace());
    bench
        .until("an Event names who can", async || notes(&plane, &name, "ImportBlocked").contains(&account))
        .await;
    let new = bench.pod_with_pool("new", "n1", "p");
    let refused = ask(&agent, &new, "c1").await.unwrap_err().to_string();
    assert!(refused.contains("status.allocatedIPs that are not imported"), "{refused}");
    // They go on meanwhile.
    let later = bench.pod_with_pool("later", "n1", "p");
    let given = agents.allocate(&name, &ips, &later).await.unwrap();
    assert_eq!(given, ip("10.74.0.3"));
    let ips_of = |ip: &str| json!([nic("eth0", (&format!("{ip}/24"), &name), None)]);
    let endpoint = |ip: &str| Endpoint { node: bench.name("n1"), owner: "Pod", ips: ips_of(ip) };
    agents.endpoints(&[(&old, endpoint("10.74.0.2")), (&later, endpoint("10.74.0.3"))]).await;
    assert!(plane.list(ADDRESS, "", &ListParams::default()).unwrap().is_empty());

    agents.revoke();
    bench.until("the pool is imported", async || is_marked(&pool(&plane, &name))).await;
    assert!(agents.allocate(&name, &ips, &new).await.is_err(), "an agent of upstream's allocates");
    assert_eq!(bench.held(&old)[0]["metadata"]["name"], json!("10.74.0.2"));
    assert_eq!(bench.held(&later)[0]["metadata"]["name"], json!("10.74.0.3"));
    bench.until_ok("our agents allocate", async || ask(&agent, &new, "c1").await.map(drop)).await;
    let names = |pod: &TestPod| bench.held(pod)[0]["metadata"]["name"].clone();
    assert!(![json!("10.74.0.2"), json!("10.74.0.3")].contains(&names(&new)));
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// The agent was there before the pool was imported: it knows nothing of its pods' addresses.
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_upstreams_live_on_and_end_with_our_agent() {
    let plane = plane();
    let bench = Bench::on(&plane, "live-on").await;
    bench.node("n1", true);
    let agents = UpstreamAgents::new(&plane, &bench).await;
    bench.pool("p", "10.75.0.0/24", &["10.75.0.2-10.75.0.9"], &json!({}));
    let name = bench.name("p");
    bench.stateful_set("web", 1);
    let (plain, ended) = (bench.pod_with_pool("plain", "n1", "p"), bench.pod_with_pool("ended", "n1", "p"));
    let annotation = bench.pool_annotation("p");
    let annotation = [(annotation[0].0.as_str(), annotation[0].1.as_str())];
    let stateful = bench.pod_of_stateful_set("web", 0, "n1", &annotation);
    // Its ADD was cut off: a record without an endpoint.
    let halved = bench.pod_with_pool("halved", "n1", "p");
    // Its record was lost, and upstream goes on with what the endpoint says.
    let unrecorded = bench.pod_with_pool("unrecorded", "n1", "p");
    let all = [&plain, &ended, &stateful, &halved, &unrecorded];
    let ips = [2, 3, 4, 5, 6].map(|last| format!("10.75.0.{last}"));
    let given: Vec<_> = ips.iter().map(|text| ip(text)).zip([&plain, &ended, &stateful, &halved]).collect();
    agents.record(&name, &given).await.unwrap();
    let endpoint = |owner: &'static str, ip: &str| Endpoint {
        node: bench.name("n1"),
        owner,
        ips: json!([nic("eth0", (&format!("{ip}/24"), &name), None)]),
    };
    agents
        .endpoints(&[
            (&plain, endpoint("Pod", &ips[0])),
            (&ended, endpoint("Pod", &ips[1])),
            (&stateful, endpoint("StatefulSet", &ips[2])),
            (&unrecorded, endpoint("Pod", &ips[4])),
        ])
        .await;
    for pod in all {
        bench.run_pod(pod);
    }
    let agent = bench.agent("n1").await;
    agents.revoke();
    let controller = controller(&plane, &bench).await;
    bench.until("the pool is imported", async || is_marked(&pool(&plane, &name))).await;

    assert_eq!(bench.address(&ips[4]).unwrap()["spec"]["podUID"], json!(unrecorded.uid));

    // Its sandbox has died, and another one follows.
    bench
        .until_ok("it keeps its address", async || {
            let given = ask(&agent, &plain, "c2").await?;
            anyhow::ensure!(given == ips[0], "{given}");
            Ok(())
        })
        .await;
    assert_eq!(bench.held(&plain)[0]["spec"]["containerID"], json!("c2"));

    bench.delete_pod(&ended);
    del(&agent, &ended, "upstreams").await;
    bench.until("its address is free", async || bench.address(&ips[1]).is_none()).await;
    bench.until("its endpoint is gone", async || bench.find_endpoint(&ended).is_none()).await;

    bench.delete_pod(&stateful);
    del(&agent, &stateful, "upstreams").await;
    bench
        .until("its address is kept", async || {
            bench.address(&ips[2]).unwrap()["spec"]["state"] == json!("kept")
        })
        .await;
    let next = bench.pod_of_stateful_set("web", 0, "n1", &annotation);
    bench
        .until_ok("the next one has it", async || {
            let given = ask(&agent, &next, "c3").await?;
            anyhow::ensure!(given == ips[2], "{given}");
            Ok(())
        })
        .await;

    bench.delete_pod(&halved);
    bench.until("what nobody named is free", async || bench.address(&ips[3]).is_none()).await;
    agent.stop().unwrap();
    controller.stop().unwrap();
}

/// Stopped, it has no pod: that there is a machine its endpoint alone says, which must still be there when the pool is imported.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_machine_of_upstreams_keeps_its_address() {
    let plane = plane();
    let bench = Bench::on(&plane, "machine").await;
    bench.node("n1", true);
    let agents = UpstreamAgents::new(&plane, &bench).await;
    bench.pool("p", "10.79.0.0/24", &["10.79.0.2-10.79.0.9"], &json!({}));
    let name = bench.name("p");
    bench.kubevirt().machine("web").unwrap();
    // Record and endpoint have the machine's name, and the UID of its last pod.
    let namespace = bench.namespace().to_owned();
    let machine = TestPod { namespace, name: "web".to_owned(), uid: "of-a-pod-that-is-gone".to_owned() };
    agents.record(&name, &[(ip("10.79.0.2"), &machine)]).await.unwrap();
    let ips = json!([nic("eth0", ("10.79.0.2/24", &name), None)]);
    let endpoint = Endpoint { node: bench.name("n1"), owner: "VirtualMachineInstance", ips };
    agents.endpoints(&[(&machine, endpoint)]).await;
    let folder = bench.folder("controllers");
    let environment = [("SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION", "1")];
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &environment };
    let controller = StandaloneController::start(&plane, start).await.unwrap();
    bench
        .until("everything was compared twice", async || {
            controller.log().unwrap().matches("full resync done").count() >= 2
        })
        .await;
    agents.revoke();
    bench.until("the pool is imported", async || is_marked(&pool(&plane, &name))).await;
    bench
        .until("its address is kept", async || {
            let spec = bench.address("10.79.0.2").map(|object| object["spec"].clone()).unwrap_or_default();
            spec["state"] == json!("kept") && spec["virtualMachine"] == json!("web")
        })
        .await;
    assert!(bench.find_endpoint(&machine).is_some());
    controller.stop().unwrap();
}

/// Back to upstream, and to us again: nobody's address is given to somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_goes_on_with_what_we_have_allocated_and_we_with_what_it_has() {
    let plane = plane();
    let bench = Bench::on(&plane, "back").await;
    bench.node("n1", true);
    let agents = UpstreamAgents::new(&plane, &bench).await;
    agents.revoke();
    let ips: Vec<IpAddr> = (2..6).map(|last| ip(&format!("10.76.0.{last}"))).collect();
    bench.pool("p", "10.76.0.0/24", &["10.76.0.2-10.76.0.5"], &json!({}));
    let name = bench.name("p");
    let ours = controller(&plane, &bench).await;
    let agent = bench.agent("n1").await;
    let (stays, ends) = (bench.pod_with_pool("stays", "n1", "p"), bench.pod_with_pool("ends", "n1", "p"));
    let mut held = Vec::new();
    for pod in [&stays, &ends] {
        bench.until_ok("it has an address", async || ask(&agent, pod, "c1").await.map(drop)).await;
        held.push(ip(bench.held(pod)[0]["metadata"]["name"].as_str().unwrap()));
        bench.endpoint(pod).await;
    }
    bench.until("the status shows both", async || agents.records(&name).len() == 2).await;
    agent.stop().unwrap();
    ours.stop().unwrap();

    agents.grant();
    bench
        .until("upstream may allocate", async || {
            let probe = bench.pod_with_pool(&format!("probe-{}", std::process::id()), "n1", "p");
            let given = agents.allocate(&name, &ips, &probe).await;
            agents.release(&name, &probe).await;
            bench.force_delete_pod(&probe);
            given.is_ok_and(|ip| !held.contains(&ip))
        })
        .await;
    assert!(pool(&plane, &name)["status"].get("conditions").is_none(), "upstream knows no conditions");
    bench.delete_pod(&ends);
    agents.release(&name, &ends).await;
    // First fit: the lowest one that is free is that of the pod that has ended, or one below.
    let mut theirs = Vec::new();
    for index in 0..3 {
        let pod = bench.pod_with_pool(&format!("theirs-{index}"), "n1", "p");
        let given = agents.allocate(&name, &ips, &pod).await.unwrap();
        assert_ne!(given, held[0], "the address of a pod that lives");
        theirs.push((given, pod));
    }
    assert!(theirs.iter().any(|(given, _)| *given == held[1]));
    agents.revoke();

    let ours = controller(&plane, &bench).await;
    bench
        .until("the pool is imported again", async || {
            let pool = pool(&plane, &name);
            is_marked(&pool) && pool["status"]["conditions"][0]["status"] == json!("True")
        })
        .await;
    for (given, pod) in &theirs {
        let object = bench.address(&given.to_string()).unwrap();
        assert_eq!(object["spec"]["podUID"], json!(pod.uid), "{given}");
    }
    assert_eq!(bench.address(&held[0].to_string()).unwrap()["spec"]["podUID"], json!(stays.uid));
    ours.stop().unwrap();
}

/// Both run: whichever has the object keeps it, and both are told.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_two_pods_have_stays_with_the_one_that_has_the_object() {
    let plane = plane();
    let bench = Bench::on(&plane, "twice").await;
    bench.node("n1", true);
    let agents = UpstreamAgents::new(&plane, &bench).await;
    bench.pool("p", "10.77.0.0/24", &["10.77.0.2"], &json!({}));
    let name = bench.name("p");
    agents.revoke();
    let ours = controller(&plane, &bench).await;
    let agent = bench.agent("n1").await;
    let one = bench.pod_with_pool("one", "n1", "p");
    bench.until_ok("it has an address", async || ask(&agent, &one, "c1").await.map(drop)).await;
    ours.stop().unwrap();
    agents.grant();
    let two = bench.pod_with_pool("two", "n1", "p");
    bench
        .until("the record is overwritten", async || {
            agents.record(&name, &[(ip("10.77.0.2"), &two)]).await.is_ok()
        })
        .await;
    agents.revoke();
    let ours = controller(&plane, &bench).await;
    let said = format!("10.77.0.2 is used by Pod {0}/two and by Pod {0}/one", bench.namespace());
    bench
        .until("an Event says so", async || notes(&plane, &name, "AllocationsImported").contains(&said))
        .await;
    assert_eq!(bench.address("10.77.0.2").unwrap()["spec"]["podUID"], json!(one.uid));
    for pod in [&one, &two] {
        bench.until("the pod is told", async || bench.events(pod).join(" ").contains(&said)).await;
    }
    assert!(is_marked(&pool(&plane, &name)), "the pool's other addresses are not blocked by it");
    agent.stop().unwrap();
    ours.stop().unwrap();
}

/// Nobody knows what is in use then: to guess would be to give an address away twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_does_not_parse_is_not_taken_for_an_empty_one() {
    let plane = plane();
    let bench = Bench::on(&plane, "broken").await;
    bench.node("n1", true);
    bench.pool("p", "10.78.0.0/24", &["10.78.0.2-10.78.0.9"], &json!({}));
    let name = bench.name("p");
    let write = |text: &str| {
        let status = json!({"allocatedIPs": text, "allocatedIPCount": 1, "totalIPCount": 8});
        plane.patch_status(POOL, "", &name, &status).unwrap();
    };
    write("{\"10.78.0.2\":");
    let pod = bench.pod_with_pool("web", "n1", "p");
    let ours = controller(&plane, &bench).await;
    bench
        .until("an Event says so", async || {
            notes(&plane, &name, "ImportBlocked").contains("status.allocatedIPs is no JSON object")
        })
        .await;
    assert!(!is_marked(&pool(&plane, &name)));
    let good = json!({"pod": format!("{}/web", bench.namespace()), "podUid": pod.uid});
    write(&json!({"10.78.0.2": good, "10.79.0.2": good, "10.78.0.3": {"pod": "", "podUid": ""}}).to_string());
    bench.until("what can be is imported", async || is_marked(&pool(&plane, &name))).await;
    assert_eq!(bench.address("10.78.0.2").unwrap()["spec"]["podUID"], json!(pod.uid));
    bench
        .until("what cannot is named", async || {
            let notes = notes(&plane, &name, "AllocationsImported");
            notes.contains("\"10.79.0.2\"") && notes.contains("\"10.78.0.3\"")
        })
        .await;
    ours.stop().unwrap();
}

/// Killed at any moment, it begins anew and makes nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_cut_off_goes_on() {
    let plane = plane();
    let bench = Bench::on(&plane, "cut").await;
    bench.node("n1", true);
    let agents = UpstreamAgents::new(&plane, &bench).await;
    let pods = fixture(&bench, &agents, 80, 150).await;
    let names = [bench.name("v4"), bench.name("v6")];
    let before = [agents.records(&names[0]), agents.records(&names[1])];
    agents.revoke();
    let mut kills = 0;
    let last = loop {
        let ours = controller(&plane, &bench).await;
        let count = || plane.list(ADDRESS, "", &ListParams::default()).unwrap().len();
        let known = count();
        if names.iter().all(|name| is_marked(&pool(&plane, name))) || kills == 4 {
            break ours;
        }
        // Somewhere in the middle.
        bench.until("it has begun", async || count() > known || count() == 300).await;
        ours.kill().unwrap();
        kills += 1;
    };
    assert!(kills > 0, "it was done before the first kill");
    for (name, before) in names.iter().zip(&before) {
        bench
            .until("the pool is imported", async || {
                let pool = pool(&plane, name);
                is_marked(&pool) && agents_records(&pool) == json!(before)
            })
            .await;
    }
    for pod in &pods {
        assert_eq!(bench.held(pod).len(), 2, "{}", pod.name);
    }
    last.stop().unwrap();
}

/// The condition alone says that nothing is imported yet, and the log why: neither is looked at by who waits for the pool.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_the_api_server_refuses_says_so_in_an_event() {
    let plane = plane();
    let bench = Bench::on(&plane, "refused").await;
    bench.node("n1", true);
    bench.pool("p", "10.79.0.0/24", &["10.79.0.2-10.79.0.9"], &json!({}));
    let name = bench.name("p");
    let pod = bench.pod_with_pool("web", "n1", "p");
    let records = json!({"10.79.0.2": {"pod": format!("{}/web", bench.namespace()), "podUid": pod.uid}});
    let status = json!({"allocatedIPs": records.to_string(), "allocatedIPCount": 1, "totalIPCount": 8});
    plane.patch_status(POOL, "", &name, &status).unwrap();
    let api_version = "admissionregistration.k8s.io/v1";
    let rule = json!({
        "apiGroups": ["spiderpool.spidernet.io"], "apiVersions": ["*"], "operations": ["CREATE"],
        "resources": ["spideripaddresses"],
    });
    let validation = json!({"expression": "false", "message": "none of these today", "reason": "Forbidden"});
    bench.apply(&json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "refuse"},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]},
    }));
    bench.apply(&json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "refuse"},
        "spec": {"policyName": "refuse", "validationActions": ["Deny"]},
    }));
    let other = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress", "metadata": {"name": "10.79.0.9"},
        "spec": {
            "address": "10.79.0.9/24", "pool": name, "interface": "eth0", "podNamespace": "n", "podName": "p",
            "podUID": "u",
        },
    });
    bench.until("the policy is in force", async || plane.try_create(&other).is_err()).await;
    let ours = controller(&plane, &bench).await;
    bench
        .until("an Event says so", async || {
            let notes = notes(&plane, &name, "ImportBlocked");
            notes.contains("none of these today")
                && notes.contains("have admission policies and webhooks admit")
        })
        .await;
    assert!(!is_marked(&pool(&plane, &name)));
    plane.kubectl(&["delete", "validatingadmissionpolicybinding", "refuse"]).unwrap();
    poll::until_async("it is imported", BULK_LIMIT, async || {
        anyhow::ensure!(is_marked(&pool(&plane, &name)), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(bench.address("10.79.0.2").unwrap()["spec"]["podUID"], json!(pod.uid));
    ours.stop().unwrap();
}
