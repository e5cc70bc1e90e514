//! What each pod has of the shared maps: values of `added`, `removed` and `pod_flags`.

/// Entries of one pod, by map. The programs count in `added` what they add less what they remove, the agent in `removed` what it removes, so
/// that each map has one writer: what a pod has is the difference (modulo 2^32). Two CPUs that add at once may count
/// one; the agent, which lists the maps every few seconds, sets that right.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Of `link_flows`.
    pub link_flows: u32,
    /// Of `arrivals`.
    pub arrivals: u32,
    /// Of `nat`.
    pub nat: u32,
}

/// What a pod has, or has had since its id was given out: 1, otherwise 0. What it has not is not looked for in the
/// packets of other destinations. A byte each, because two CPUs may set two of them at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodFlags {
    /// Translations.
    pub translated: u8,
    /// Translations of flows that have the cluster NIC's address already.
    pub translated_direct: u8,
    /// Flows by the node link from addresses that are not steered.
    pub link_flows: u8,
    /// Entries of `arrivals` without local address, or of clients that are not steered.
    pub any_local: u8,
}

/// One of [`PodFlags`], by its place.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodFlag {
    /// [`PodFlags::translated`].
    Translated = 0,
    /// [`PodFlags::translated_direct`].
    TranslatedDirect = 1,
    /// [`PodFlags::link_flows`].
    LinkFlows = 2,
    /// [`PodFlags::any_local`].
    AnyLocal = 3,
}

impl PodFlags {
    /// All set: nothing is known of the pod.
    pub const ALL: Self = Self { translated: 1, translated_direct: 1, link_flows: 1, any_local: 1 };

    /// Sets one.
    pub const fn set(&mut self, flag: PodFlag) {
        match flag {
            PodFlag::Translated => self.translated = 1,
            PodFlag::TranslatedDirect => self.translated_direct = 1,
            PodFlag::LinkFlows => self.link_flows = 1,
            PodFlag::AnyLocal => self.any_local = 1,
        }
    }
}
