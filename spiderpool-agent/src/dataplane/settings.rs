//! Where the eBPF dataplane finds and leaves what.

use std::path::PathBuf;

use spiderpool_dataplane::Sizes;

/// Where programs and maps are.
#[derive(Debug, Clone)]
pub struct DataplaneSettings {
    /// The eBPF object.
    pub object: PathBuf,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// The mount namespace in which plugins look for the pins, if it is another one.
    pub mount_namespace: Option<PathBuf>,
    /// How many entries the maps have.
    pub sizes: Sizes,
}
