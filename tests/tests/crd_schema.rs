//! The definitions as an API server applies them: what is refused, what is filled in, what `kubectl get` prints.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use serde_json::{Value, json};
use spiderpool_core::coordinator::{Mode, Settings};
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::poll;

/// A manifest of our group as JSON.
fn manifest(kind: &str, name: &str, members: &Value) -> String {
    let mut object = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": kind, "metadata": { "name": name },
    });
    for (member, value) in members.as_object().unwrap() {
        object[member] = value.clone();
    }
    object.to_string()
}

#[track_caller]
fn check_refused(kind: &str, spec: &Value, expect: &str) {
    let text = manifest(kind, "refused", &json!({ "spec": spec }));
    let error = match ControlPlane::shared().apply(&text) {
        Ok(answer) => panic!("{text}: {answer}"),
        Err(error) => format!("{error:#}"),
    };
    assert!(error.contains(expect), "{text}: {error}");
}

#[test]
fn invalid_objects_are_refused() {
    check_refused("SpiderIPPool", &json!({}), "spec.subnet: Required value");
    check_refused("SpiderIPPool", &json!({ "subnet": "10.0.0.0/8", "ipVersion": 5 }), "Unsupported value: 5");
    check_refused(
        "SpiderIPPool",
        &json!({ "subnet": "10.0.0.0/8", "routes": [{ "dst": "::/0" }] }),
        "gw: Required",
    );
    check_refused("SpiderIPPool", &json!({ "subnet": "10.0.0.0/8", "ips": "10.0.0.1" }), "spec.ips");
    let pool = |field: &str, value: Value| json!({ "subnet": "10.0.0.0/8", (field): value });
    for ip in ["10.0.0.256", "10.0.0.1/32", "10.0.0.1 - 10.0.0.9", "10.0.0.1-fd00::1", "x", ""] {
        check_refused("SpiderIPPool", &pool("ips", json!([ip])), "spec.ips[0]");
        check_refused("SpiderIPPool", &pool("excludeIPs", json!([ip])), "spec.excludeIPs[0]");
        check_refused("SpiderSubnet", &pool("ips", json!([ip])), "spec.ips[0]");
        check_refused("SpiderSubnet", &pool("excludeIPs", json!([ip])), "spec.excludeIPs[0]");
        check_refused("SpiderReservedIP", &json!({ "ips": [ip] }), "spec.ips[0]");
    }
    check_refused("SpiderIPPool", &pool("gateway", json!("10.0.0.1/8")), "spec.gateway");
    check_refused("SpiderSubnet", &pool("gateway", json!("10.0.0.1/8")), "spec.gateway");
    check_refused("SpiderSubnet", &pool("routes", json!([{ "dst": "10.1.0.0/16" }])), "gw: Required");
    for subnet in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8"] {
        check_refused("SpiderIPPool", &json!({ "subnet": subnet }), "spec.subnet");
        check_refused("SpiderSubnet", &json!({ "subnet": subnet }), "spec.subnet");
    }
    check_refused("SpiderSubnet", &json!({ "ips": [] }), "spec.subnet: Required value");
    check_refused("SpiderReservedIP", &json!({ "ipVersion": 0 }), "Unsupported value: 0");
    check_refused("SpiderCoordinator", &json!({ "mode": "tuned" }), "\"auto\", \"underlay\", \"overlay\"");
    check_refused(
        "SpiderCoordinator",
        &json!({ "podCIDRType": "flannel" }),
        "spec.podCIDRType: Unsupported value",
    );
    check_refused("SpiderCoordinator", &json!({ "vethMTU": 0 }), "greater than or equal to 1");
    check_refused(
        "SpiderCoordinator",
        &json!({ "dataplane": "iptables" }),
        "spec.dataplane: Unsupported value",
    );
    check_refused("SpiderCoordinator", &json!({ "ebpf": { "routeHints": "always" } }), "Unsupported value");
    let smc = |block: Value| json!({ "cniType": "macvlan", "macvlan": block });
    check_refused("SpiderMultusConfig", &smc(json!({})), "master: Required value");
    check_refused(
        "SpiderMultusConfig",
        &smc(json!({ "master": ["a"], "vlanID": 4095 })),
        "less than or equal to 4094",
    );
    check_refused(
        "SpiderMultusConfig",
        &smc(json!({ "master": ["a"], "mtu": -1 })),
        "greater than or equal to 0",
    );
    check_refused("SpiderMultusConfig", &json!({ "cniType": "bridge" }), "spec.cniType: Unsupported value");
    multus_configs_are_refused();
    let policy = json!({ "coordinator": { "dataplane": "policy" } });
    check_refused("SpiderMultusConfig", &policy, ".spec.coordinator.dataplane: field not declared in schema");
    check_refused("SpiderIPAddress", &json!({ "address": "10.0.0.1/8" }), "spec.podUID: Required value");
}

