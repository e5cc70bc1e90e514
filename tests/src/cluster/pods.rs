//! The network namespaces of pods.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Cluster, Node};
use crate::kubectl::Kubectl as _;
use crate::namespaces::Namespaces;

impl Cluster {
    /// The network of a running pod.
    pub fn pod_namespaces(&self, namespace: &str, pod: &str) -> Result<Namespaces> {
        let node = ["get", "pod", "-n", namespace, pod, "-o", "jsonpath={.spec.nodeName}"];
        let node = self.kubectl(&node)?;
        self.node(&node)
            .and_then(|node| node.pod_namespaces(namespace, pod))
            .with_context(|| format!("pod {namespace}/{pod}"))
    }
}

impl Node {
    /// The network of a pod that runs here.
    pub fn pod_namespaces(&self, namespace: &str, pod: &str) -> Result<Namespaces> {
        let filter = format!(
            "labels.\"io.cri-containerd.kind\"==sandbox,labels.\"io.kubernetes.pod.namespace\"=={namespace},\
             labels.\"io.kubernetes.pod.name\"=={pod}"
        );
        let sandboxes = self.ctr(&["containers", "list", "--quiet", &filter])?;
        let mut found = None;
        for sandbox in sandboxes.split_whitespace() {
            let info: Value = serde_json::from_str(&self.ctr(&["containers", "info", sandbox])?)?;
            // Former sandboxes of the pod may still be there; theirs is gone.
            if let Some(path) = network_of(&info)
                && self.namespaces().run(|| Ok(Path::new(path).exists()))?
            {
                found = Some(path.to_owned());
            }
        }
        let path = found.with_context(|| format!("no sandbox with a network of its own on {}", self.name))?;
        Ok(self.namespaces().with_network(pod, Path::new(&path)))
    }
}

fn network_of(container: &Value) -> Option<&str> {
    let namespaces = container["Spec"]["linux"]["namespaces"].as_array()?;
    namespaces.iter().find(|namespace| namespace["type"] == "network")?["path"].as_str()
}
