//! A node's agent, which may be killed while it is asked.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use spiderpool_api::agent::path;
use spiderpool_tests::standalone_agent::StandaloneAgent;
use tokio::sync::RwLock;

/// One node's.
pub(crate) struct Agent {
    node: String,
    folder: PathBuf,
    kubeconfig: PathBuf,
    process: RwLock<Option<StandaloneAgent>>,
}

impl Agent {
    /// Not started.
    pub(crate) fn new(node: String, folder: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { node, folder, kubeconfig, process: RwLock::default() }
    }

    /// Its node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// A request of the IPAM plugin.
    pub(crate) async fn ask(&self, method: Method, body: &Value) -> Result<Value> {
        let process = self.process.read().await;
        process.as_ref().context("the agent is down")?.ask(method, path::IP, body).await?.ok()
    }

    /// Kills it where it stands, whatever it does.
    pub(crate) async fn kill(&self) {
        if let Some(process) = self.process.read().await.as_ref() {
            signal(process.id(), Signal::SIGKILL);
        }
    }

    /// Starts it. It needs the API server.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut process = self.process.write().await;
        drop(process.take());
        *process = Some(StandaloneAgent::start(&self.folder, &self.node, &self.kubeconfig).await?);
        Ok(())
    }
}

/// Sends a signal to a process that this one has started.
pub(crate) fn signal(process: u32, signal: Signal) {
    // It may have ended.
    let _gone = kill(Pid::from_raw(process.cast_signed()), signal);
}