/// What the rules of the schema say without a webhook.
fn multus_configs_are_refused() {
    let nic = |more: Value| {
        let mut block = json!({ "master": ["a"] });
        block.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        block
    };
    let taken = [
        json!({ "cniType": "vlan", "vlan": nic(json!({})) }),
        json!({ "cniType": "sriov", "sriov": { "resourceName": "r", "minTxRateMbps": 2 } }),
        json!({ "cniType": "sriov", "sriov": { "resourceName": "r", "minTxRateMbps": 2, "maxTxRateMbps": 0 } }),
    ];
    for (index, spec) in taken.iter().enumerate() {
        let text = manifest("SpiderMultusConfig", &format!("taken-{index}"), &json!({ "spec": spec }));
        ControlPlane::shared().apply(&text).unwrap();
    }
    for (spec, expect) in [
        (json!({ "cniType": "macvlan" }), "cniType macvlan needs spec.macvlan"),
        (json!({ "macvlan": nic(json!({})) }), "cniType macvlan needs spec.macvlan, and no other"),
        (
            json!({ "cniType": "macvlan", "macvlan": nic(json!({})), "customCNI": "{}" }),
            "spec.customCNI is for cniType",
        ),
        (json!({ "cniType": "ipvlan", "ipvlan": { "master": [] } }), "spec.ipvlan.master"),
        (json!({ "cniType": "ipvlan", "ipvlan": { "master": ["a", "b"] } }), "two or more masters need bond"),
        (
            json!({ "cniType": "ipvlan", "ipvlan": nic(json!({ "ippools": { "matchMasterSubnet": true } })) }),
            "matchMasterSubnet is for cniType sriov",
        ),
        (
            json!({ "cniType": "vlan", "vlan": nic(json!({ "vlanMode": "auto", "vlanID": 1 })) }),
            "vlanMode auto does not",
        ),
        (json!({ "cniType": "sriov", "sriov": {} }), "resourceName is required"),
        (
            json!({ "cniType": "sriov", "sriov": { "resourceName": "r", "minTxRateMbps": 2, "maxTxRateMbps": 1 } }),
            "minTxRateMbps must be at most maxTxRateMbps",
        ),
        (json!({ "cniType": "ib-sriov", "ibsriov": {} }), "resourceName is required"),
        (json!({ "cniType": "ipoib", "ipoib": {} }), "master is required"),
        (json!({ "cniType": "ovs", "ovs": { "bridge": "" } }), "spec.ovs.bridge"),
        (json!({ "cniType": "ovs", "ovs": { "bridge": "b", "vlan": 4095 } }), "less than or equal to 4094"),
        (
            json!({ "cniType": "ovs", "ovs": { "bridge": "b", "trunk": [{ "maxID": 5 }] } }),
            "a range has minID and maxID",
        ),
        (
            json!({ "cniType": "ovs", "ovs": { "bridge": "b", "trunk": [{ "minID": 9, "maxID": 5 }] } }),
            "minID must be at most maxID",
        ),
        (json!({ "cniType": "ovs", "ovs": { "bridge": "b", "trunk": [{}] } }), "is required"),
    ] {
        check_refused("SpiderMultusConfig", &spec, expect);
    }
}

