//! Manifests that users have from upstream's documents: a real API server with our definitions takes them, after
//! the corrections listed here. Each form that needs one is refused as it stands, so that none is needed in vain.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spiderpool_api::crd::{PodCidrType, SpiderCoordinator, SpiderIPPool, SpiderMultusConfig, SpiderSubnet};
use spiderpool_core::coordinator::{Dataplane, Mode, RouteHints, Settings};
use spiderpool_core::ipam::Pool;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::kubectl::Kubectl as _;

/// What a document has, and what became of it in `fixtures/seeds`.
struct Correction {
    document: &'static str,
    change: &'static str,
    /// The form as it stands in the document, and what the API server or kubectl says to it. `None`: taken, but it
    /// means nothing to us.
    as_written: Option<(&'static str, &'static str)>,
}

const CORRECTIONS: &[Correction] = &[
    Correction {
        document: "calico-macvlan, cilium-macvlan",
        change: "detectGateway, detectIPConflict and hostRPFilter stay: accepted and ignored",
        as_written: None,
    },
    Correction {
        document: "calico-macvlan, cilium-macvlan",
        change: "status of the printed SpiderCoordinator goes to the status subresource",
        as_written: None,
    },
    Correction {
        document: "calico-macvlan, cilium-macvlan",
        change: "macvlan.spiderpoolConfigPools.IPv4IPPool becomes macvlan.ippools.ipv4",
        as_written: Some((
            r"{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderMultusConfig, metadata: {name: as-written},
               spec: {cniType: macvlan, macvlan: {master: [ens192], spiderpoolConfigPools: {IPv4IPPool: [10-6-v4]}}}}",
            "IPv4IPPool is ippools.ipv4 now",
        )),
    },
    Correction {
        document: "calico-macvlan, cilium-macvlan",
        change: "coordinator.tuneMode becomes coordinator.mode",
        as_written: Some((
            r"{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderMultusConfig, metadata: {name: as-written},
               spec: {cniType: macvlan, macvlan: {master: [ens192]}, coordinator: {tuneMode: overlay}}}",
            "spec.coordinator.tuneMode: Invalid value: \"overlay\": it is coordinator.mode now",
        )),
    },
    Correction {
        document: "cilium-macvlan",
        change: "podCIDRType calico becomes cilium, as the cluster's CNI",
        as_written: None,
    },
    Correction {
        document: "calico-bgp",
        change: "apiVersion spiderpool.spidernet.io/v1 becomes v2beta1",
        as_written: Some((
            r"{apiVersion: spiderpool.spidernet.io/v1, kind: SpiderIPPool, metadata: {name: as-written},
               spec: {subnet: 10.244.0.0/16}}",
            "no matches for kind",
        )),
    },
    Correction {
        document: "calico-bgp",
        change: "spec.vlan is gone",
        as_written: Some((
            r"{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderIPPool, metadata: {name: as-written},
               spec: {subnet: 10.244.0.0/16, vlan: 0}}",
            ".spec.vlan: field not declared in schema",
        )),
    },
    Correction {
        document: "calico-bgp",
        change: "pool default-ipv4-ippool becomes default-v4-ippool, as everywhere else in the document",
        as_written: None,
    },
    Correction {
        document: "calico-bgp",
        change: "records of allocatedIPs {interface, namespace, pod, uid} become {pod: namespace/name, podUid}",
        as_written: None,
    },
    Correction {
        document: "calico-bgp",
        change: "what the server writes (uid, resourceVersion, generation, ownerReferences, ...) is left out",
        as_written: None,
    },
    Correction {
        document: "underlay-macvlan",
        change: "name moves into metadata, the closing EOF to the margin",
        as_written: Some((
            "apiVersion: spiderpool.spidernet.io/v2beta1\nkind: SpiderSubnet\nmetadata:\nname: as-written\nspec:\n  \
             subnet: 172.18.0.0/16\n",
            "resource name may not be empty",
        )),
    },
];

#[test]
fn forms_that_need_a_correction_are_refused_as_written() {
    for Correction { document, change, as_written } in CORRECTIONS {
        let Some((manifest, expect)) = as_written else { continue };
        let error = format!("{:#}", ControlPlane::shared().apply(manifest).unwrap_err());
        assert!(error.contains(expect), "{document}: {change}: {error}");
    }
}

