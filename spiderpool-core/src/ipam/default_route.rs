//! Whether a NIC gets the default route of its pool.

/// Whether a NIC gets a default route by its pool's gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// It does.
    #[default]
    Keep,
    /// It does not (`cleangateway`).
    Clean,
}