/// The definition of SpiderMultusConfigs.
const MULTUS_CONFIGS: &str =
    include_str!("../../charts/spiderpool/crds/spiderpool.spidernet.io_spidermultusconfigs.yaml");

fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("x-kubernetes-validations");
            members.values_mut().for_each(without_rules);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_rules),
        _ => {}
    }
}

/// A network that was stored before a rule existed must not be stuck: finalizers, labels and other fields still change.
#[test]
fn a_new_rule_does_not_hold_for_what_an_update_leaves_alone() {
    // Of its own: other tests need the rules.
    let plane = ControlPlane::start(Options::default()).unwrap();
    let rules: Value = serde_norway::from_str(MULTUS_CONFIGS).unwrap();
    let define = |definition: &Value| {
        let patch = json!({ "spec": { "versions": definition["spec"]["versions"] } }).to_string();
        let name = definition["metadata"]["name"].as_str().unwrap();
        plane.kubectl(&["patch", "crd", name, "--type=merge", "-p", &patch]).unwrap();
    };
    let network = |name: &str| {
        let spec = json!({ "spec": { "cniType": "macvlan", "macvlan": { "master": ["a", "b"] } } });
        plane.kubectl_with_input(&["create", "-f", "-"], &manifest("SpiderMultusConfig", name, &spec))
    };
    let limit = Duration::from_secs(20);
    let mut before = rules.clone();
    without_rules(&mut before);
    define(&before);
    poll::until("there are no rules", limit, || network("old")).unwrap();
    define(&rules);
    let mut tries = 0;
    let is_refused = || {
        tries += 1;
        anyhow::ensure!(network(&format!("new-{tries}")).is_err(), "it is taken");
        Ok(())
    };
    poll::until("the rules hold for new objects", limit, is_refused).unwrap();
    let patch =
        |patch: Value| plane.kubectl(&["patch", "smc", "old", "--type=merge", "-p", &patch.to_string()]);
    patch(json!({ "metadata": { "labels": { "a": "b" }, "finalizers": ["test/a"] } })).unwrap();
    patch(json!({ "metadata": { "finalizers": null }, "spec": { "disableIPAM": true } })).unwrap();
    let error = patch(json!({ "spec": { "macvlan": { "mtu": 1400 } } })).unwrap_err();
    assert!(format!("{error:#}").contains("two or more masters need bond"), "{error:#}");
}

#[test]
fn both_spellings_of_disabled_are_taken() {
    let plane = ControlPlane::shared();
    for mode in ["disabled", "disable"] {
        let name = format!("mode-{mode}");
        plane.apply(&manifest("SpiderCoordinator", &name, &json!({ "spec": { "mode": mode } }))).unwrap();
        let text = plane.kubectl(&["get", "scc", &name, "-o", "json"]).unwrap();
        let object: spiderpool_api::crd::SpiderCoordinator = serde_json::from_str(&text).unwrap();
        let config = Settings::resolve(Settings::default(), object.spec.settings).unwrap();
        assert_eq!(config.mode, Mode::Disabled);
        plane.kubectl(&["delete", "scc", &name]).unwrap();
    }
}

/// The words of `kubectl get`: the header, then the one row, with `<none>` for what is empty.
fn printed(arguments: &[&str]) -> [Vec<String>; 2] {
    let text = ControlPlane::shared().kubectl(&[&["get"], arguments].concat()).unwrap();
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    let row = lines.next().unwrap();
    // Values may be empty, so a row is cut where the header's words begin.
    let starts: Vec<usize> = header
        .char_indices()
        .filter(|(at, c)| *c != ' ' && (*at == 0 || header[..*at].ends_with("  ")))
        .map(|(at, _)| at)
        .collect();
    let cut = |line: &str| {
        let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
        starts
            .iter()
            .zip(ends)
            .map(|(from, to)| line.get(*from..to.min(line.len())).unwrap_or_default().trim().to_owned())
            .collect()
    };
    [cut(header), cut(row)]
}

