//! The first stage of an ADD: what is asked for, by which pod.

use std::sync::Arc;

use spiderpool_api::agent::ipam::IpamAddArgs;
use spiderpool_api::endpoint::Lifetime;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::{DefaultRoute, IpamError, Labels, Owner, PodAnnotations, RequestedAddresses};
use spiderpool_core::names::IfName;
use spiderpool_core::subnet::Application;
use tokio_util::sync::CancellationToken;

use super::allocator::{AddressObject, Claimant};
use crate::watches::Pod;

/// A request for the addresses of a NIC, or of all NICs if the pod's annotations say so.
pub(super) struct AllocationRequest {
    /// The pod.
    pub(super) pod: Arc<Pod>,
    /// The workload at its top, or the pod itself.
    pub(super) top: OwnerRef,
    /// Its labels, and those that say what its workload is: pools that are made for one ask for them.
    pub(super) labels: Labels,
    /// What the pod's annotations ask of IPAM.
    pub(super) annotations: PodAnnotations,
    /// The NIC that is being added.
    pub(super) nic: IfName,
    /// What the CNI configuration says of the NIC's pools.
    pub(super) configured: ConfiguredPools,
    /// The addresses that the runtime asks for.
    pub(super) requested: RequestedAddresses,
    /// For whom addresses are taken.
    pub(super) claimant: Claimant,
    /// Whether the pod has what an earlier one had, of its name or of its virtual machine, and its own waits for the next one.
    pub(super) lifetime: Lifetime,
}

/// What the CNI configuration of a NIC says of its pools.
pub(super) struct ConfiguredPools {
    /// `default_ipv4_ippool`.
    pub(super) ipv4: Vec<String>,
    /// `default_ipv6_ippool`.
    pub(super) ipv6: Vec<String>,
    /// `clean_gateway`.
    pub(super) default_route: DefaultRoute,
    /// `match_master_subnet`.
    pub(super) match_master_subnet: bool,
}

impl AllocationRequest {
    /// Of a pod that may have addresses, as this owner; `top` is the workload at its top, and what it holds has this lifetime.
    /// `abandoned` is cancelled when nobody waits for the answer any more.
    pub(super) fn new(
        args: IpamAddArgs,
        pod: Arc<Pod>,
        top: OwnerRef,
        (owner, lifetime): (Owner, Lifetime),
        abandoned: CancellationToken,
    ) -> Result<Self, IpamError> {
        let mut labels = pod.labels.clone();
        labels.extend(application(&pod, &top).pod_labels());
        Ok(Self {
            annotations: PodAnnotations::parse(&pod.annotations)?,
            requested: RequestedAddresses::new(&args.if_name, &args.requested_ips)?,
            nic: args.if_name.clone(),
            configured: ConfiguredPools {
                ipv4: args.default_ipv4_ip_pool.unwrap_or_default(),
                ipv6: args.default_ipv6_ip_pool.unwrap_or_default(),
                default_route: if args.clean_gateway { DefaultRoute::Clean } else { DefaultRoute::Keep },
                match_master_subnet: args.match_master_subnet,
            },
            claimant: Claimant {
                owner: Arc::new(owner),
                container_id: args.container_id,
                nic: args.if_name,
                // An object without a network reads as one with an empty one.
                network: args.network.filter(|network| !network.is_empty()).map(Arc::from),
                grace: pod.grace,
                abandoned,
            },
            pod,
            top,
            labels,
            lifetime,
        })
    }

    /// The workload, as pools name it that are made for one.
    pub(super) fn application(&self) -> Application {
        application(&self.pod, &self.top)
    }

    /// Whether the object is another pod's, which uses its address while their virtual machine moves.
    pub(super) fn shares(&self, object: &AddressObject) -> bool {
        object.holding.owner.pod.uid != self.pod.identity.uid
    }

    /// Whether addresses are asked for this NIC, too.
    pub(super) fn speaks_of(&self, nic: &IfName) -> bool {
        let named = self.annotations.ippools.iter().flatten();
        self.nic == *nic || named.into_iter().any(|entry| entry.nic == *nic)
    }
}

fn application(pod: &Pod, top: &OwnerRef) -> Application {
    Application::new(&top.api_version, &top.kind, pod.identity.name.namespace(), &top.name)
}
