//! Which destinations are steered to the cluster NIC: the entries of `cluster_cidrs`, by profile.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::crd::SpiderCoordinator;
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_dataplane::{CidrAction, CidrKind};
use tracing::warn;

/// What distinguishes one pod's set of CIDRs from another's. Almost all pods of a node share one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileKey {
    connected: BTreeSet<IpNet>,
    routes: BTreeSet<IpNet>,
    own: OwnCidrs,
}

impl ProfileKey {
    /// From what must stay (told apart by whether it is a subnet of a NIC) and what must be steered, as far as the
    /// pod's network says that itself.
    pub fn new(stay: BTreeSet<IpNet>, connected: &BTreeSet<IpNet>, own: OwnCidrs) -> Self {
        let (connected, routes) = stay.into_iter().partition(|net| connected.contains(net));
        Self { connected, routes, own }
    }

    /// Whether the cluster's own CIDRs are part of it.
    pub fn needs_cluster(&self) -> bool {
        self.own.needs_cluster()
    }
}

/// What SpiderCoordinator says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterCidrs {
    /// Service CIDRs.
    pub service: Vec<IpNet>,
    /// Overlay pod CIDRs.
    pub pod: Vec<IpNet>,
    /// `hijackCIDR`.
    pub hijack: Vec<IpNet>,
}

impl ClusterCidrs {
    /// From spec and status; what does not parse is left out with a warning.
    pub fn of(coordinator: &SpiderCoordinator) -> Self {
        let status = coordinator.status.as_ref();
        let list = |texts: Option<&Vec<String>>, field| parse(texts.map_or(&[], Vec::as_slice), field);
        Self {
            service: list(status.map(|status| &status.service_cidr), "status.serviceCIDR"),
            pod: list(status.map(|status| &status.overlay_pod_cidr), "status.overlayPodCIDR"),
            hijack: list(Some(&coordinator.spec.hijack_cidr), "spec.hijackCIDR"),
        }
    }

    /// All of them, but those in whose place a pod's network names its own.
    pub fn with(&self, own: &OwnCidrs) -> Vec<IpNet> {
        let cidrs = plan_kinds(self, own).into_iter();
        cidrs.flat_map(|(nets, _)| nets).collect()
    }
}

fn parse(texts: &[String], field: &'static str) -> Vec<IpNet> {
    let net = |text: &String| {
        let net =
            text.parse::<IpNet>().or_else(|error| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error));
        net.inspect_err(
            |error| warn!(field, %text, %error, "CIDR of SpiderCoordinator is invalid and left out"),
        )
    };
    texts.iter().filter_map(|text| net(text).ok()).map(|net| net.trunc()).collect()
}

/// What is steered, by kind: the network's own where it names some, else the cluster's.
fn plan_kinds(cluster: &ClusterCidrs, own: &OwnCidrs) -> [(Vec<IpNet>, CidrKind); 3] {
    let choose = |own: &Option<BTreeSet<IpNet>>, cluster: &Vec<IpNet>| {
        own.as_ref().map_or_else(|| cluster.clone(), |own| own.iter().copied().collect())
    };
    [
        (choose(&own.hijack, &cluster.hijack), CidrKind::Hijack),
        (choose(&own.pod, &cluster.pod), CidrKind::Pod),
        (choose(&own.service, &cluster.service), CidrKind::Service),
    ]
}

/// The entries of one profile. Where two name the same network, the later counts: what must stay wins.
pub fn plan_cidrs(
    cluster: &ClusterCidrs,
    nodes: &[IpAddr],
    profile: &ProfileKey,
) -> Vec<(IpNet, CidrAction, CidrKind)> {
    let steer = |nets: Vec<IpNet>, kind| nets.into_iter().map(move |net| (net, CidrAction::Steer, kind));
    let stay =
        |nets: &BTreeSet<IpNet>, kind| nets.clone().into_iter().map(move |net| (net, CidrAction::Stay, kind));
    let mut plan = Vec::new();
    for (nets, kind) in plan_kinds(cluster, &profile.own) {
        plan.extend(steer(nets, kind));
    }
    plan.extend(stay(&profile.connected, CidrKind::Connected));
    plan.extend(stay(&profile.routes, CidrKind::PoolRoute));
    // A node address inside a connected subnet is the reason why programs are needed at all.
    plan.extend(steer(nodes.iter().copied().map(IpNet::from).collect(), CidrKind::Node));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn cluster() -> ClusterCidrs {
        ClusterCidrs {
            service: vec!["10.96.0.0/12".parse().unwrap()],
            pod: vec!["10.244.0.0/16".parse().unwrap()],
            hijack: vec!["169.254.20.10/32".parse().unwrap()],
        }
    }

    fn texts(profile: &ProfileKey) -> Vec<String> {
        let plan = plan_cidrs(&cluster(), &["10.6.0.1".parse().unwrap()], profile);
        plan.iter().map(|(net, action, kind)| format!("{net} {action:?} {kind:?}")).collect()
    }

    #[test]
    fn the_clusters_and_the_nodes_are_steered_the_pods_own_stay() {
        let profile = ProfileKey::new(
            nets(&["10.6.0.0/16", "192.0.2.0/24"]),
            &nets(&["10.6.0.0/16"]),
            OwnCidrs::default(),
        );
        assert_eq!(
            texts(&profile),
            [
                "169.254.20.10/32 Steer Hijack",
                "10.244.0.0/16 Steer Pod",
                "10.96.0.0/12 Steer Service",
                "10.6.0.0/16 Stay Connected",
                "192.0.2.0/24 Stay PoolRoute",
                "10.6.0.1/32 Steer Node",
            ]
        );
    }

    /// Upstream's merge is per field: naming one kind leaves the others to SpiderCoordinator.
    #[test]
    fn a_network_may_name_its_own_of_one_kind() {
        let own = OwnCidrs { hijack: Some(nets(&["172.16.0.0/12"])), ..OwnCidrs::default() };
        let profile = ProfileKey::new(nets(&[]), &nets(&[]), own.clone());
        assert_eq!(
            texts(&profile),
            [
                "172.16.0.0/12 Steer Hijack",
                "10.244.0.0/16 Steer Pod",
                "10.96.0.0/12 Steer Service",
                "10.6.0.1/32 Steer Node",
            ]
        );
        assert!(profile.needs_cluster());
        let all: Vec<_> = cluster().with(&own).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["172.16.0.0/12", "10.244.0.0/16", "10.96.0.0/12"]);
    }

    #[test]
    fn bare_addresses_and_host_bits_are_accepted_nonsense_left_out() {
        let texts = ["169.254.25.10", "fd00::1", "10.96.1.1/16", "x"].map(str::to_owned);
        let parsed: Vec<_> = parse(&texts, "f").iter().map(ToString::to_string).collect();
        assert_eq!(parsed, ["169.254.25.10/32", "fd00::1/128", "10.96.0.0/16"]);
    }
}