#[track_caller]
fn check_printed(arguments: &[&str], expect: &[(&str, &str)]) {
    let [header, row] = printed(arguments);
    let got: Vec<_> = header.iter().map(String::as_str).zip(row.iter().map(String::as_str)).collect();
    let age_apart = got.iter().copied().filter(|(name, _)| *name != "AGE").collect::<Vec<_>>();
    let wants_age = expect.iter().any(|(name, _)| *name == "AGE");
    assert_eq!(got.len() != age_apart.len(), wants_age, "{header:?}");
    assert_eq!(age_apart, expect.iter().copied().filter(|(name, _)| *name != "AGE").collect::<Vec<_>>());
}

#[test]
fn kubectl_get_prints_upstreams_columns() {
    let plane = ControlPlane::shared();
    let pool = json!({ "spec": {
        "subnet": "10.31.0.0/16", "ipVersion": 4, "default": true, "nodeName": ["n1"], "multusName": ["kube-system/m"],
        "podAffinity": { "matchLabels": { "ipam.spidernet.io/app-namespace": "shop" } },
    } });
    plane.apply(&manifest("SpiderIPPool", "printed-pool", &pool)).unwrap();
    let patch = ["--type=merge", "-p", r#"{"status":{"allocatedIPCount":3,"totalIPCount":7}}"#];
    plane.kubectl(&[&["patch", "sp", "printed-pool", "--subresource=status"][..], &patch].concat()).unwrap();
    let columns = [
        ("NAME", "printed-pool"),
        ("VERSION", "4"),
        ("SUBNET", "10.31.0.0/16"),
        ("ALLOCATED-IP-COUNT", "3"),
        ("TOTAL-IP-COUNT", "7"),
        ("DEFAULT", "true"),
    ];
    check_printed(&["sp", "printed-pool"], &columns);
    let wide = [
        ("DISABLE", "false"),
        ("NODENAME", "[\"n1\"]"),
        ("MULTUSNAME", "[\"kube-system/m\"]"),
        ("APP-NAMESPACE", "shop"),
    ];
    check_printed(&["sp", "printed-pool", "-o", "wide"], &[&columns[..], &wide].concat());

    let subnet = json!({ "spec": { "subnet": "fd31::/64", "ipVersion": 6 } });
    plane.apply(&manifest("SpiderSubnet", "printed-subnet", &subnet)).unwrap();
    check_printed(
        &["ss", "printed-subnet"],
        &[
            ("NAME", "printed-subnet"),
            ("VERSION", "6"),
            ("SUBNET", "fd31::/64"),
            ("ALLOCATED-IP-COUNT", ""),
            ("TOTAL-IP-COUNT", ""),
        ],
    );
    let reserved = json!({ "spec": { "ips": ["10.31.0.1"], "ipVersion": 4 } });
    plane.apply(&manifest("SpiderReservedIP", "printed-reserved", &reserved)).unwrap();
    check_printed(&["sr", "printed-reserved"], &[("NAME", "printed-reserved"), ("VERSION", "4")]);

    let address = json!({ "spec": {
        "address": "10.31.0.9/16", "pool": "printed-pool", "node": "n1", "interface": "net1", "podName": "web-0",
        "podNamespace": "shop", "podUID": "u-1",
    } });
    plane.apply(&manifest("SpiderIPAddress", "10.31.0.9", &address)).unwrap();
    check_printed(
        &["sip", "10.31.0.9"],
        &[
            ("NAME", "10.31.0.9"),
            ("POOL", "printed-pool"),
            ("POD", "web-0"),
            ("INTERFACE", "net1"),
            ("NODE", "n1"),
            ("STATE", "bound"),
            ("AGE", ""),
        ],
    );
    let usage =
        json!({ "spec": { "pool": "printed-pool", "base": "10.31.0.0", "bitmap": "AAI=", "inUse": 1 } });
    plane.apply(&manifest("SpiderIPPoolUsage", "printed-usage", &usage)).unwrap();
    check_printed(
        &["sipu", "printed-usage"],
        &[("NAME", "printed-usage"), ("POOL", "printed-pool"), ("BASE", "10.31.0.0"), ("IN-USE", "1")],
    );

    // All kinds are in the category.
    let all = plane.kubectl(&["get", "spiderpool", "-o", "name"]).unwrap();
    for name in ["spiderippool", "spidersubnet", "spiderreservedip", "spideripaddress", "spiderippoolusage"] {
        assert!(all.contains(&format!("{name}.spiderpool.spidernet.io/")), "{name}: {all}");
    }
    plane
        .kubectl(&[
            "delete",
            "sp/printed-pool",
            "ss/printed-subnet",
            "sr/printed-reserved",
            "sip/10.31.0.9",
            "sipu/printed-usage",
        ])
        .unwrap();
}

/// Upstream's agents create endpoints with their status in one request.
#[test]
fn an_endpoints_status_is_stored_on_create() {
    let plane = ControlPlane::shared();
    let status = json!({ "status": {
        "current": {
            "uid": "u-1", "node": "n1",
            "ips": [{ "interface": "net1", "ipv4": "10.6.212.145/16", "ipv4Pool": "10-6-v4" }],
        },
        "ownerControllerType": "Deployment", "ownerControllerName": "web",
    } });
    plane
        .kubectl_with_input(&["create", "-f", "-"], &manifest("SpiderEndpoint", "stored-web", &status))
        .unwrap();
    check_printed(
        &["se", "stored-web"],
        &[
            ("NAME", "stored-web"),
            ("INTERFACE", "net1"),
            ("IPV4POOL", "10-6-v4"),
            ("IPV4", "10.6.212.145/16"),
            ("IPV6POOL", ""),
            ("IPV6", ""),
            ("NODE", "n1"),
        ],
    );
    let vlan =
        plane.kubectl(&["get", "se", "stored-web", "-o", "jsonpath={.status.current.ips[0].vlan}"]).unwrap();
    assert_eq!(vlan, "0", "the default is filled in");
    let bad = json!({ "status": { "current": { "uid": "u", "node": "n", "ips": [{ "interface": "", "vlan": 4095 }] },
        "ownerControllerType": "", "ownerControllerName": "" } });
    let error = plane.apply(&manifest("SpiderEndpoint", "refused", &bad)).unwrap_err();
    assert!(format!("{error:#}").contains("less than or equal to 4094"), "{error:#}");
    plane.kubectl(&["delete", "se", "stored-web"]).unwrap();
}

/// The name is the lock: the second to create an address fails.
#[test]
fn an_address_is_created_once() {
    let plane = ControlPlane::shared();
    let address = |uid: &str| {
        let spec = json!({ "spec": { "address": "fd31::9/64", "pool": "p", "interface": "eth0", "podName": "a",
            "podNamespace": "b", "podUID": uid } });
        manifest("SpiderIPAddress", "fd31-0000-0000-0000-0000-0000-0000-0009", &spec)
    };
    plane.kubectl_with_input(&["create", "-f", "-"], &address("u-1")).unwrap();
    let error = plane.kubectl_with_input(&["create", "-f", "-"], &address("u-2")).unwrap_err();
    assert!(format!("{error:#}").contains("already exists"), "{error:#}");
    plane.kubectl(&["delete", "sip", "fd31-0000-0000-0000-0000-0000-0000-0009"]).unwrap();
}
