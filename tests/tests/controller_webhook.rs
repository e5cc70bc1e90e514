//! The webhooks of real controllers, called over https by a real API server with the chart's own configurations.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::poll;
use spiderpool_tests::standalone_controller::{
    CERTIFICATE, LABEL, StandaloneController, Start, webhook_configurations,
};
use support::{Bench, LIMIT};

/// The CRD of NetworkAttachmentDefinition.
const MULTUS: &str =
    include_str!("../../charts/spiderpool/crds/k8s.cni.cncf.io_network-attachment-definitions.yaml");
const KINDS: [&str; 2] = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"];

/// A namespace, a name for controllers and webhooks, and a port that stays the same over a restart.
struct Hooks<'a> {
    bench: Bench<'a>,
    name: String,
    port: u16,
}

impl Hooks<'_> {
    async fn new(prefix: &str) -> Self {
        let bench = Bench::new(prefix).await;
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let name = bench.name("hooks");
        Self { bench, name, port }
    }

    async fn controller(&self, name: &str, port: u16, environment: &[(&str, &str)]) -> StandaloneController {
        let port = port.to_string();
        let own = [
            ("SPIDERPOOL_WEBHOOK_PORT", port.as_str()),
            ("SPIDERPOOL_CONTROLLER_DEPLOYMENT_NAME", self.name.as_str()),
            ("SPIDERPOOL_COORDINATOR_ENABLED", "false"),
            ("SPIDERPOOL_MULTUS_CONFIG_ENABLED", "true"),
            ("SPIDERPOOL_LEADER_DURATION", "3"),
            ("SPIDERPOOL_LEADER_RENEW_DEADLINE", "2"),
            ("SPIDERPOOL_LEADER_RETRY_PERIOD", "1"),
        ];
        let environment = [&own, environment].concat();
        let (folder, namespace) = (self.bench.folder("controllers"), self.bench.namespace());
        let start = Start { folder: &folder, namespace, name, environment: &environment };
        StandaloneController::start(ControlPlane::shared(), start).await.unwrap()
    }

    /// The chart's configurations, at this port in place of the Service.
    fn configure(&self) {
        self.configure_with(&Value::Null);
    }

    /// The same, with the CA of a certificate that is not ours, base64.
    fn configure_with(&self, ca_bundle: &Value) {
        for mut configuration in webhook_configurations(&self.name, self.port).unwrap() {
            for webhook in configuration["webhooks"].as_array_mut().unwrap() {
                if !ca_bundle.is_null() {
                    webhook["clientConfig"]["caBundle"] = ca_bundle.clone();
                }
            }
            self.bench.apply(&configuration);
        }
    }

    fn object(&self, kind: &str, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": kind,
            "metadata": {"name": self.bench.name(name), "labels": {LABEL: self.name}}, "spec": spec,
        })
    }

    fn network(&self, name: &str, annotations: &Value, spec: &Value) -> Value {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
            "metadata": {
                "namespace": self.bench.namespace(), "name": name, "labels": {LABEL: self.name},
                "annotations": annotations,
            },
            "spec": spec,
        })
    }

    /// Creates or replaces it; what the API server says, warnings included.
    fn write(object: &Value) -> Result<Value, String> {
        let plane = ControlPlane::shared();
        let written = plane.kubectl_with_input(&["apply", "-o", "json", "-f", "-"], &object.to_string());
        written.map(|text| serde_json::from_str(&text).unwrap()).map_err(|error| format!("{error:#}"))
    }

    /// API servers learn of a configuration by a watch.
    async fn wait_until_called(&self) {
        let invalid = self.object("SpiderIPPool", "probe", &json!({"subnet": "10.1.1.0/16"}));
        self.bench
            .until("the webhooks are called", async || {
                Self::write(&invalid).is_err_and(|error| error.contains("unformatted subnet"))
            })
            .await;
    }

    fn certificate(&self, key: &str) -> String {
        let path = format!("jsonpath={{.data.{}}}", key.replace('.', "\\."));
        let get = ["get", "secret", "-n", self.bench.namespace(), CERTIFICATE, "-o", &path];
        ControlPlane::shared().kubectl(&get).unwrap()
    }

    fn patch_certificate(&self, data: &Value) {
        let patch = json!({"stringData": data}).to_string();
        let arguments =
            ["patch", "secret", "-n", self.bench.namespace(), CERTIFICATE, "--type=merge", "-p", &patch];
        ControlPlane::shared().kubectl(&arguments).unwrap();
    }

    /// Whether an Event in the controllers' namespace says so.
    fn has_event(&self, part: &str) -> bool {
        let get = ["get", "events", "-n", self.bench.namespace(), "-o", "jsonpath={..message}"];
        ControlPlane::shared().kubectl(&get).unwrap().contains(part)
    }

    fn ca_bundles(&self) -> Vec<String> {
        let path = "jsonpath={range .webhooks[*]}{.clientConfig.caBundle}{\"\\n\"}{end}";
        let get = |kind| ControlPlane::shared().kubectl(&["get", kind, &self.name, "-o", path]).unwrap();
        KINDS.iter().flat_map(|kind| get(kind).lines().map(ToOwned::to_owned).collect::<Vec<_>>()).collect()
    }
}

