//! What is to be done with a NIC.

use spiderpool_core::coordinator::{
    Config, Dataplane, Namespace, NamespaceState, Setup, VETH0, decide_setup, pod_dataplane, veth0_of,
};
use spiderpool_net::executor::Executor;
use spiderpool_net::tc::Direction;

use crate::env::Request;
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

/// What ADD does with the NIC, and CHECK looks at.
pub(super) async fn task(
    executor: &mut Executor<'_>,
    request: &Request,
    config: &Config,
    pod: &NamespaceState,
) -> Result<Option<Task>, PluginError> {
    let nic = &request.nic;
    let has_programs = has_programs(executor, request, config, pod).await?;
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

/// Whether the pod has our programs: on its first NIC, or at the host end of veth0, which nobody in the pod can take away.
async fn has_programs(
    executor: &mut Executor<'_>,
    request: &Request,
    config: &Config,
    pod: &NamespaceState,
) -> Result<bool, PluginError> {
    if let Some(first) = pod.link(&config.first_nic)
        && executor.netlink(Namespace::Pod).own_filter(first.index, Direction::Egress).await?.is_some()
    {
        return Ok(true);
    }
    if !pod.has_link(VETH0) {
        return Ok(false);
    }
    let link = veth0_of(request.container_id.as_str(), config)?;
    let node = executor.netlink(Namespace::Node);
    let Some(host_end) = node.link_by_name(&link.host).await? else { return Ok(false) };
    Ok(node.own_filter(host_end.index, Direction::Ingress).await?.is_some())
}
