//! Whom a plugin stands in for.

/// Whom the plugin stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Calico
    Calico,
    /// Cilium
    Cilium,
}

impl Kind {
    /// By the name of the executable.
    pub fn of_program(name: &str) -> Option<Self> {
        match name {
            // By its own name where the configuration is as Calico installs it.
            "calico-like" | "calico" => Some(Self::Calico),
            "cilium-like" => Some(Self::Cilium),
            _ => None,
        }
    }
}
