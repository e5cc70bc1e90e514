//! What was there before: it counts where nothing better can be found out now.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use spiderpool_api::crd::{CoordinatorPhase, PodCidrType, SpiderCoordinator};

use crate::leader::coordinator::cidrs::Cidrs;

/// The status that the object has, and what its spec says of CIDRs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    is_synced: bool,
    pub(super) pods: Cidrs,
    pub(super) services: Cidrs,
    /// `spec.hijackCIDR` names more than link-local addresses, which the chart lists on its own: somebody has listed the
    /// CIDRs.
    lists_cidrs: bool,
}

impl From<&SpiderCoordinator> for Before {
    fn from(coordinator: &SpiderCoordinator) -> Self {
        let status = coordinator.status.as_ref();
        let cidrs = |of: fn(&spiderpool_api::crd::SpiderCoordinatorStatus) -> &Vec<String>| {
            let nets: Vec<_> = status.into_iter().flat_map(of).filter_map(|text| text.parse().ok()).collect();
            Cidrs::from(nets)
        };
        let listed = coordinator.spec.settings.hijack_cidr.iter().flatten();
        Self {
            is_synced: status.is_some_and(|status| status.phase == CoordinatorPhase::Synced),
            pods: cidrs(|status| &status.overlay_pod_cidr),
            services: cidrs(|status| &status.service_cidr),
            lists_cidrs: listed.filter_map(|text| text.parse().ok()).any(|net| !is_link_local(net)),
        }
    }
}

impl Before {
    /// Whether pods could start, with CIDRs of this type. Those of a type that was left may be kept, too: the status does
    /// not say what they are of.
    pub(super) fn was_synced(&self, kind: PodCidrType) -> bool {
        self.is_synced && (kind == PodCidrType::Auto || !self.pods.nets.is_empty())
    }

    /// Whether pods could start although the cluster's pod CIDRs were not known, or could by what the spec says.
    pub(super) fn does_without_cidrs(&self) -> bool {
        self.lists_cidrs || (self.is_synced && self.pods.nets.is_empty())
    }
}

/// An address without a prefix is written so, too; it is not parsed, and is not a network of pods.
fn is_link_local(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_link_local() && net.prefix_len() >= LINK_LOCAL_V4.prefix_len(),
        IpNet::V6(net) => LINK_LOCAL_V6.contains(&net),
    }
}

const LINK_LOCAL_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16);
const LINK_LOCAL_V6: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
