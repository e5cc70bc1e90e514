//! Multus' access to the API server: a kubeconfig beside its configuration, which only root may read.

use std::path::Path;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::error::{DirError, failed};
use crate::atomic_file;

/// Below the directory for CNI configuration, by a name that no other installer of Multus uses.
pub(super) const FILE: &str = "multus.d/spiderpool.kubeconfig";
/// By this name Multus' own installers and upstream's chart write theirs.
pub(super) const UPSTREAMS: &str = "multus.d/multus.kubeconfig";
/// By this name in it the file is known for ours.
const NAME: &str = "spiderpool-multus";
/// The API server's CA, which the kubelet keeps up to date in every pod.
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// What Multus needs to ask the API server.
pub(super) struct Access {
    pub(super) server: String,
    pub(super) ca: String,
    pub(super) namespace: String,
    pub(super) token: String,
}

impl Access {
    /// The API server that this pod talks to.
    pub(super) fn in_pod(token: (&str, &str)) -> Result<Self, DirError> {
        let variable = |name: &str| env::var(name).unwrap_or_default();
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"));
        if host.is_empty() || port.is_empty() {
            return Err(DirError::NoAccess);
        }
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let ca = fs::read_to_string(CA).map_err(failed(Path::new(CA)))?;
        let (namespace, token) = token;
        Ok(Self {
            server: format!("https://{host}:{port}"),
            ca,
            namespace: namespace.to_owned(),
            token: token.to_owned(),
        })
    }

    /// Writes the file unless it says the same.
    pub(super) fn write(&self, path: &Path) -> Result<(), DirError> {
        let content = self.content();
        if fs::read_to_string(path).is_ok_and(|there| there == content) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        atomic_file::write(path, content.as_bytes(), 0o600).map_err(failed(path))
    }

    /// JSON is YAML.
    fn content(&self) -> String {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": NAME,
                "cluster": {"server": self.server, "certificate-authority-data": STANDARD.encode(&self.ca)},
            }],
            "users": [{"name": NAME, "user": {"token": self.token}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": self.namespace}}],
            "current-context": NAME,
        });
        format!("{kubeconfig:#}\n")
    }
}

/// Whether the directory has the file, and it is ours.
pub(super) fn is_there(conf_dir: &Path) -> bool {
    fs::read_to_string(conf_dir.join(FILE)).is_ok_and(|content| is_ours(&content))
}

/// What stands behind `token` in a kubeconfig, in YAML or JSON.
pub(super) fn tokens(content: &str) -> impl Iterator<Item = &str> {
    let values = content.lines().filter_map(|line| line.trim().trim_start_matches('"').strip_prefix("token"));
    values.map(|rest| rest.trim_matches(|c: char| c.is_whitespace() || "\":,'".contains(c)))
}

/// Whether an agent wrote it.
pub(super) fn is_ours(content: &str) -> bool {
    serde_json::from_str::<Value>(content).is_ok_and(|kubeconfig| kubeconfig["current-context"] == NAME)
}
