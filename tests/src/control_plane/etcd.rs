//! etcd's command line.

use std::path::Path;

use super::options::Durability;

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
