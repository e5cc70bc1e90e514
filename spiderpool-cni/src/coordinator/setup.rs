//! What is to be done with a NIC.

use spiderpool_core::coordinator::{
    Config, Dataplane, NamespaceState, Setup, VETH0, decide_setup, pod_dataplane,
};
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::Netlink;
use spiderpool_net::tc::Direction;

use crate::error::PluginError;

/// What steers the packets of a NIC's pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Programs.
    Ebpf(PodMode),
    /// Rules and tables.
    Policy(PodMode),
}

/// What kind of pod it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PodMode {
    /// An overlay pod.
    Overlay,
    /// A pod whose first NIC is on the underlay.
    Underlay,
}

/// What ADD does with the NIC, and CHECK looks at. `netlink` is the pod's.
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
    let mode = match setup {
        Setup::Nothing => return Ok(None),
        Setup::Underlay => PodMode::Underlay,
        Setup::Overlay => PodMode::Overlay,
    };
    Ok(Some(match pod_dataplane(pod, has_programs, config.dataplane) {
        Dataplane::Ebpf => Task::Ebpf(mode),
        Dataplane::Policy => Task::Policy(mode),
    }))
}