impl Drop for Hooks<'_> {
    fn drop(&mut self) {
        for kind in KINDS {
            drop(ControlPlane::shared().kubectl(&["delete", kind, &self.name, "--ignore-not-found"]));
        }
    }
}

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
    Hooks::write(&pool(&["10.132.0.1-10.132.0.9"])).unwrap();
    let name = hooks.bench.name("p");
    hooks.bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPAddress",
        "metadata": {"name": "10.132.0.7", "labels": {"ipam.spidernet.io/ippool": name}},
        "spec": {"address": "10.132.0.7/16", "pool": name, "node": "n", "interface": "net1",
            "podNamespace": "default", "podName": "web", "podUID": "u", "state": "bound"},
    }));
    let error = Hooks::write(&pool(&["10.132.0.1-10.132.0.6"])).unwrap_err();
    let part = "spec.ips: Forbidden: remove an IP address 10.132.0.7 that is being used by a Pod";
    assert!(error.contains(part), "{error}");
    Hooks::write(&pool(&["10.132.0.7-10.132.0.9"])).unwrap();
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
        "macvlan": {"master": ["ens192", "ens192"], "vlanID": 100, "bond": {"name": "bond0", "mode": 1}},
    });
    let error = Hooks::write(&hooks.network("b", &json!({"multus.spidernet.io/cni-version": "9"}), &spec));
    let error = error.unwrap_err();
    for part in [
        "metadata.annotations[multus.spidernet.io/cni-version]: Unsupported value: \"9\"",
        "spec.macvlan.master[1]: Duplicate value: \"ens192\"",
        "spec.macvlan.vlanID: Forbidden: ",
        "spec.macvlan.master: Forbidden: a bond ",
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

/// The certificate expires several times while objects are written: every one is admitted.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_is_replaced_before_anybody_notices() {
    let hooks = Hooks::new("hook-rotation").await;
    let validity = [("SPIDERPOOL_WEBHOOK_CERT_VALIDITY", "16"), ("SPIDERPOOL_WEBHOOK_CA_VALIDITY", "40")];
    let _first = hooks.controller("first", hooks.port, &validity).await;
    let _second = hooks.controller("second", 0, &validity).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let (mut certificates, mut admitted) = (vec![hooks.certificate("tls.crt")], 0);
    let write = async || {
        let spec = json!({"ips": [format!("10.134.{}.{}", admitted / 250, admitted % 250)]});
        let written = Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec));
        admitted += 1;
        let now = hooks.certificate("tls.crt");
        if certificates.last() != Some(&now) {
            certificates.push(now);
        }
        written.map(drop).map_err(anyhow::Error::msg)
    };
    poll::holds_async("objects are admitted", Duration::from_secs(36), write).await.unwrap();
    assert!(certificates.len() > 2, "{} certificates", certificates.len());
    assert!(admitted > 20, "{admitted}");
}

