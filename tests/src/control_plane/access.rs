//! Ways to talk to the control plane: a client, kubectl, identities of agents.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::{ControlPlane, Crds, START_LIMIT};
use crate::kubectl::{Kubectl, NO_GARBAGE, validation};
use crate::namespaces::Namespaces;
use crate::{poll, process, tools};

/// What an agent may do, for the group that [`ControlPlane::agent`] puts its identities in.
const AGENT_RIGHTS: &str = include_str!("agent_rights.yaml");
/// The group of the agents' identities.
const AGENTS: &str = "spiderpool-agents";
/// How long the API server may take to serve our CRDs.
const CRD_LIMIT: Duration = Duration::from_secs(30);

impl Kubectl for ControlPlane {
    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        process::output_with_input(self.kubectl_command()?.args(arguments), input)
    }
}

impl ControlPlane {
    /// An administrator's client. It belongs to the tokio runtime that it is made in.
    pub async fn client(&self) -> Result<Client> {
        client(self.admin()).await
    }

    /// Runs `work` with a client on a thread and a runtime of its own, for callers that are not asynchronous.
    pub fn with_client<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        with_client(self.namespaces.as_ref(), self.admin(), work)
    }

    /// A kubeconfig file with the rights of the agent of `node`.
    pub fn agent(&self, node: &str) -> Result<PathBuf> {
        self.authority.kubeconfig(&self.url(), &format!("spiderpool-agent:{node}"), Some(AGENTS))
    }

    /// A kubeconfig file of `user`, for components of Kubernetes itself (`system:kube-proxy`).
    pub fn identity(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        self.authority.kubeconfig(&self.url(), user, group)
    }

    /// Runs kubectl as administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        Kubectl::kubectl(self, arguments)
    }

    /// Applies manifests (YAML or JSON) by server-side apply.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        Kubectl::apply(self, manifests)
    }

    fn kubectl_command(&self) -> Result<Command> {
        let mut command = self.command(&tools::kubernetes("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.admin())
            .arg("--cache-dir")
            .arg(self.state.path().join("kubectl"))
            .env(NO_GARBAGE.0, NO_GARBAGE.1);
        Ok(command)
    }

    /// Waits for `/readyz`; fails early when one of the processes ends.
    pub(super) fn wait_ready(&mut self) -> Result<()> {
        poll::until("kube-apiserver's /readyz", START_LIMIT, || {
            for process in [&mut self.etcd, &mut self.api_server].into_iter().flatten() {
                if let Err(ended) = process.check_running() {
                    return Ok(Err(ended));
                }
            }
            self.with_client(async |client| {
                let request = http::Request::get("/readyz").body(Vec::new())?;
                Ok(client.request_text(request).await?)
            })
            .map(|_| Ok(()))
        })?
    }

    /// Gives agents their rights and applies our CRDs.
    pub(super) fn set_up(&self) -> Result<()> {
        let mut arguments = vec!["apply", "--server-side", validation(), "-f", "-"];
        let folder;
        if self.options.crds == Crds::Apply {
            folder = tools::crds()?.display().to_string();
            arguments.extend(["-f", &folder]);
        }
        self.kubectl_with_input(&arguments, AGENT_RIGHTS)?;
        if self.options.crds == Crds::Apply {
            let limit = format!("--timeout={}s", poll::scaled(CRD_LIMIT).as_secs());
            self.kubectl(&["wait", "--for", "condition=Established", "crd", "--all", &limit])?;
        }
        Ok(())
    }
}

/// A client with the rights of a kubeconfig file.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Runs `work` with a client in `namespaces`, on a thread and a runtime of its own.
pub(crate) fn with_client<T: Send>(
    namespaces: Option<&Namespaces>,
    kubeconfig: &Path,
    work: impl AsyncFnOnce(Client) -> Result<T> + Send,
) -> Result<T> {
    let talk = || {
        if let Some(namespaces) = namespaces {
            namespaces.enter()?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { work(client(kubeconfig).await?).await })
    };
    thread::scope(|scope| scope.spawn(talk).join()).map_err(|_| anyhow!("the client's thread panicked"))?
}
