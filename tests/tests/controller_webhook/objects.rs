//! What is completed and what is refused, kind by kind.

use http::Method;
use serde_json::{Value, json};
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::standalone_controller::LABEL;

use crate::hooks::{Hooks, MULTUS};
use crate::support::senseless;

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_completed_and_all_their_faults_are_in_one_answer() {
    let hooks = Hooks::new("hook-pools").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;

    let spec =
        json!({"subnet": "10.130.0.0/16", "ips": ["10.130.0.2", "10.130.0.1", "10.130.0.3-10.130.0.9"]});
    let pool = Hooks::write(&hooks.object("SpiderIPPool", "a", &spec)).unwrap();
    assert_eq!(pool["spec"]["ipVersion"], 4);
    assert_eq!(pool["spec"]["ips"], json!(["10.130.0.1-10.130.0.9"]));
    assert_eq!(pool["metadata"]["labels"]["ipam.spidernet.io/ippool-cidr"], "10-130-0-0-16");
    let a = hooks.bench.name("a");

    let spec = json!({
        "subnet": "10.130.0.0/16", "ips": ["10.130.0.9", "10.131.0.1"], "gateway": "10.131.0.1",
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.130.0.1"}],
    });
    let error = Hooks::write(&hooks.object("SpiderIPPool", "b", &spec)).unwrap_err();
    let b = hooks.bench.name("b");
    for part in [
        &format!("The SpiderIPPool \"{b}\" is invalid"),
        "spec.ips[1]: Invalid value: \"10.131.0.1\": 10.131.0.1 is not inside of spec.subnet 10.130.0.0/16",
        "spec.gateway: Invalid value: \"10.131.0.1\": ",
        "please specify 'spec.gateway' to configure the default route",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    let spec = json!({"subnet": "10.130.0.0/16", "ips": ["10.130.0.9-10.130.0.12"]});
    hooks
        .bench
        .until("the overlap is known", async || {
            let error = Hooks::write(&hooks.object("SpiderIPPool", "c", &spec));
            error.is_err_and(|error| {
                error.contains(&format!(
                    "spec.ips: Forbidden: overlap with IPPool {a} in IP ranges [10.130.0.9]"
                ))
            })
        })
        .await;
    let spec = json!({"subnet": "10.130.0.0/24", "ips": ["10.130.0.1-10.130.0.9"]});
    let error = Hooks::write(&hooks.object("SpiderIPPool", "a", &spec)).unwrap_err();
    assert!(error.contains("spec.subnet: Forbidden: is not changeable"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_stays_in_its_pool() {
    let hooks = Hooks::new("hook-use").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let pool =
        |ips: &[&str]| hooks.object("SpiderIPPool", "p", &json!({"subnet": "10.132.0.0/16", "ips": ips}));
    Hooks::write(&pool(&["10.132.0.7"])).unwrap();
    // A pod that there is: the leader frees what belongs to none.
    let pod = hooks.bench.pod_with_pool("web", "n1", "p");
    let agent = hooks.bench.agent("n1").await;
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await.unwrap().ok().unwrap();
    Hooks::write(&pool(&["10.132.0.1-10.132.0.9"])).unwrap();
    let error = Hooks::write(&pool(&["10.132.0.1-10.132.0.6"])).unwrap_err();
    let part = "spec.ips: Forbidden: remove an IP address 10.132.0.7 that is being used by a Pod";
    assert!(error.contains(part), "{error}");
    // Upstream's case S00003.
    let spec =
        json!({"subnet": "10.132.0.0/16", "ips": ["10.132.0.1-10.132.0.9"], "excludeIPs": ["10.132.0.7"]});
    let error = Hooks::write(&hooks.object("SpiderIPPool", "p", &spec)).unwrap_err();
    assert!(error.contains("remove an IP address 10.132.0.7 that is being used by a Pod"), "{error}");
    Hooks::write(&pool(&["10.132.0.7-10.132.0.9"])).unwrap();
}

/// What the schema lets through is refused, and the field is named.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_make_no_sense_are_refused() {
    let hooks = Hooks::new("hook-senseless").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let check = |object: &Value, parts: &[&str]| {
        let error = format!("{:#}", ControlPlane::shared().try_create(object).unwrap_err());
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    };
    for (name, spec, says) in senseless::pools() {
        let field = says.split(": ").next().unwrap();
        check(&hooks.object("SpiderIPPool", name, &spec), &[" is invalid: ", field]);
    }
    for (name, spec) in senseless::subnets() {
        check(&hooks.object("SpiderSubnet", name, &spec), &[" is invalid: ", "spec."]);
    }
    for (name, annotations, spec, field) in senseless::networks() {
        check(&hooks.network(name, &annotations, &spec), &[" is invalid: ", field]);
    }
}

/// Upstream's case D00004.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_in_use_is_not_deleted_where_the_guard_is_on() {
    let hooks = Hooks::new("hook-guard").await;
    let file = json!({"enableValidatingResourcesDeletedWebhook": true});
    let _controller = hooks.controller_with("a", hooks.port, &[], &file).await;
    hooks.configure_with(&Value::Null, true);
    hooks.wait_until_called().await;
    let (bench, plane) = (&hooks.bench, ControlPlane::shared());
    let spec = |net: u8| json!({"subnet": format!("10.146.{net}.0/24"), "ips": [format!("10.146.{net}.2")]});
    for (name, net) in [("used", 0), ("unused", 1)] {
        Hooks::write(&hooks.object("SpiderIPPool", name, &spec(net))).unwrap();
    }
    let pod = bench.pod_with_pool("p", "n1", "used");
    let agent = bench.agent("n1").await;
    agent.ask(Method::POST, path::IP, &pod.add("eth0", "c")).await.unwrap().ok().unwrap();
    let (used, unused) = (bench.name("used"), bench.name("unused"));
    let selector = format!("labelSelector={LABEL}%3D{}", hooks.name);
    let all = format!("/apis/spiderpool.spidernet.io/v2beta1/spiderippools?{selector}");
    for arguments in [["delete", "spiderippool", &used], ["delete", "--raw", &all]] {
        let error = format!("{:#}", plane.kubectl(&arguments).unwrap_err());
        assert!(error.contains("cannot delete an IPPool with allocated IPs(1)"), "{error}");
    }
    let found = plane.find(Kind::spiderpool("SpiderIPPool"), "", &used).unwrap().unwrap();
    assert_eq!(found["metadata"].get("deletionTimestamp"), None);
    plane.kubectl(&["delete", "spiderippool", &unused, "--ignore-not-found"]).unwrap();
    bench.delete_pod(&pod);
    agent.ask(Method::DELETE, path::IP, &pod.del("eth0", "c")).await.unwrap().ok().unwrap();
    plane.kubectl(&["delete", "spiderippool", &used, "--timeout=20s"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_addresses_and_coordinators_are_completed_and_checked() {
    let hooks = Hooks::new("hook-kinds").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;

    let spec = json!({"ips": ["10.133.0.2", "10.133.0.1"]});
    let reserved = Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec)).unwrap();
    assert_eq!(reserved["spec"], json!({"ipVersion": 4, "ips": ["10.133.0.1-10.133.0.2"]}));
    let spec = json!({"ips": ["10.133.0.9-10.133.0.1", "fd00::1"]});
    let error = Hooks::write(&hooks.object("SpiderReservedIP", "s", &spec)).unwrap_err();
    assert!(error.contains("spec.ips[0]: Invalid value") && error.contains("reversed"), "{error}");

    let spec = json!({
        "mode": "auto", "podCIDRType": "none", "hijackCIDR": ["169.254.1.1"], "detectGateway": true,
        "policyRoutes": [{"dst": "10.1.2.3", "gw": "10.0.0.1"}],
    });
    let coordinator = Hooks::write(&hooks.object("SpiderCoordinator", "c", &spec)).unwrap();
    assert_eq!(coordinator["spec"]["hijackCIDR"], json!(["169.254.1.1/32"]));
    assert_eq!(coordinator["spec"]["policyRoutes"][0]["dst"], "10.1.2.3/32");
    assert_eq!(coordinator["spec"]["detectGateway"], true, "kept, and warned about");
    let spec = json!({"hijackCIDR": ["x"], "podMACPrefix": "01:00", "podRPFilter": 7});
    let error = Hooks::write(&hooks.object("SpiderCoordinator", "d", &spec)).unwrap_err();
    for field in ["spec.hijackCIDR[0]", "spec.podMACPrefix", "spec.podRPFilter"] {
        assert!(error.contains(&format!("{field}: Invalid value")), "{error}");
    }
    check_strict_rp_filter(&hooks);
}

/// The programs of `dataplane: ebpf` let in what a strict filter drops. A network has no dataplane of its own.
fn check_strict_rp_filter(hooks: &Hooks<'_>) {
    let write = |spec: Value| Hooks::write(&hooks.object("SpiderCoordinator", "e", &spec));
    for spec in [json!({"podRPFilter": 1}), json!({"podRPFilter": 1, "dataplane": "ebpf"})] {
        let error = write(spec).unwrap_err();
        assert!(error.contains("spec.podRPFilter: Invalid value: \"1\": is strict"), "{error}");
    }
    write(json!({"podRPFilter": 1, "dataplane": "policy"})).unwrap();
    let error = write(json!({"podRPFilter": 1, "dataplane": "ebpf"})).unwrap_err();
    assert!(error.contains("is strict"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_are_completed_and_all_their_faults_are_in_one_answer() {
    let hooks = Hooks::new("hook-networks").await;
    let plane = ControlPlane::shared();
    plane.apply(MULTUS).unwrap();
    let crd = "crd/network-attachment-definitions.k8s.cni.cncf.io";
    plane.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", crd]).unwrap();
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;

    let macvlan = json!({"cniType": "macvlan", "macvlan": {"master": ["ens192"]}});
    let network = Hooks::write(&hooks.network("a", &json!({}), &macvlan)).unwrap();
    let filled = &network["spec"]["macvlan"];
    assert_eq!((&filled["vlanID"], &filled["rdmaResourceName"]), (&json!(0), &json!("")));

    let spec = json!({
        "cniType": "macvlan", "chainCNIJsonData": ["{"], "coordinator": {"hijackCIDR": ["x"]},
        "macvlan": {"master": ["ens192", "ens192"], "bond": {"name": "bond0", "mode": 1, "options": "speed=1"}},
    });
    let error = Hooks::write(&hooks.network("b", &json!({"multus.spidernet.io/cni-version": "9"}), &spec));
    let error = error.unwrap_err();
    for part in [
        "metadata.annotations[multus.spidernet.io/cni-version]: Unsupported value: \"9\"",
        "spec.macvlan.master[1]: Duplicate value: \"ens192\"",
        "spec.macvlan.bond.options: Invalid value: \"speed=1\"",
        "spec.chainCNIJsonData[0]: Invalid value: ",
        "spec.coordinator.hijackCIDR[0]: Invalid value: ",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    check_network_names(&hooks, &macvlan).await;
}

async fn check_network_names(hooks: &Hooks<'_>, macvlan: &Value) {
    let namespace = hooks.bench.namespace();
    let taken =
        format!("SpiderMultusConfig {namespace}/a makes the NetworkAttachmentDefinition {namespace}/a");
    let named_a = json!({"multus.spidernet.io/cr-name": "a"});
    hooks
        .bench
        .until("the name is known", async || {
            Hooks::write(&hooks.network("c", &named_a, macvlan)).is_err_and(|error| error.contains(&taken))
        })
        .await;
    hooks.bench.apply(&json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": namespace, "name": "foreign"}, "spec": {"config": "{}"},
    }));
    let error = Hooks::write(&hooks.network("foreign", &json!({}), macvlan)).unwrap_err();
    let part = format!(
        "metadata.name: Invalid value: \"foreign\": the NetworkAttachmentDefinition {namespace}/foreign exists"
    );
    assert!(error.contains(&part), "{error}");
    // The annotation alone changes.
    let renamed = json!({"multus.spidernet.io/cr-name": "later"});
    let error = Hooks::write(&hooks.network("a", &renamed, macvlan)).unwrap_err();
    assert!(error.contains("metadata.annotations[multus.spidernet.io/cr-name]: Forbidden"), "{error}");
    Hooks::write(&hooks.network("a", &json!({"team": "a"}), macvlan)).unwrap();
}
