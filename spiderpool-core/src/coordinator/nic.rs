//! What both dataplanes do to the NIC that is added, whatever steers its packets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Config, Namespace, NamespaceState, PlanError, PolicyRoute, Step};
use crate::Unsupported;
use crate::dataplane::is_hint;
use crate::ip::Family;
use crate::names::IfName;
use crate::net::{Link, Medium, Route};

/// The NIC and its addresses.
pub(super) fn nic_of<'a>(
    pod: &'a NamespaceState,
    name: &IfName,
) -> Result<(&'a Link, Vec<IpNet>), PlanError> {
    let nic = pod.link(name).ok_or_else(|| PlanError::NoNic(name.clone()))?;
    if nic.medium != Medium::Ethernet {
        return Err(Unsupported::LinkLayer(nic.name.clone()).into());
    }
    let addresses = pod.usable_addresses(name);
    if addresses.is_empty() { Err(PlanError::NoAddress(name.clone())) } else { Ok((nic, addresses)) }
}

/// Refuses a NIC with an address of the node, as a static IPAM plugin may give it.
pub(super) fn check_addresses(nic: &IfName, addresses: &[IpNet], nodes: &[IpAddr]) -> Result<(), PlanError> {
    let mut addresses = addresses.iter().map(IpNet::addr);
    match addresses.find(|address| nodes.contains(address)) {
        Some(address) => Err(PlanError::NodeAddress { nic: nic.clone(), address }),
        None => Ok(()),
    }
}

/// Sets the NIC up, and gives it its MAC and queue.
pub(super) fn plan_nic(
    config: &Config,
    nic: &Link,
    addresses: &[IpNet],
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let dev = nic.name.clone();
    if !nic.up {
        steps.push(Step::SetUp { namespace: Namespace::Pod, dev: dev.clone() });
    }
    let wanted = config.mac_prefix.zip(addresses.first()).map(|(prefix, net)| prefix.mac(net.addr()));
    if let Some(mac) = wanted.filter(|mac| nic.mac != Some(*mac)) {
        if nic.kind == "ipvlan" {
            return Err(PlanError::IpvlanMac(dev));
        }
        // The kernel announces the addresses with the new MAC.
        for (family, name) in [(Family::V4, "arp_notify"), (Family::V6, "ndisc_notify")] {
            if family.is_among(addresses) {
                steps.push(Step::interface_sysctl(Namespace::Pod, family, dev.as_str(), name, 1));
            }
        }
        steps.push(Step::SetMac { dev: dev.clone(), mac, before: nic.mac });
    }
    if let Some(length) = config.tx_queue_len.filter(|length| nic.tx_queue_len != *length) {
        steps.push(Step::SetTxQueueLen { dev, length, before: nic.tx_queue_len });
    }
    Ok(())
}

/// Kernel parameters of the pod.
pub(super) fn plan_sysctls(config: &Config, pod: &NamespaceState, nic: &IfName, steps: &mut Vec<Step>) {
    if Family::V6.is_among(&pod.usable_addresses(nic)) {
        steps.push(Step::interface_sysctl(Namespace::Pod, Family::V6, "all", "disable_ipv6", 0));
        // The router's own default route would come back after it was moved.
        let keeps = config.default_route_nic.as_ref().unwrap_or(&config.first_nic) == nic;
        if config.tune_pod_routes && !keeps {
            steps.push(Step::interface_sysctl(
                Namespace::Pod,
                Family::V6,
                nic.as_str(),
                "accept_ra_defrtr",
                0,
            ));
        }
    }
    if let Some(value) = config.rp_filter {
        // The kernel takes the greater of `all` and the NIC's own, which came from `default`.
        let links = pod.links.iter().filter(|l| l.medium == Medium::Ethernet).map(|l| l.name.as_str());
        for dev in ["all", "default"].into_iter().chain(links) {
            steps.push(Step::interface_sysctl(Namespace::Pod, Family::V4, dev, "rp_filter", value));
        }
    }
    // A first packet with another NIC's source must not ask for the next hop in that NIC's name: a host with strict
    // rp_filter does not answer. And no NIC answers for another's address: everybody in the underlay could send to eth0's.
    // Of `all` and the NIC's own value the kernel takes the greater one.
    for (name, value) in [("arp_announce", 2), ("arp_ignore", 1)] {
        steps.push(Step::interface_sysctl(Namespace::Pod, Family::V4, "all", name, value));
    }
}

/// A NIC that never comes is a mistake; one that Multus will still add is not.
pub(super) fn check_default_route_nic(
    config: &Config,
    pod: &NamespaceState,
    expected: Option<&[IfName]>,
) -> Result<(), PlanError> {
    let (Some(wanted), Some(expected)) = (&config.default_route_nic, expected) else { return Ok(()) };
    if pod.link(wanted).is_some() || expected.contains(wanted) {
        return Ok(());
    }
    Err(PlanError::DefaultRouteNic(wanted.clone()))
}

/// Those of the policyRoutes that a NIC can have: the others' gateways are in no subnet of it.
pub fn own_policy_routes<'a>(
    config: &'a Config,
    pod: &'a NamespaceState,
    nic: &'a IfName,
) -> impl Iterator<Item = &'a PolicyRoute> {
    let is_link_local = |gw: IpAddr| matches!(gw, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let on_link = move |gw: &IpAddr| {
        let routes = pod.routes.iter().filter(|r| r.dev == *nic && r.gateway.is_none() && !r.is_default());
        routes.map(|r| r.dst).any(|net| net.contains(gw))
    };
    config.policy_routes.iter().filter(move |policy| {
        let addresses = pod.usable_addresses(nic);
        Family::of(policy.gw).is_among(&addresses)
            && (addresses.iter().any(|net| net.contains(&policy.gw))
                || on_link(&policy.gw)
                || is_link_local(policy.gw))
    })
}

/// Adds the NIC's own policyRoutes to the main table. They take the place of the routes that lead to the cluster by
/// `cluster_nic`; one that another NIC of the same subnet has, or the NIC's pool, stays.
pub(super) fn plan_policy_routes(
    config: &Config,
    pod: &NamespaceState,
    nic: &IfName,
    cluster_nic: &IfName,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for policy in own_policy_routes(config, pod, nic) {
        let (hints, others): (Vec<&Route>, Vec<&Route>) =
            pod.routes.iter().filter(|r| r.dst == policy.dst).partition(|r| is_hint(r, cluster_nic));
        if others.is_empty() {
            let gone = hints.iter().map(|hint| (**hint).clone());
            steps.extend(gone.map(|route| Step::DeleteRoute { namespace: Namespace::Pod, route }));
            let route = Route { gateway: Some(policy.gw), ..Route::new(policy.dst, nic.clone()) };
            steps.push(Step::AddRoute { namespace: Namespace::Pod, route });
        }
    }
    steps
}
