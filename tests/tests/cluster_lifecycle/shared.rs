//! Clusters that the tests share: each test has one for itself while it runs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use spiderpool_tests::cluster::{Cluster, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::{privilege, release};

/// The tests wait more than they compute, so two of them at a time load a small machine well.
const CLUSTERS: usize = 2;

/// Clusters that no test uses. Not more than [`CLUSTERS`] exist, and they end with the process.
static IDLE: Mutex<Idle> = Mutex::new(Idle { clusters: Vec::new(), unmade: CLUSTERS });
static RETURNED: Condvar = Condvar::new();

struct Idle {
    clusters: Vec<Cluster>,
    unmade: usize,
}

/// A turn on a cluster, which begins with one that another test has left, or without any.
struct Turn(Option<Cluster>);

impl Turn {
    fn take() -> Self {
        let mut idle = idle();
        loop {
            if let Some(cluster) = idle.clusters.pop() {
                return Self(Some(cluster));
            }
            if idle.unmade > 0 {
                idle.unmade -= 1;
                return Self(None);
            }
            idle = RETURNED.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut idle = idle();
        match self.0.take() {
            Some(cluster) => idle.clusters.push(cluster),
            None => idle.unmade += 1,
        }
        RETURNED.notify_one();
    }
}

fn idle() -> MutexGuard<'static, Idle> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `test` on a cluster, alone; skips it where it cannot run. The cluster has two nodes, Spiderpool, the network
/// [`release::NETWORK`] and no Deployments.
pub(crate) fn on_cluster(name: &str, test: impl FnOnce(&mut Cluster) -> Result<()>) {
    if !privilege::root_or_skip(name) {
        return;
    }
    let mut turn = Turn::take();
    let outcome = turn.0.take().map_or_else(set_up, Ok).and_then(|mut cluster| {
        let outcome = test(&mut cluster).and_then(|()| tidy(&cluster));
        if outcome.is_ok() {
            turn.0 = Some(cluster);
        } else if let Err(left) = cluster.down() {
            // What a test that fails leaves costs no other test.
            eprintln!("{name}: its cluster is left: {left:#}");
        }
        outcome
    });
    if let Err(error) = outcome {
        panic!("{name}: {error:#}");
    }
}

fn set_up() -> Result<Cluster> {
    let cluster = Cluster::up(&Options::default())?;
    release::load_images(&cluster)?;
    release::install(&cluster, &[])?;
    release::apply_network(&cluster)?;
    Ok(cluster)
}

fn tidy(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "deployments,statefulsets", "--all", "--wait=true"])?;
    cluster.kubectl(&["delete", "pods", "--all", "--wait=true", "--grace-period=1"]).map(drop)
}
