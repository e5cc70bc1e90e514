//! Ways to the API server of a cluster, as administrator: kubectl, Helm, a client.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use kube::Client;

use super::folder::Folder;
use crate::control_plane::{Identity, access};
use crate::kubectl::{Kubectl, NO_GARBAGE};
use crate::namespaces::Namespaces;
use crate::{process, tools};

/// The administrator.
pub(super) const ADMIN: &str = "admin";

/// An administrator's access to the API server.
#[derive(Debug)]
pub(super) struct ApiAccess {
    kubeconfig: PathBuf,
    folder: PathBuf,
    network: Namespaces,
}

impl ApiAccess {
    /// `network` is the control plane's, with the files of this machine.
    pub(super) fn new(folder: &Folder, network: Namespaces) -> Self {
        let kubeconfig = Identity::of(&folder.pki(), ADMIN).kubeconfig();
        Self { kubeconfig, folder: folder.path().to_owned(), network }
    }

    /// The administrator's kubeconfig file.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// A client, for a thread that is in the control plane's network.
    pub(super) async fn client(&self) -> Result<Client> {
        access::client(&self.kubeconfig).await
    }

    /// Runs `work` with a client on a thread and a runtime of its own, in the control plane's network.
    pub(super) fn with_client<T: Send>(
        &self,
        work: impl AsyncFnOnce(Client) -> Result<T> + Send,
    ) -> Result<T> {
        access::with_client(Some(&self.network), &self.kubeconfig, work)
    }

    /// Runs Helm; its output.
    pub(super) fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::kubernetes("helm")?);
        self.export(&mut command);
        self.network.run(|| process::output(command.args(arguments)))
    }

    /// Sets in `command`'s environment where kubectl and Helm find the cluster, and where they may write.
    pub(super) fn export(&self, command: &mut Command) {
        let helm = self.folder.join("helm");
        command.env("KUBECONFIG", &self.kubeconfig);
        for kind in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{kind}_HOME"), helm.join(kind.to_lowercase()));
        }
    }
}

impl Kubectl for ApiAccess {
    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(tools::kubernetes("kubectl")?);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--cache-dir").arg(self.folder.join("kubectl")).args(arguments);
        command.env(NO_GARBAGE.0, NO_GARBAGE.1);
        self.network.output_with_input(&command, input)
    }
}
