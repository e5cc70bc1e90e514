//! `spiderpool-controller clean`: takes Spiderpool from the nodes and from the API, before its chart is uninstalled.
//!
//! A step that fails does not keep the others from running; all failures are reported at the end. What running pods
//! still need stays, and that is no failure.

mod crds;
mod multus;
mod nodes;
mod objects;
mod plan;
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use spiderpool_api::node_lease;
use spiderpool_runtime::environment::{required, seconds, trimmed};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes, Preconditions};
use spiderpool_runtime::leader::{self, ElectionConfig, Timing};
use spiderpool_runtime::logging::{self, Level};
use tracing::{error, info};

use crate::replica::LEASE;

/// The holder of the Lease meanwhile.
const IDENTITY: &str = "spiderpool-controller-clean";
/// How long no controller leads if this process ends before it has finished.
const LEASE_DURATION: Duration = Duration::from_mins(10);

/// Arguments of `spiderpool-controller clean`.
#[derive(Debug, Clone, Args)]
pub struct Clean {
    /// debug, info, warn, error, fatal or panic.
    #[arg(long, env = "SPIDERPOOL_LOG_LEVEL", default_value = "info", value_parser = trimmed::<Level>)]
    log_level: Level,
    /// Spiderpool's namespace.
    #[arg(long, env = "SPIDERPOOL_POD_NAMESPACE", value_parser = required)]
    pod_namespace: String,
    /// This pod: it owns what it creates. Given with its UID or not at all.
    #[arg(long, env = "SPIDERPOOL_POD_NAME", requires = "pod_uid")]
    pod_name: Option<String>,
    /// Its UID.
    #[arg(long, env = "SPIDERPOOL_POD_UID", requires = "pod_name")]
    pod_uid: Option<String>,
    /// The agents' DaemonSet.
    #[arg(long, env = "SPIDERPOOL_AGENT_NAME", value_parser = required)]
    agent_name: String,
    /// The controllers' Deployment; empty if there is none.
    #[arg(long, env = "SPIDERPOOL_CONTROLLER_NAME", default_value = "")]
    controller_name: String,
    /// The Job of spiderpool-init; empty if there is none.
    #[arg(long, env = "SPIDERPOOL_INIT_NAME", default_value = "")]
    init_name: String,
    /// Multus' service account and ClusterRole; empty if Multus stays on the nodes.
    #[arg(long, env = "SPIDERPOOL_MULTUS_NAME", default_value = "")]
    multus_name: String,
    /// Manifest of the DaemonSet whose pods clean the nodes; without it the nodes are not cleaned.
    #[arg(long = "clean-node-manifest", env = "SPIDERPOOL_CLEAN_NODE_MANIFEST", value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Seconds that each step may wait; five do, and the chart's Job ends after 270 seconds.
    #[arg(long, env = "SPIDERPOOL_CLEAN_STEP_LIMIT", default_value = "40", value_parser = seconds)]
    step_limit: Duration,
}

impl Clean {
    fn own_pod(&self) -> Option<OwnPod<'_>> {
        Some(OwnPod { name: self.pod_name.as_deref()?, uid: self.pod_uid.as_deref()? })
    }
}

/// The pod that this runs in.
#[derive(Debug, Clone, Copy)]
struct OwnPod<'a> {
    name: &'a str,
    uid: &'a str,
}

/// What the steps need.
struct Cleaner {
    kube: Kubernetes,
    namespace: String,
    limit: Duration,
    problems: Vec<String>,
}

impl Cleaner {
    /// Records the failure of a step.
    fn record(&mut self, step: &str, outcome: anyhow::Result<()>) {
        if let Err(problem) = outcome {
            error!(step, problem = format!("{problem:#}"), "step failed");
            self.problems.push(format!("{step}: {problem:#}"));
        }
    }
}

