//! Which destinations are steered to the cluster NIC: the entries of `cluster_cidrs`, by profile.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_dataplane::{CidrAction, CidrKind};

use crate::destinations::ClusterCidrs;
use crate::pod_network::ProfileKey;

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
    let ClusterCidrs { service, pod, hijack } = cluster.with_own(&profile.own);
    plan.extend(steer(hijack, CidrKind::Hijack));
    plan.extend(steer(pod, CidrKind::Pod));
    plan.extend(steer(service, CidrKind::Service));
    plan.extend(stay(&profile.connected, CidrKind::Connected));
    plan.extend(stay(&profile.routes, CidrKind::PoolRoute));
    // A node address inside a connected subnet is the reason why programs are needed at all.
    let (gateways, nodes): (Vec<IpAddr>, Vec<IpAddr>) =
        nodes.iter().copied().partition(|node| profile.gateways.contains(node));
    let single = |ips: Vec<IpAddr>| ips.into_iter().map(IpNet::from).collect();
    plan.extend(steer(single(nodes), CidrKind::Node));
    plan.extend(steer(single(gateways), CidrKind::NodeGateway));
    plan
}

#[cfg(test)]
mod tests {
    use spiderpool_core::dataplane::OwnCidrs;

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

    /// The program answers ARP requests for the kind Node alone.
    #[test]
    fn a_node_address_that_is_the_pods_gateway_is_of_a_kind_of_its_own() {
        let gateways = ["10.6.0.1", "10.6.0.254"].map(|ip| ip.parse().unwrap()).into();
        let profile = ProfileKey { gateways, ..ProfileKey::default() };
        let kinds: Vec<_> = texts(&profile).into_iter().filter(|text| text.starts_with("10.6.")).collect();
        assert_eq!(kinds, ["10.6.0.1/32 Steer NodeGateway"]);
    }

    /// Upstream's merge is per field: naming one kind leaves the others to SpiderCoordinator.
    #[test]
    fn a_network_may_name_its_own_of_one_kind() {
        let own = OwnCidrs { hijack: Some(nets(&["172.16.0.0/12"])), ..OwnCidrs::default() };
        let profile = ProfileKey::new(nets(&[]), &nets(&[]), own);
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
    }
}