/// Somebody has cleared the Secret, and an upgrade has taken the caBundle away.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ours_and_its_ca_bundle_are_repaired() {
    let hooks = Hooks::new("hook-repair").await;
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let before = hooks.certificate("tls.crt");
    hooks.patch_certificate(&json!({"tls.crt": "garbage"}));
    let is_anew =
        async || ![before.as_str(), "", "Z2FyYmFnZQ=="].contains(&hooks.certificate("tls.crt").as_str());
    hooks.bench.until("the certificate is made anew", is_anew).await;
    let is_told = async || hooks.ca_bundles().iter().all(|bundle| *bundle == hooks.certificate("ca.crt"));
    hooks.bench.until("its CA is told", is_told).await;

    let remove = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]).to_string();
    for kind in KINDS {
        ControlPlane::shared().kubectl(&["patch", kind, &hooks.name, "--type=json", "-p", &remove]).unwrap();
    }
    hooks.bench.until("the CA is told again", is_told).await;
    // That of another installation, which is no CA of the certificate.
    let others = rcgen::generate_simple_self_signed(["other.test".to_owned()]).unwrap().cert.pem();
    hooks.configure_with(&json!(ByteString(others.into_bytes())));
    hooks.bench.until("the CA is told in place of another", is_told).await;
    // As helm upgrade applies it.
    hooks.configure();
    hooks.bench.until("the CA is told after an upgrade", is_told).await;
    hooks.wait_until_called().await;

    let namespace = hooks.bench.namespace();
    ControlPlane::shared().kubectl(&["delete", "secret", "-n", namespace, CERTIFICATE]).unwrap();
    hooks
        .bench
        .until("an Event names the lost Secret", async || hooks.has_event("there is no such Secret"))
        .await;
    hooks.wait_until_called().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_others_is_served_followed_and_never_written() {
    let hooks = Hooks::new("hook-provided").await;
    let name = format!("{}.{}.svc", hooks.name, hooks.bench.namespace());
    let names = [name.clone(), "127.0.0.1".to_owned()];
    let good = given(&names, None);
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": good,
        "metadata": {"name": CERTIFICATE, "namespace": hooks.bench.namespace()},
    }));
    let controller =
        hooks.controller("a", hooks.port, &[("SPIDERPOOL_WEBHOOK_TLS_METHOD", "provided")]).await;
    hooks.configure_with(&json!(hooks.certificate("ca.crt")));
    hooks.wait_until_called().await;

    let expired = given(&names, Some(2020));
    let mut leaf_as_ca = good.clone();
    leaf_as_ca["ca.crt"] = good["tls.crt"].clone();
    let mut other_ca = good.clone();
    other_ca["ca.crt"] = expired["ca.crt"].clone();
    let other_name = given(&["other.test".to_owned()], None);
    for (secret, fault) in [
        (&expired, "tls.crt has expired at 2020-".to_owned()),
        (&leaf_as_ca, "ca.crt is the server's own certificate".to_owned()),
        (&other_ca, "tls.crt is not signed by a CA of ca.crt".to_owned()),
        (&other_name, format!("tls.crt is not for {name}")),
    ] {
        hooks.patch_certificate(secret);
        hooks
            .bench
            .until(&format!("readiness says: {fault}"), async || {
                let (status, body) = controller.probe("/v1/runtime/readiness").await.unwrap();
                !status.is_success() && body.contains(&fault)
            })
            .await;
    }
    let version = hooks.certificate("tls.crt");
    hooks.bench.until("an Event names it", async || hooks.has_event("tls.crt is not for")).await;
    assert_eq!(hooks.certificate("tls.crt"), version, "it is not ours");
    hooks.patch_certificate(&good);
    hooks.wait_until_called().await;
}

/// PEM for these names by a CA of its own; of a year that is over if one is given.
fn given(names: &[String], year: Option<i32>) -> Value {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key).unwrap().pem();
    let (issuer, key) = (Issuer::new(ca, ca_key), KeyPair::generate().unwrap());
    let mut certificate = CertificateParams::new(names.to_vec()).unwrap();
    if let Some(year) = year {
        certificate.not_before = rcgen::date_time_ymd(year, 1, 1);
        certificate.not_after = rcgen::date_time_ymd(year, 12, 1);
    }
    let certificate = certificate.signed_by(&key, &issuer).unwrap().pem();
    json!({"tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": authority})
}

/// A new Secret arrives before the configurations of the same upgrade: objects are admitted in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_waits_until_the_api_server_is_told() {
    let hooks = Hooks::new("hook-other-ca").await;
    let names = [format!("{}.{}.svc", hooks.name, hooks.bench.namespace()), "127.0.0.1".to_owned()];
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": given(&names, None),
        "metadata": {"name": CERTIFICATE, "namespace": hooks.bench.namespace()},
    }));
    let _controller =
        hooks.controller("a", hooks.port, &[("SPIDERPOOL_WEBHOOK_TLS_METHOD", "provided")]).await;
    hooks.configure_with(&json!(hooks.certificate("ca.crt")));
    hooks.wait_until_called().await;
    hooks.patch_certificate(&given(&names, None));
    let admitted = |count: u8| {
        let spec = json!({"ips": [format!("10.136.0.{count}")]});
        Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec))
    };
    let mut count = 0;
    let write = async || {
        count += 1;
        admitted(count).map(drop).map_err(anyhow::Error::msg)
    };
    poll::holds_async("the former one is served", Duration::from_secs(5), write).await.unwrap();
    hooks.configure_with(&json!(hooks.certificate("ca.crt")));
    hooks.bench.until("the new one is served", async || admitted(250).is_ok()).await;
}

