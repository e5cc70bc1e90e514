//! Ways to talk to a cluster: kubectl, Helm, a client, container images.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use kube::Client;

use super::Cluster;
use super::parallel::in_parallel;
use crate::kubectl::Kubectl;
use crate::namespaces::Namespaces;

impl Kubectl for Cluster {
    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.api().kubectl_with_input(arguments, input)
    }
}

impl Cluster {
    /// The kubeconfig file of an administrator. The API server is reached from [`Self::api_namespaces`] only.
    pub fn kubeconfig(&self) -> PathBuf {
        self.api().kubeconfig()
    }

    /// A folder of the cluster that every machine sees.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The control plane's network, with the files of this machine.
    pub fn api_namespaces(&self) -> Namespaces {
        self.network.fabric.network()
    }

    /// An administrator's client, for a thread that entered [`Self::api_namespaces`].
    pub async fn client(&self) -> Result<Client> {
        self.api().client().await
    }

    /// Runs `work` with a client on a thread and a runtime of its own, in the control plane's network.
    pub fn with_client<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        self.api().with_client(work)
    }

    /// Runs Helm as administrator; its output.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.api().helm(arguments)
    }

    /// Sets in `command`'s environment where kubectl and Helm find the cluster, and where they may write.
    pub fn export(&self, command: &mut Command) {
        self.api().export(command);
    }

    /// Imports an image archive on every node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
        in_parallel(&self.nodes, |node| node.load_image(&archive)).map(drop)
    }
}
