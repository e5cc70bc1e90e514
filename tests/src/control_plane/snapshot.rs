//! What etcd has at a moment, and the way back to it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result};

use super::{ControlPlane, Kind, START_LIMIT, STOP_LIMIT, etcd};
use crate::{poll, process, tools};

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

    /// As the documentation of etcd and Kubernetes has it: the revision is greater than any that was ever seen, and watches cannot go on
    /// from where they ended.
    pub fn restore_snapshot_with_bumped_revision(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.kill_api_server()?;
        self.stop_etcd()?;
        let data = self.etcd_data();
        fs::remove_dir_all(&data)?;
        let mut arguments = ["snapshot", "restore"].map(str::to_owned).to_vec();
        arguments.push(snapshot.0.join("member/snap/db").display().to_string());
        arguments.push(format!("--data-dir={}", data.display()));
        // It was not made by `etcdctl snapshot save`, which appends the hash.
        arguments.push("--skip-hash-check".to_owned());
        arguments.extend(["--bump-revision=1000000000", "--mark-compacted"].map(str::to_owned));
        arguments.extend(etcd::membership(&etcd::peer_url(&self.address, self.ports.etcd_peer)));
        process::run(tools::kubernetes("etcdutl")?, &arguments)?;
        self.start_etcd()?;
        self.start_api_server()
    }

    fn stop_etcd(&mut self) -> Result<()> {
        self.etcd.take().context("etcd is not running")?.terminate(STOP_LIMIT)?;
        Ok(())
    }
}
