//! The programs on a pod's NICs, attached again after a restart of the agent.

use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_dataplane::{AttachError, AttachedFilters, Programs};
use spiderpool_net::block_on;
use spiderpool_net::netlink::Netlink;
use spiderpool_net::netns::NetNs;
use tracing::debug;

use crate::pod_network::{PodRecord, netns};

/// Attaches the programs to every NIC of the pod and to the host end of its node link, in place of those that are there.
/// NICs that are gone are skipped.
pub(super) fn attach(netns: &NetNs, pod: &PodRecord, programs: &Programs) -> Result<(), AttachError> {
    block_on(async {
        attach_host_end(pod, programs).await?;
        let mut netlink = netns::connect(netns)?;
        // Programs that were attached stay when another NIC fails.
        let mut attached = AttachedFilters::default();
        for record in &pod.nics {
            // Also one that was renamed in the pod.
            let Some(link) = netlink.link_by_index(record.nic.ifindex).await? else {
                debug!(nic = %record.nic.name, container_id = %pod.container_id, "registered NIC is gone");
                continue;
            };
            attached.attach(&mut netlink, link.index, record.id, &programs.nic).await?;
        }
        Ok(())
    })
}

async fn attach_host_end(pod: &PodRecord, programs: &Programs) -> Result<(), AttachError> {
    let Some(record) = pod.nic(NicRole::NodeLink) else { return Ok(()) };
    let mut node = Netlink::open()?;
    let Some(host_end) = netns::host_end(&mut node, pod).await? else { return Ok(()) };
    AttachedFilters::default().attach(&mut node, host_end.index, record.id, &programs.host_end).await
}