/// As old and new replicas of an upgrade that changes them.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_want_other_names_do_not_replace_each_others_certificate() {
    const NAMES: &str = "SPIDERPOOL_WEBHOOK_EXTRA_DNS_NAMES";
    let hooks = Hooks::new("hook-names").await;
    let _old = hooks.controller("old", hooks.port, &[(NAMES, "old.test")]).await;
    let _new = hooks.controller("new", 0, &[(NAMES, "*.new.test")]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let before = hooks.certificate("tls.crt");
    // Longer than the pause between two issues of one replica.
    let stays = async || {
        anyhow::ensure!(hooks.certificate("tls.crt") == before, "it was replaced");
        Ok(())
    };
    poll::holds_async("the certificate stays", Duration::from_secs(8), stays).await.unwrap();
}

/// The first controller of an installation, or one whose API server cannot reach it. On a control plane of its own: other
/// controllers would complete the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_a_status_although_its_spec_cannot_be_completed() {
    let (plane, folder) = (ControlPlane::start(Options::default()).unwrap(), tempfile::tempdir().unwrap());
    let pool = |name: &str| {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": name, "labels": {LABEL: "hooks"}},
            "spec": {"subnet": "10.137.0.0/16", "ips": ["10.137.0.1-10.137.0.9"]},
        })
        .to_string()
    };
    plane.apply(&pool("p")).unwrap();
    let unused = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    for configuration in webhook_configurations("hooks", unused).unwrap() {
        plane.apply(&configuration.to_string()).unwrap();
    }
    let until = async |what: &str, check: &dyn Fn() -> bool| {
        let check = async || {
            anyhow::ensure!(check(), "not so");
            Ok(())
        };
        poll::until_async(what, LIMIT, check).await.unwrap();
    };
    until("the webhooks are called", &|| plane.apply(&pool("q")).is_err()).await;
    let environment =
        [("SPIDERPOOL_CONTROLLER_DEPLOYMENT_NAME", "hooks"), ("SPIDERPOOL_COORDINATOR_ENABLED", "false")];
    let start = Start { folder: folder.path(), namespace: "default", name: "a", environment: &environment };
    let _controller = StandaloneController::start(&plane, start).await.unwrap();
    let get = ["get", "sp", "p", "-o", "jsonpath={.status.totalIPCount}:{.spec.ipVersion}"];
    until("it has a status", &|| plane.kubectl(&get).unwrap() == "9:").await;
}

/// Requests come until every proxy has learned of the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_ends_answers_for_a_while() {
    let hooks = Hooks::new("hook-end").await;
    let environment = [("SPIDERPOOL_SHUTDOWN_DELAY_SECONDS", "5")];
    let controller = hooks.controller("a", hooks.port, &environment).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let ending = std::thread::spawn(move || controller.stop());
    let begun = Instant::now();
    for count in 0.. {
        let spec = json!({"ips": [format!("10.138.0.{count}")]});
        Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec)).unwrap();
        if begun.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    ending.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_away_stops_only_changes_of_our_specs_and_only_until_it_is_back() {
    let hooks = Hooks::new("hook-away").await;
    let controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let pool =
        |ips: &[&str]| hooks.object("SpiderIPPool", "p", &json!({"subnet": "10.135.0.0/16", "ips": ips}));
    Hooks::write(&pool(&["10.135.0.1"])).unwrap();
    controller.kill().unwrap();

    let error = Hooks::write(&pool(&["10.135.0.2"])).unwrap_err();
    assert!(error.contains("failed calling webhook"), "{error}");
    let plane = ControlPlane::shared();
    let name = hooks.bench.name("p");
    plane.kubectl(&["label", "sp", &name, "a=b"]).unwrap();
    let status = json!({"status": {"allocatedIPCount": 1}}).to_string();
    plane.kubectl(&["patch", "sp", &name, "--subresource=status", "--type=merge", "-p", &status]).unwrap();
    // Objects of others, although they have the label.
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": hooks.bench.namespace(), "labels": {LABEL: hooks.name}},
        "spec": {"containers": [{"name": "c", "image": "none"}]},
    }));
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": hooks.bench.namespace(), "labels": {LABEL: hooks.name}},
    }));
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.bench.until("it is back", async || Hooks::write(&pool(&["10.135.0.2"])).is_ok()).await;
}

/// An empty Secret is filled by one of several; all serve what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_agree_on_a_certificate() {
    let hooks = Hooks::new("hook-race").await;
    let starts = ["a", "b", "c"].map(|name| hooks.controller(name, 0, &[]));
    let controllers = futures::future::join_all(starts).await;
    let written = controllers
        .iter()
        .filter(|controller| controller.log().unwrap().contains("certificate of the webhooks written"));
    assert_eq!(written.count(), 1);
    assert!(hooks.certificate("ca.crt").len() > 100);
}
