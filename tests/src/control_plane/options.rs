//! How a control plane is started.

/// Whether etcd waits for the disk. Only benchmarks want it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every write is on disk before it is acknowledged, as in production.
    Fsync,
    /// Writes survive a killed process, not a power cut.
    NoFsync,
}

/// Whether our CRDs are applied at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crds {
    /// Apply `charts/spiderpool/crds` and wait until they are served.
    Apply,
    /// A bare Kubernetes API.
    None,
}

/// How a control plane is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// etcd's durability.
    pub durability: Durability,
    /// Our custom resources.
    pub crds: Crds,
    /// Service CIDRs, IPv4 first.
    pub service_cidrs: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::NoFsync,
            crds: Crds::Apply,
            service_cidrs: vec!["10.96.0.0/16".into(), "fd96::/112".into()],
        }
    }
}
