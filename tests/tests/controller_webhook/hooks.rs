//! Controllers and the chart's configurations, which point at them.

use std::net::TcpListener;

use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::standalone_controller::{
    CERTIFICATE, LABEL, StandaloneController, Start, webhook_configurations, webhook_configurations_with,
};

use crate::support::{Bench, messages};

/// The CRD of NetworkAttachmentDefinition.
pub(crate) const MULTUS: &str =
    include_str!("../../../charts/spiderpool/crds/k8s.cni.cncf.io_network-attachment-definitions.yaml");
pub(crate) const KINDS: [&str; 2] = ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"];

/// A namespace, a name for controllers and webhooks, and a port that stays the same over a restart.
pub(crate) struct Hooks<'a> {
    pub(crate) bench: Bench<'a>,
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl Hooks<'_> {
    pub(crate) async fn new(prefix: &str) -> Self {
        let bench = Bench::new(prefix).await;
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let name = bench.name("hooks");
        Self { bench, name, port }
    }

    pub(crate) async fn controller(
        &self,
        name: &str,
        port: u16,
        environment: &[(&str, &str)],
    ) -> StandaloneController {
        self.controller_with(name, port, environment, &json!({})).await
    }

    /// The same with these keys in its configuration file.
    pub(crate) async fn controller_with(
        &self,
        name: &str,
        port: u16,
        environment: &[(&str, &str)],
        file: &Value,
    ) -> StandaloneController {
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
        StandaloneController::start_with(ControlPlane::shared(), start, file).await.unwrap()
    }

    /// The chart's configurations with these values, each as `path=value`.
    pub(crate) fn configure_values(&self, values: &[&str]) {
        for configuration in webhook_configurations_with(&self.name, self.port, values).unwrap() {
            self.bench.apply(&configuration);
        }
    }

    /// The chart's configurations, at this port in place of the Service.
    pub(crate) fn configure(&self) {
        self.configure_with(&Value::Null, false);
    }

    /// The same, with the CA of a certificate that is not ours, base64, and with deletions.
    pub(crate) fn configure_with(&self, ca_bundle: &Value, deletions: bool) {
        for mut configuration in webhook_configurations(&self.name, self.port).unwrap() {
            let is_validating = configuration["kind"] == "ValidatingWebhookConfiguration";
            for webhook in configuration["webhooks"].as_array_mut().unwrap() {
                if deletions && is_validating {
                    webhook["rules"][0]["operations"] = json!(["CREATE", "UPDATE", "DELETE"]);
                }
                if !ca_bundle.is_null() {
                    webhook["clientConfig"]["caBundle"] = ca_bundle.clone();
                }
            }
            self.bench.apply(&configuration);
        }
    }

    pub(crate) fn object(&self, kind: &str, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": kind,
            "metadata": {"name": self.bench.name(name), "labels": {LABEL: self.name}}, "spec": spec,
        })
    }

    pub(crate) fn network(&self, name: &str, annotations: &Value, spec: &Value) -> Value {
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
    pub(crate) fn write(object: &Value) -> Result<Value, String> {
        let plane = ControlPlane::shared();
        let written = plane.kubectl_with_input(&["apply", "-o", "json", "-f", "-"], &object.to_string());
        written.map(|text| serde_json::from_str(&text).unwrap()).map_err(|error| format!("{error:#}"))
    }

    /// What creating or replacing it would come to.
    pub(crate) fn dry_run(object: &Value) -> Result<Value, String> {
        let arguments = ["apply", "--dry-run=server", "-o", "json", "-f", "-"];
        let written = ControlPlane::shared().kubectl_with_input(&arguments, &object.to_string());
        written.map(|text| serde_json::from_str(&text).unwrap()).map_err(|error| format!("{error:#}"))
    }

    /// API servers learn of a configuration by a watch.
    pub(crate) async fn wait_until_called(&self) {
        let invalid = self.object("SpiderIPPool", "probe", &json!({"subnet": "10.1.1.0/16"}));
        self.bench
            .until("the webhooks are called", async || {
                let answer = ControlPlane::shared().try_create(&invalid);
                answer.is_err_and(|error| format!("{error:#}").contains("unformatted subnet"))
            })
            .await;
    }

    pub(crate) fn certificate(&self, key: &str) -> String {
        let secret = ControlPlane::shared().find(Kind("v1", "Secret"), self.bench.namespace(), CERTIFICATE);
        let value = secret.unwrap().map(|secret| secret["data"][key].clone());
        value.and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default()
    }

    pub(crate) fn patch_certificate(&self, data: &Value) {
        let patch = json!({"stringData": data}).to_string();
        let arguments =
            ["patch", "secret", "-n", self.bench.namespace(), CERTIFICATE, "--type=merge", "-p", &patch];
        ControlPlane::shared().kubectl(&arguments).unwrap();
    }

    /// Whether an Event in the controllers' namespace says so.
    pub(crate) fn has_event(&self, part: &str) -> bool {
        let events = ControlPlane::shared().events(self.bench.namespace(), "").unwrap();
        messages(&events).iter().any(|message| message.contains(part))
    }

    pub(crate) fn ca_bundles(&self) -> Vec<String> {
        let mut bundles = Vec::new();
        for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
            let kind = Kind("admissionregistration.k8s.io/v1", kind);
            let configuration = ControlPlane::shared().find(kind, "", &self.name).unwrap().unwrap();
            for webhook in configuration["webhooks"].as_array().unwrap() {
                bundles.push(webhook["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned());
            }
        }
        bundles
    }
}

impl Drop for Hooks<'_> {
    fn drop(&mut self) {
        for kind in KINDS {
            drop(ControlPlane::shared().kubectl(&["delete", kind, &self.name, "--ignore-not-found"]));
        }
    }
}
