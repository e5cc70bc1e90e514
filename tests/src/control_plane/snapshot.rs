//! What etcd has at a moment, and the way back to it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};

use super::{ControlPlane, Kind, START_LIMIT, STOP_LIMIT};
use crate::{poll, process};

/// A copy of the data of an etcd that was stopped for it. It lives as long as its control plane.
#[derive(Debug)]
pub struct Snapshot(PathBuf);

impl ControlPlane {
    /// Copies what etcd has. The API server waits for it meanwhile.
    pub fn take_snapshot(&mut self) -> Result<Snapshot> {
        static TAKEN: AtomicU16 = AtomicU16::new(0);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let snapshot = Snapshot(self.state.path().join(format!("etcd-snapshot-{number}")));
        self.stop_etcd()?;
        process::run("cp", &["-a".as_ref(), self.etcd_data().as_os_str(), snapshot.0.as_os_str()])?;
        self.start_etcd()?;
        // Its /readyz may be older than that.
        poll::until("etcd behind the API server", START_LIMIT, || {
            self.find(Kind("v1", "Namespace"), "", "default")?.context("no namespace")
        })?;
        Ok(snapshot)
    }

    /// Restarts everything with what etcd had at an earlier moment, its revision included: what has been written since was
    /// never so.
    pub fn restore_snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.kill_api_server()?;
        self.stop_etcd()?;
        let data = self.etcd_data();
        fs::remove_dir_all(&data)?;
        process::run("cp", &["-a".as_ref(), snapshot.0.as_os_str(), data.as_os_str()])?;
        self.start_etcd()?;
        self.start_api_server()
    }

    fn stop_etcd(&mut self) -> Result<()> {
        self.etcd.take().context("etcd is not running")?.terminate(STOP_LIMIT)?;
        Ok(())
    }
}
