//! What lets Multus ask the API server. Without it no pod starts on a node whose container runtime still executes Multus, so
//! Helm keeps these objects, and they go here when no such node is left.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::DeleteParams;
use tracing::{info, warn};

use super::{Cleaner, ignore_not_found};

impl Cleaner {
    /// Deletes service account, ClusterRole and binding of this name, unless a node is as it was: `uncleaned` has their names,
    /// and is absent if it is unknown.
    pub(super) async fn remove_multus_access(
        &self,
        name: &str,
        uncleaned: Option<&[String]>,
    ) -> anyhow::Result<()> {
        let namespace = &self.namespace;
        if name.is_empty() {
            info!("Multus' service account and rights are kept, because it stays on the nodes");
            return Ok(());
        }
        if uncleaned != Some(&[]) {
            warn!(
                nodes = ?uncleaned.unwrap_or_default(),
                "nodes were not cleaned and may have 00-multus.conf: Multus' service account and rights are kept, because no pod would start there without them. With them, pods start until the token in spiderpool.kubeconfig expires. Nodes that never had an agent can be ignored. Remove 00-multus.conf from these nodes, then: kubectl delete clusterrolebinding,clusterrole {name}; kubectl delete serviceaccount --namespace {namespace} {name}"
            );
            return Ok(());
        }
        let (client, parameters) = (self.kube.client(), DeleteParams::default());
        let bindings = Api::<ClusterRoleBinding>::all(client.clone());
        ignore_not_found(self.kube.write(bindings.delete(name, &parameters)).await)?;
        let roles = Api::<ClusterRole>::all(client.clone());
        ignore_not_found(self.kube.write(roles.delete(name, &parameters)).await)?;
        let accounts = Api::<ServiceAccount>::namespaced(client, namespace);
        ignore_not_found(self.kube.write(accounts.delete(name, &parameters)).await)?;
        Ok(())
    }
}
