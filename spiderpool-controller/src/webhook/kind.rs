//! The kinds that have webhooks.

/// A kind of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    IpPool,
    Subnet,
    ReservedIp,
    Coordinator,
    MultusConfig,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::IpPool, Self::Subnet, Self::ReservedIp, Self::Coordinator, Self::MultusConfig];

    /// The last part of its paths, as upstream has them.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::IpPool => "spiderippool",
            Self::Subnet => "spidersubnet",
            Self::ReservedIp => "spiderreservedip",
            Self::Coordinator => "spidercoordinator",
            Self::MultusConfig => "spidermultusconfig",
        }
    }
}
