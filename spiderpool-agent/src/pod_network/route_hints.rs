//! Route hints of running pods, renewed when destinations change.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_core::coordinator::{Namespace, Step};
use spiderpool_core::dataplane::{HintInputs, plan_route_hints};
use spiderpool_net::block_on;
use spiderpool_net::executor::{Executor, MissingDevice};
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;

use super::netns::{LARGEST_DUMP, NamespaceError};
use super::record::PodRecord;

/// Makes the route hints what they should be for these destinations; answers what was done.
pub(super) fn refresh(
    netns: &NetNs,
    pod: &PodRecord,
    cidrs: &[IpNet],
    nodes: &[IpAddr],
) -> Result<Vec<Step>, NamespaceError> {
    block_on(async {
        let (Some(cluster), Some(first)) = (pod.cluster_nic(), pod.first_nic()) else {
            return Ok(Vec::new());
        };
        let mut executor = Executor::new(netns, MissingDevice::Skip)?;
        executor.netlink(Namespace::Pod).limit_dumps(LARGEST_DUMP);
        let contents = Contents { addresses: true, routes: true, ..Contents::default() };
        let present = executor.netlink(Namespace::Pod).snapshot(contents).await?;
        let steps = plan_route_hints(&HintInputs {
            cluster_nic: &cluster.nic.name,
            first_nic: &first.nic.name,
            addresses: &present.addresses,
            routes: &present.routes,
            cidrs,
            nodes,
        });
        executor.apply(&steps).await?;
        Ok(steps)
    })
}
