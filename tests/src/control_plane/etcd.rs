//! etcd's command line.

use anyhow::Result;

use super::{ControlPlane, Durability};
use crate::process::Process;
use crate::tools;

pub(super) fn start(plane: &ControlPlane) -> Result<Process> {
    let client = format!("http://{}:{}", plane.address, plane.ports.etcd_client);
    let peer = format!("http://{}:{}", plane.address, plane.ports.etcd_peer);
    let mut command = plane.command(&tools::kubernetes("etcd")?);
    command
        .arg("--data-dir")
        .arg(plane.state.path().join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "warn"]);
    if plane.options.durability == Durability::NoFsync {
        command.arg("--unsafe-no-fsync");
    }
    Process::start("etcd", &command, &plane.state.log("etcd"))
}
