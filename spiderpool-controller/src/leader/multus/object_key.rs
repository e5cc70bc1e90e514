//! The name of a namespaced object.

use kube::ResourceExt as _;
use spiderpool_api::crd::SpiderMultusConfig;

/// A namespaced object of some kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectKey {
    pub(super) fn of(config: &SpiderMultusConfig) -> Self {
        Self { namespace: config.namespace().unwrap_or_default(), name: config.name_any() }
    }
}
