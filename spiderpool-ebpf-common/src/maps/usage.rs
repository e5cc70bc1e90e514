//! How much of the shared maps each pod has: values of `added` and `removed`.

/// Entries of one pod, by map. The programs count in `added` what they add less what they remove, the agent in `removed` what it removes, so
/// that each map has one writer: what a pod has is the difference (modulo 2^32). Two CPUs that add at once may count
/// one; the agent, which lists the maps every few seconds, sets that right.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Of `link_flows`.
    pub link_flows: u32,
}
