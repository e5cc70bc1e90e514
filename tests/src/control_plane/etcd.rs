//! etcd's command line.

use std::path::Path;

use anyhow::Result;

use super::{ControlPlane, Durability};
use crate::process::Process;
use crate::tools;

pub(super) fn start(plane: &ControlPlane) -> Result<Process> {
    let mut command = plane.command(&tools::kubernetes("etcd")?);
    command.args(arguments(
        &plane.address,
        [plane.ports.etcd_client, plane.ports.etcd_peer],
        &plane.state.path().join("etcd"),
        plane.options.durability,
    ));
    Process::start("etcd", &command, &plane.state.log("etcd"))
}

/// What follows the program's name; the ports are the clients' and the peers'.
pub(crate) fn arguments(
    address: &str,
    [client, peer]: [u16; 2],
    data: &Path,
    durability: Durability,
) -> Vec<String> {
    let client = format!("http://{address}:{client}");
    let peer = format!("http://{address}:{peer}");
    let mut arguments = vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".to_owned(),
    ];
    if durability == Durability::NoFsync {
        arguments.push("--unsafe-no-fsync".to_owned());
    }
    arguments
}
