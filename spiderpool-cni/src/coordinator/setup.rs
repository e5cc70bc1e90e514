//! What is to be done with a NIC.

use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{
    Config, Dataplane, NamespaceState, Setup, VETH0, decide_setup, pod_dataplane,
};
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::Netlink;
use spiderpool_net::tc::Direction;

use crate::error::PluginError;

/// A NIC's pod, and what steers its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Programs, in an overlay pod.
    Ebpf,
    /// Rules and tables.
    Policy(PolicyMode),
}

/// In what kind of pod rules and tables steer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyMode {
    /// An overlay pod.
    Overlay,
    /// A pod whose first NIC is on the underlay.
    Underlay,
}

/// What ADD does with the NIC, and CHECK looks at. `netlink` is the pod's. What is not supported yet is an error of both.
pub(super) async fn task(
    netlink: &mut Netlink,
    config: &Config,
    nic: &IfName,
    pod: &NamespaceState,
) -> Result<Option<Task>, PluginError> {
    let has_programs = match pod.link(&config.first_nic) {
        Some(first) => netlink.own_filter(first.index, Direction::Egress).await?.is_some(),
        None => false,
    };
    let setup = decide_setup(config.mode, nic, &config.first_nic, pod.has_link(VETH0))?;
    Ok(Some(match (setup, pod_dataplane(pod, has_programs, config.dataplane)) {
        (Setup::Nothing, _) => return Ok(None),
        (Setup::Underlay, Dataplane::Ebpf) => return Err(Unsupported::UnderlayMode.into()),
        (Setup::Underlay, Dataplane::Policy) => Task::Policy(PolicyMode::Underlay),
        (Setup::Overlay, Dataplane::Ebpf) => Task::Ebpf,
        (Setup::Overlay, Dataplane::Policy) => Task::Policy(PolicyMode::Overlay),
    }))
}
