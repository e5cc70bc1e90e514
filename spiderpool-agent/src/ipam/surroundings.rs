//! What is around a pod and decides about its pools: its namespace and its node, from the watches or, where these are
//! behind, from the API server.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use spiderpool_core::ipam::Labels;
use spiderpool_core::names::NodeName;
use spiderpool_runtime::kubernetes::Kubernetes;

use super::error::AllocateError;
use crate::watches::{NamespaceIndex, NamespaceMeta, OwnNodeIndex, Shared};

/// Finds them.
pub(super) struct Surroundings {
    pub(super) kube: Kubernetes,
    pub(super) node: NodeName,
    pub(super) own_node: Shared<OwnNodeIndex>,
    pub(super) namespaces: Shared<NamespaceIndex>,
}

impl Surroundings {
    /// The namespace; as one without labels and annotations if it is gone.
    pub(super) async fn namespace(&self, name: &str) -> Result<NamespaceMeta, AllocateError> {
        if let Some(known) = self.namespaces.read(|index| index.get(name)) {
            return Ok(known);
        }
        let api = Api::<Namespace>::all(self.kube.client());
        let read = self.kube.read(api.get_metadata_opt(name)).await;
        let read =
            read.map_err(|source| AllocateError::ReadNamespace { namespace: name.to_owned(), source })?;
        Ok(read.map(|object| object.metadata.into()).unwrap_or_default())
    }

    /// The labels of the agent's node; `None` if there is no such Node.
    pub(super) async fn node_labels(&self) -> Result<Option<Arc<Labels>>, AllocateError> {
        if let Some(known) = self.own_node.read(OwnNodeIndex::get) {
            return Ok(Some(known.labels));
        }
        let api = Api::<Node>::all(self.kube.client());
        let read = self.kube.read(api.get_metadata_opt(self.node.as_str())).await;
        let read = read.map_err(|source| AllocateError::ReadNode { node: self.node.clone(), source })?;
        Ok(read.map(|object| Arc::new(object.metadata.labels.unwrap_or_default())))
    }
}
