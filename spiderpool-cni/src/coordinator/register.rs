//! Tells the agent of the pod's NICs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spiderpool_api::agent::dataplane::{Attachment, DefaultRoutes, Nic, NicRole, RegisterNics, RouteRank};
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{
    Config, NamespaceState, gateways, own_policy_routes, unsteered_destinations,
};
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::Link;
use spiderpool_net::netns::NetNs;

use super::ebpf::Planned;
use super::setup::PodMode;
use crate::env::Request;
use crate::error::PluginError;
use crate::netns::open_netns;

/// What the registration is made from.
pub(super) struct Registration<'a> {
    pub(super) request: &'a Request,
    pub(super) netns: &'a NetNs,
    pub(super) network: &'a str,
    pub(super) config: &'a Config,
    /// The pod with its node link.
    pub(super) pod: &'a NamespaceState,
    pub(super) planned: &'a Planned,
    /// NICs of earlier attachments that have programs.
    pub(super) others: &'a [IfName],
}

/// The attachment, by which it is deleted again.
pub(super) fn attachment(request: &Request, network: &str) -> Attachment {
    Attachment {
        container_id: request.container_id.clone(),
        network: network.to_owned(),
        if_name: request.nic.clone(),
    }
}

impl Registration<'_> {
    pub(super) fn body(&self) -> Result<RegisterNics, PluginError> {
        let (config, Planned { link, cluster_nic, .. }) = (self.config, self.planned);
        let mut nics = Vec::new();
        if self.planned.mode == PodMode::Overlay {
            nics.push(self.nic(cluster_nic, NicRole::Cluster, Some(self.planned.peer))?);
        }
        let mut node_link = self.nic(&link.pod, NicRole::NodeLink, Some(link.host_mac))?;
        // What the pod sends with vethLinkAddress leaves by veth0. sp0's address is nobody's source.
        node_link.addresses =
            link.address.into_iter().filter(|_| self.planned.mode == PodMode::Underlay).collect();
        nics.push(node_link);
        let mut underlay: Vec<&IfName> = [&self.request.nic].into_iter().chain(self.others).collect();
        // By its place the agent knows the first NIC of an underlay pod.
        underlay.sort_by_key(|nic| **nic != config.first_nic);
        for nic in underlay {
            nics.push(self.nic(nic, NicRole::Underlay, None)?);
        }
        let mut stay = unsteered_destinations(&self.pod.routes, cluster_nic);
        let gateways = gateways(&self.pod.routes).into_iter();
        let by_underlay = gateways.filter(|(dev, _)| *dev != cluster_nic && **dev != link.pod);
        let mut gateways: BTreeSet<IpAddr> = by_underlay.map(|(_, gateway)| gateway).collect();
        for route in own_policy_routes(config, self.pod, &self.request.nic) {
            gateways.insert(route.gw);
            if !stay.contains(&route.dst) {
                stay.push(route.dst);
            }
        }
        Ok(RegisterNics {
            attachment: attachment(self.request, self.network),
            pod: self.request.pod()?.clone(),
            pod_uid: self.request.pod_uid.clone(),
            netns: self.request.netns.clone(),
            open_netns: open_netns(self.netns),
            nics,
            stay,
            gateways,
            own_cidrs: config.own_cidrs.clone(),
            route_hints: config.route_hints,
            node_link: config.node_link,
        })
    }

    fn nic(&self, name: &IfName, role: NicRole, peer_mac: Option<MacAddr>) -> Result<Nic, PluginError> {
        let link: &Link = self.pod.link(name).ok_or_else(|| PluginError::NoDevice(name.clone()))?;
        Ok(Nic {
            name: name.clone(),
            role,
            ifindex: link.index,
            mac: link.mac.ok_or_else(|| Unsupported::LinkLayer(name.clone()))?,
            peer_mac,
            mtu: link.mtu,
            addresses: self.pod.usable_addresses(name),
            default_routes: DefaultRoutes {
                v4: self.default_route(name, Family::V4),
                v6: self.default_route(name, Family::V6),
            },
        })
    }

    /// The default route by a NIC as it will be: the plan moves them.
    fn default_route(&self, name: &IfName, family: Family) -> Option<RouteRank> {
        let routes = &self.pod.routes;
        let has_one = routes.iter().any(|r| r.is_default() && r.family() == family && r.dev == *name);
        let owner = self.config.preference(&self.request.nic).owner(routes, family);
        has_one.then(|| if owner == Some(name) { RouteRank::Used } else { RouteRank::Backup })
    }
}
