//! The kinds that have webhooks.

/// A kind of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    IpPool,
    ReservedIp,
    Coordinator,
    MultusConfig,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::IpPool, Self::ReservedIp, Self::Coordinator, Self::MultusConfig];

    /// The last part of its paths, as upstream has them.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::IpPool => "spiderippool",
            Self::ReservedIp => "spiderreservedip",
            Self::Coordinator => "spidercoordinator",
            Self::MultusConfig => "spidermultusconfig",
        }
    }
}
