//! What a cluster is made from.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::matrix::ProxyMode;

/// Addresses are given by number; see `addresses`.
pub(super) const MAX_NODES: u8 = 20;
/// See [`MAX_NODES`].
const MAX_UNDERLAYS: u8 = 8;
/// Parts of it become names of interfaces' files and cgroups.
const MAX_NAME: usize = 40;

/// Which default network pods get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultCni {
    /// A stand-in for Calico.
    CalicoLike,
    /// A stand-in for Cilium.
    CiliumLike,
    /// The reference plugin.
    Ptp,
}

/// When a cluster ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Lifetime {
    /// With this process, however it ends.
    #[default]
    Process,
    /// When somebody takes it down.
    UntilDown,
}

/// How a cluster is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Options {
    /// Its name; two clusters of different names do not meet.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// The default network.
    pub cni: DefaultCni,
    /// kube-proxy's mode.
    pub proxy: ProxyMode,
    /// How many underlay networks; the nodes have a NIC in each, eth1 and so on.
    pub underlays: u8,
    /// What comes after the nodes' names, as clouds have it: `node1.DOMAIN`.
    #[serde(default)]
    pub domain: Option<String>,
    /// When it ends.
    pub lifetime: Lifetime,
}

impl Default for Options {
    fn default() -> Self {
        static INSTANCES: AtomicU32 = AtomicU32::new(1);
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("test-{}-{instance}", process::id()),
            nodes: 2,
            cni: DefaultCni::CalicoLike,
            proxy: ProxyMode::Nftables,
            underlays: 1,
            domain: None,
            lifetime: Lifetime::Process,
        }
    }
}

impl Options {
    /// The name of a node in Kubernetes.
    pub(super) fn node_name(&self, index: u8) -> String {
        let domain = self.domain.iter().flat_map(|domain| [".", domain]);
        domain.fold(format!("node{index}"), |name, part| name + part)
    }

    pub(super) fn check(&self) -> Result<()> {
        let Self { name, nodes, underlays, .. } = self;
        check_name(name)?;
        ensure!((1..=MAX_NODES).contains(nodes), "{nodes} nodes: from 1 to {MAX_NODES} are possible");
        ensure!(
            (1..=MAX_UNDERLAYS).contains(underlays),
            "{underlays} underlays: from 1 to {MAX_UNDERLAYS} are possible"
        );
        Ok(())
    }
}

/// The name becomes that of a folder, which is removed in the end: it must not lead elsewhere.
pub(super) fn check_name(name: &str) -> Result<()> {
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    ensure!(
        letters && (1..=MAX_NAME).contains(&name.len()),
        "{name:?} is no name for a cluster: up to {MAX_NAME} of a-z, 0-9 and -"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_out_of_range_are_refused() {
        let options = |name: &str, nodes, underlays| {
            Options { name: name.into(), nodes, underlays, ..Options::default() }.check()
        };
        options("two-1", 2, 1).unwrap();
        for (name, nodes, underlays) in [("", 1, 1), ("A", 1, 1), ("a/b", 1, 1), ("a", 0, 1), ("a", 1, 9)] {
            options(name, nodes, underlays).unwrap_err();
        }
    }
}
