//! One cluster with Spiderpool for all tests of a binary, which take turns on it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use spiderpool_tests::cluster::{Cluster, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::{privilege, release};

/// Runs `test` on the cluster, alone; skips it where it cannot run. The cluster has two nodes, Spiderpool, the network
/// [`release::NETWORK`] and no Deployments.
pub(crate) fn on_cluster(name: &str, options: &Options, test: impl FnOnce(&mut Cluster) -> Result<()>) {
    static CLUSTER: OnceLock<Mutex<Option<Cluster>>> = OnceLock::new();
    if !privilege::root_or_skip(name) {
        return;
    }
    // A test that failed may leave something: the next one begins with what it finds, after a look.
    let mut shared = CLUSTER.get_or_init(|| Mutex::new(None)).lock().unwrap_or_else(PoisonError::into_inner);
    let run = || -> Result<()> {
        let cluster = match &mut *shared {
            Some(cluster) => {
                tidy(cluster)?;
                cluster
            }
            none => none.insert(set_up(options)?),
        };
        test(cluster)
    };
    if let Err(error) = run() {
        panic!("{name}: {error:#}");
    }
}

fn set_up(options: &Options) -> Result<Cluster> {
    let cluster = Cluster::up(options)?;
    release::load_images(&cluster)?;
    release::install(&cluster, &[])?;
    release::apply_network(&cluster)?;
    Ok(cluster)
}

/// Removes what a failed test left.
fn tidy(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "deployments", "--all", "--wait=true"])?;
    cluster.kubectl(&["delete", "pods", "--all", "--wait=true", "--grace-period=1"]).map(drop)
}
