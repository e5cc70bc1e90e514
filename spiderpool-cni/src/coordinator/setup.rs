//! What is to be done with a NIC.

use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{
    Config, Dataplane, Mode, NamespaceState, Setup, decide_setup, pod_dataplane,
};
use spiderpool_core::names::IfName;

use crate::error::PluginError;

/// By what ADD sets the NIC up, and CHECK looks at it. What is not supported yet is an error of both.
pub(super) fn needs_setup(
    config: &Config,
    nic: &IfName,
    pod: &NamespaceState,
) -> Result<Option<Dataplane>, PluginError> {
    if config.mode == Mode::Underlay {
        return Err(Unsupported::UnderlayMode.into());
    }
    match decide_setup(config.mode, nic, &config.first_nic, pod.has_link("veth0"))? {
        Setup::Nothing => Ok(None),
        Setup::Underlay => Err(Unsupported::UnderlayMode.into()),
        Setup::Overlay => Ok(Some(pod_dataplane(pod, config.dataplane))),
    }
}
