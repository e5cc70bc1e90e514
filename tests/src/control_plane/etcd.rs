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
    let peer = peer_url(address, peer);
    let mut arguments = vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        "--log-level=warn".to_owned(),
    ];
    arguments.extend(membership(&peer));
    if durability == Durability::NoFsync {
        arguments.push("--unsafe-no-fsync".to_owned());
    }
    arguments
}

/// Where other members would find it.
pub(super) fn peer_url(address: &str, port: u16) -> String {
    format!("http://{address}:{port}")
}

/// The only member of a cluster, at this URL.
pub(super) fn membership(peer: &str) -> [String; 2] {
    [format!("--initial-advertise-peer-urls={peer}"), format!("--initial-cluster=default={peer}")]
}
