//! Multus on the node: its configuration before those of all other plugins, and its access to the API server. Both follow
//! what changes on the node and in the cluster. Nothing here is taken back when the agent ends: pods come and go without it.

mod absent;
mod claims;
mod conf_dir;
mod error;
mod kubeconfig;
mod place;
mod removal;
mod report;
mod token;
mod withdrawal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use spiderpool_core::multus_conf::{Obstacle, Settings};
use spiderpool_runtime::backoff;
use spiderpool_runtime::environment::trimmed;
use spiderpool_runtime::health::Condition;
use spiderpool_runtime::kubernetes::Kubernetes;
use tokio_util::sync::CancellationToken;

use crate::node_events::NodeEvents;
use conf_dir::{ConfDir, Program, Written};
use error::DirError;
use kubeconfig::Access;
pub(crate) use place::Place;
pub(crate) use removal::{pods_made_until, remove_rest, withdraw};
use report::Report;
use token::Token;
pub(crate) use withdrawal::withdrawn_at;

/// How often the node's files are looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// What the chart says of Multus.
#[derive(Debug, Clone, Args)]
pub struct MultusOptions {
    /// The node's directory for CNI configuration, as the node names it. Multus is left alone if absent.
    #[arg(long, env = "SPIDERPOOL_CNI_CONF_DIR", value_name = "FOLDER")]
    pub cni_conf_dir: Option<PathBuf>,
    /// The service account by which Multus asks the API server; if empty, Multus is not to be on the node.
    #[arg(long, env = "SPIDERPOOL_MULTUS_SERVICE_ACCOUNT", default_value = "", value_parser = trimmed::<String>)]
    pub multus_service_account: String,
    /// panic, error, verbose or debug.
    #[arg(long, env = "SPIDERPOOL_MULTUS_LOG_LEVEL", default_value = "verbose", value_parser = trimmed::<String>)]
    pub multus_log_level: String,
    /// Where Multus logs, as the node names it.
    #[arg(long, env = "SPIDERPOOL_MULTUS_LOG_FILE", default_value = "/var/log/multus.log", value_parser = trimmed::<String>)]
    pub multus_log_file: String,
}

impl MultusOptions {
    /// Whether Multus is to be on the node.
    pub(crate) fn is_wanted(&self) -> bool {
        self.cni_conf_dir.is_some() && !self.multus_service_account.is_empty()
    }

    fn settings(&self, conf_dir: &Path, place: &Place) -> Settings {
        let name = place.cluster_network.rsplit('/').next().filter(|name| !name.is_empty());
        Settings {
            namespace: place.namespace.clone(),
            cluster_network: name.map(str::to_owned),
            conf_dir: conf_dir.display().to_string(),
            kubeconfig: conf_dir.join(kubeconfig::FILE).display().to_string(),
            log_level: self.multus_log_level.clone(),
            log_file: self.multus_log_file.clone(),
        }
    }
}

/// Keeps Multus' files until the shutdown; takes them away if Multus is not to be there.
pub(crate) async fn keep(
    options: MultusOptions,
    place: Place,
    kube: Kubernetes,
    events: NodeEvents,
    settled: Option<Condition>,
    shutdown: CancellationToken,
) {
    let Some(conf_dir) = options.cni_conf_dir.clone() else { return };
    let dir = place.on_host(&conf_dir);
    let account = &options.multus_service_account;
    if account.is_empty() {
        shutdown.run_until_cancelled(absent::run(dir, place, kube, events)).await;
        return;
    }
    let mut report = Report::new(events);
    let program = place.cni_bin.clone().map(|folder| Program { host: place.host.clone(), folder });
    let mut token = Token::new(&place.namespace, account);
    let account = format!("system:serviceaccount:{}:{account}", place.namespace);
    let mut dir = ConfDir::new(dir, options.settings(&conf_dir, &place), account, program);
    loop {
        // Without a new one the kubeconfig that is there stays.
        let refreshed = shutdown.run_until_cancelled(token.refresh(&kube)).await;
        let Some(refreshed) = refreshed else { return };
        report.token(&refreshed);
        let access = token.current().map(Access::in_pod);
        let ran = tokio::task::spawn_blocking(move || {
            let access = access.transpose();
            let outcome = access.and_then(|access| dir.run(access.as_ref()));
            (dir, outcome)
        });
        let Ok((after, outcome)) = ran.await else { return };
        dir = after;
        report.files(&outcome);
        if let Some(settled) = settled.as_ref().filter(|_| is_settled(&outcome)) {
            settled.met();
        }
        let pause = pause(&outcome, report.fights());
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Whether the agent may be ready. A pod that is made earlier would start without its further NICs. For a default CNI, which
/// may need a ready agent, and for the end of another Multus nobody waits.
fn is_settled(outcome: &Result<Written, DirError>) -> bool {
    let Err(error) = outcome else { return true };
    matches!(error, DirError::Obstacle(Obstacle::NoDefaultNetwork { .. } | Obstacle::OtherMultus { .. }))
}

/// Longer the more often somebody else has taken the file away: else two programs would keep the runtime reading.
fn pause(outcome: &Result<Written, DirError>, fights: u32) -> Duration {
    match outcome {
        Ok(Written::Again | Written::RenamedByCilium) => {
            PERIOD.saturating_mul(2_u32.saturating_pow(fights.min(5))).min(backoff::MAX_PAUSE)
        }
        _ => PERIOD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pods would start without their further NICs, and nobody would hear of it.
    #[test]
    fn an_agent_whose_multus_cannot_work_is_not_ready() {
        let unreadable = Obstacle::Unreadable { file: "10-a.conf".to_owned(), why: "half".to_owned() };
        for error in
            [unreadable.into(), DirError::NoAccess, DirError::NoProgram("/opt/cni/bin/multus".into())]
        {
            assert!(!is_settled(&Err(error)));
        }
        let none = Obstacle::NoDefaultNetwork { conf_dir: String::new(), renamed: Vec::new() };
        assert!(is_settled(&Err(none.into())) && is_settled(&Ok(Written::Nothing)));
    }
}
