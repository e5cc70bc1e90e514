//! Ways to talk to a cluster: kubectl, Helm, a client.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use kube::Client;

use super::{Cluster, in_parallel, plane};
use crate::control_plane::access;
use crate::kubectl::Kubectl;
use crate::namespaces::Namespaces;
use crate::{process, tools};

impl Kubectl for Cluster {
    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(tools::kubernetes("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.folder.path().join("kubectl"))
            .args(arguments);
        self.api_namespaces().output_with_input(&command, input)
    }
}

impl Cluster {
    /// The kubeconfig file of an administrator. The API server is reached from [`Self::api_namespaces`] only.
    pub fn kubeconfig(&self) -> PathBuf {
        plane::admin(&self.folder.pki())
    }

    /// The control plane's network, with the files of this machine.
    pub fn api_namespaces(&self) -> Namespaces {
        self.network.fabric.network()
    }

    /// An administrator's client, for a thread that entered [`Self::api_namespaces`].
    pub async fn client(&self) -> Result<Client> {
        access::client(&self.kubeconfig()).await
    }

    /// Runs `work` with a client on a thread and a runtime of its own, in the control plane's network.
    pub fn with_client<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        access::with_client(Some(&self.api_namespaces()), &self.kubeconfig(), work)
    }

    /// Runs Helm as administrator; its output.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::kubernetes("helm")?);
        self.export(&mut command);
        self.api_namespaces().run(|| process::output(command.args(arguments)))
    }

    /// Tells kubectl and Helm in `command`'s environment where the cluster is and where they may write.
    pub fn export(&self, command: &mut Command) {
        let helm = self.folder.path().join("helm");
        command.env("KUBECONFIG", self.kubeconfig());
        for kind in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{kind}_HOME"), helm.join(kind.to_lowercase()));
        }
    }

    /// Imports an image archive on every node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.canonicalize().with_context(|| archive.display().to_string())?;
        in_parallel(&self.nodes, |node| node.load_image(&archive)).map(drop)
    }
}