/// Runs to the end.
pub async fn run(clean: Clean) -> anyhow::Result<()> {
    logging::init(clean.log_level);
    let kube = Kubernetes::connect().await?;
    let namespace = clean.pod_namespace.clone();
    let mut cleaner = Cleaner {
        kube: kube.clone(),
        namespace: namespace.clone(),
        limit: clean.step_limit,
        problems: Vec::new(),
    };

    // Nobody answers them any more in a moment, and what is deleted below would wait for that.
    let outcome = cleaner.remove_webhooks(&clean.controller_name).await;
    cleaner.record("the webhooks' configurations", outcome);
    // A leader would write again what is deleted here. One that cannot be ended loses its Lease at least.
    let outcome = cleaner.remove_controller(&clean.controller_name).await;
    cleaner.record("the controllers", outcome);
    let config = ElectionConfig {
        namespace,
        lease: LEASE.to_owned(),
        identity: IDENTITY.to_owned(),
        timing: Timing { duration: LEASE_DURATION, ..Timing::default() },
    };
    let taken = leader::take_over(&kube, config).await;
    cleaner.record("the leader's lease", taken.map_err(Into::into));
    let outcome = cleaner.remove_daemon_set(&clean.agent_name).await;
    // An agent that is left may allocate an address after they are listed.
    let agents_are_left = outcome.is_err();
    cleaner.record("the agents", outcome);
    let cleaned = cleaner.clean_nodes(clean.manifest.as_deref(), clean.own_pod()).await;
    let outcome = cleaner.remove_multus_access(&clean.multus_name, cleaned.as_deref().ok()).await;
    cleaner.record("the nodes", cleaned.map(|_| ()));
    cleaner.record("Multus' service account and rights", outcome);
    let outcome = cleaner.remove_objects().await;
    cleaner.record("the objects", outcome);
    let kept = cleaner.remove_addresses().await;
    let keep_addresses = agents_are_left || !matches!(kept, Ok(0));
    cleaner.record("the addresses", kept.map(|_| ()));
    let outcome = cleaner.remove_crds(keep_addresses).await;
    cleaner.record("the CRDs", outcome);
    let outcome = cleaner.remove_node_leases().await;
    cleaner.record("the leases of nodes", outcome);
    let outcome = cleaner.remove_job(&clean.init_name).await;
    cleaner.record("the init Job", outcome);
    let outcome = cleaner.remove_lease().await;
    cleaner.record("the leader's lease", outcome);

    if !cleaner.problems.is_empty() {
        bail!("not everything could be removed: {}", cleaner.problems.join("; "));
    }
    info!("Spiderpool removed");
    Ok(())
}

impl Cleaner {
    async fn remove_job(&self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let jobs = Api::<Job>::namespaced(self.kube.client(), &self.namespace);
        ignore_not_found(self.kube.write(jobs.delete(name, &DeleteParams::background())).await)?;
        Ok(())
    }

    /// Of nodes that are not ready: their agents may run on.
    async fn remove_node_leases(&self) -> anyhow::Result<()> {
        let leases = Api::<Lease>::namespaced(self.kube.client(), &self.namespace);
        let of_node = |lease: Lease| node_lease::node(&lease).map(|_| lease.metadata);
        for meta in self.kube.pages(&leases, of_node).await?.into_iter().flatten() {
            self.kube.delete(&leases, &Preconditions::from_meta(&meta).at_any_version()).await?;
        }
        Ok(())
    }

    /// Both are called as the controllers.
    async fn remove_webhooks(&self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let (client, parameters) = (self.kube.client(), DeleteParams::default());
        let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone());
        ignore_not_found(self.kube.write(mutating.delete(name, &parameters)).await)?;
        let validating = Api::<ValidatingWebhookConfiguration>::all(client);
        ignore_not_found(self.kube.write(validating.delete(name, &parameters)).await)?;
        Ok(())
    }

    async fn remove_lease(&self) -> anyhow::Result<()> {
        let leases = Api::<Lease>::namespaced(self.kube.client(), &self.namespace);
        let Some(lease) = self.kube.read(leases.get_opt(LEASE)).await? else { return Ok(()) };
        self.kube.delete(&leases, &Preconditions::from_meta(&lease.metadata)).await?;
        Ok(())
    }
}

/// Success also where the object does not exist.
fn ignore_not_found<T>(outcome: Result<T, ApiFailure>) -> Result<(), ApiFailure> {
    match outcome {
        Err(failure) if !failure.is_not_found() => Err(failure),
        _ => Ok(()),
    }
}