fn get<T: DeserializeOwned>(arguments: &[&str]) -> T {
    let text = ControlPlane::shared().kubectl(&[&["get", "-o", "json"], arguments].concat()).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// Applies a fixture, shows it to `check`, and deletes it.
fn with_fixture(manifests: &str, status: &[&str], check: impl FnOnce()) {
    let plane = ControlPlane::shared();
    plane.apply(manifests).unwrap();
    for resource in status {
        // Only these have a status of their own; the others in the file would be refused here.
        let document = manifests.split("---\n").find(|d| d.contains(&format!("kind: {resource}\n"))).unwrap();
        let arguments = ["apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-"];
        plane.kubectl_with_input(&arguments, document).unwrap();
    }
    check();
    // No controller runs here that would take the finalizers away.
    let names = plane.kubectl_with_input(&["get", "-f", "-", "-o", "name"], manifests).unwrap();
    for name in names.lines() {
        plane.kubectl(&["patch", name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).unwrap();
    }
    plane.kubectl_with_input(&["delete", "--wait", "-f", "-"], manifests).unwrap();
}

fn check_coordinator(pod_cidr_type: PodCidrType) {
    let object: SpiderCoordinator = get(&["scc", "default"]);
    assert_eq!(object.spec.ignored_fields(), ["detectGateway", "detectIPConflict", "hostRPFilter"]);
    assert_eq!(object.spec.pod_cidr_type, Some(pod_cidr_type));
    let config = Settings::resolve(Settings::default(), object.spec.settings).unwrap();
    assert_eq!(
        (config.mode, config.dataplane, config.route_hints),
        (Mode::Auto, Dataplane::Ebpf, RouteHints::Auto)
    );
    let status = object.status.expect("status");
    assert_eq!(status.overlay_pod_cidr, ["10.244.64.0/18"]);
    assert_eq!(status.service_cidr, ["10.233.0.0/18"]);
    // On the server, not only in our types.
    let stored: Value = get(&["scc", "default"]);
    let spec = &stored["spec"];
    assert_eq!((&spec["podRPFilter"], &spec["txQueueLen"]), (&json!(0), &json!(0)), "{spec}");
    assert_eq!(
        (&spec["dataplane"], &spec["ebpf"]),
        (&json!("ebpf"), &json!({"routeHints": "auto", "nodeLink": "all"})),
        "{spec}"
    );
}

/// `mode` is that of the `coordinator` block, where there is one.
fn check_multus_config(mode: Option<&str>) {
    let object: SpiderMultusConfig = get(&["smc", "macvlan-ens192", "-n", "default"]);
    let settings = object.spec.coordinator.map(|coordinator| coordinator.settings);
    // What the block does not say is the SpiderCoordinator's: nothing is filled in.
    let expected = mode.map(|mode| Settings { mode: Some(mode.to_owned()), ..Settings::default() });
    assert_eq!(settings, expected);
    let pools = object.spec.macvlan.expect("macvlan").ippools.expect("ippools");
    assert_eq!(pools.ipv4, ["10-6-v4"]);
    let spec = &get::<Value>(&["smc", "macvlan-ens192", "-n", "default"])["spec"];
    assert_eq!((&spec["enableCoordinator"], &spec["disableIPAM"]), (&json!(true), &json!(false)), "{spec}");
    assert_eq!(spec["macvlan"]["mtu"], json!(0), "{spec}");
    assert_eq!(spec["macvlan"]["ippools"]["matchMasterSubnet"], json!(false), "{spec}");
    // What is decided for the whole cluster has no say here.
    assert_eq!(spec["coordinator"]["dataplane"], Value::Null, "{spec}");
}

fn pool(name: &str) -> (SpiderIPPool, Pool) {
    let object: SpiderIPPool = get(&["sp", name]);
    let pool = Pool::try_from(&object).unwrap();
    (object, pool)
}

/// The documents share names, so they follow one another.
#[test]
fn corrected_documents_are_accepted_and_defaulted() {
    with_fixture(include_str!("../fixtures/seeds/calico-macvlan.yaml"), &["SpiderCoordinator"], || {
        check_coordinator(PodCidrType::Calico);
        check_multus_config(None);
        let (object, pool) = pool("10-6-v4");
        assert_eq!((pool.usable.len(), pool.gateway), (101, Some("10.6.0.1".parse().unwrap())));
        assert_eq!(object.spec.ip_version, Some(4));
        let spec = &get::<Value>(&["sp", "10-6-v4"])["spec"];
        assert_eq!((&spec["default"], &spec["disable"]), (&json!(false), &json!(false)), "{spec}");
    });
    let of_the_nad = include_str!("../fixtures/seeds/multus-config-of-the-printed-nad.yaml");
    with_fixture(of_the_nad, &[], || check_multus_config(Some("overlay")));
    with_fixture(include_str!("../fixtures/seeds/cilium-macvlan.yaml"), &["SpiderCoordinator"], || {
        check_coordinator(PodCidrType::Cilium);
        check_multus_config(None);
        let (object, pool) = pool("10-6-v4");
        assert_eq!((object.spec.ip_version, pool.family().version(), pool.usable.len()), (None, 4, 41));
    });
    with_fixture(include_str!("../fixtures/seeds/calico-bgp.yaml"), &["SpiderIPPool"], || {
        let (object, pool) = pool("default-v4-ippool");
        let status = object.status.expect("status");
        assert_eq!((status.allocated_ip_count, status.total_ip_count), (Some(2), Some(191)));
        assert_eq!(pool.usable.len(), 191);
        let records: Value = serde_json::from_str(&status.allocated_ips.expect("records")).unwrap();
        assert!(records["10.244.100.71"]["podUid"].is_string(), "{records}");
    });
    with_fixture(include_str!("../fixtures/seeds/calico-alibaba-cloud.yaml"), &[], || {
        let (first, second) = (pool("cn-chengdu.i-2vcxxr").1, pool("cn-chengdu.i-2vcxxs").1);
        assert!(first.default && first.subnet == second.subnet);
        assert_eq!(first.node_names, ["cn-chengdu.i-2vcxxr"]);
        assert_eq!(spiderpool_core::ipam::pool::shared_addresses(&first, &second), []);
    });
    with_fixture(include_str!("../fixtures/seeds/underlay-macvlan.yaml"), &[], || {
        let object: SpiderSubnet = get(&["ss", "subnet-test"]);
        assert_eq!(object.spec.gateway.as_deref(), Some("172.18.0.1"));
    });
}
