//! The next hops of the cluster NIC, where its host end is a port of a switch and they are other ports.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use spiderpool_core::coordinator::{NODE_LINK, NamespaceState, PeerMacs, VETH0};
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Link, Neighbor};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use tracing::warn;

use super::state::HostVeth;
use crate::error::PluginError;

/// How long next hops may take to answer.
const LIMIT: Duration = Duration::from_secs(1);
/// How long one is waited for in whose place there is what an earlier NIC has found, once the other family's is known.
const LIMIT_OF_RECORDED: Duration = Duration::from_millis(50);
/// The longest pause before the kernel is asked again what it knows.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// What of them is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextHops {
    /// Nothing: CHECK compares with what ADD has found.
    AsFound,
    /// The MAC of one, for both families.
    Any,
    /// Those of each family.
    OfEachFamily,
}

/// To which MACs the pod sends what leaves by the cluster NIC. A routed veth's host end answers for every next hop.
/// On a switch it is what the next hop answers; if that is silent, what an earlier NIC has found counts: it is in the
/// permanent neighbors that stand for the node.
pub(super) async fn peer_macs(
    netlink: &mut Netlink,
    pod: &NamespaceState,
    nodes: &[IpAddr],
    cluster_nic: &IfName,
    host_veth: &HostVeth,
    wanted: NextHops,
) -> Result<PeerMacs, PluginError> {
    let Some(nic) = pod.link(cluster_nic).filter(|_| host_veth.is_port) else {
        return Ok(PeerMacs::both(host_veth.end.mac));
    };
    let hops = hops(pod, cluster_nic);
    let recorded = |family| recorded(pod, nodes, family);
    let peers = if wanted == NextHops::AsFound {
        let known = netlink.known_neighbors(nic.index).await?;
        let of = |family| recorded(family).or_else(|| known_hop(&known, &hops, family));
        PeerMacs::of_known(of(Family::V4), of(Family::V6))
    } else {
        // What an earlier NIC's ADD has fallen back on, below, it has not found.
        let recorded = |family| recorded(family).filter(|mac| *mac != host_veth.end.mac);
        let known = ask(netlink, pod, nic, &hops, wanted, |family| recorded(family).is_some()).await?;
        let of = |family| known_hop(&known, &hops, family).or_else(|| recorded(family));
        PeerMacs::of_known(of(Family::V4), of(Family::V6))
    };
    Ok(peers.unwrap_or_else(|| {
        warn!(nic = %cluster_nic, ?hops, "no next hop is known and answers: what is sent there goes to the host veth");
        PeerMacs::both(host_veth.end.mac)
    }))
}

/// With `dataplane: policy` the NIC before may have moved the route to a table.
fn hops(pod: &NamespaceState, cluster_nic: &IfName) -> Vec<IpAddr> {
    let routes = pod.routes.iter().chain(&pod.table_routes);
    let defaults = routes.filter(|route| route.is_default() && route.dev == *cluster_nic);
    defaults.filter_map(|route| route.gateway).collect()
}

/// What an ADD has found: the neighbors that stand for the node on any NIC but the way to it.
fn recorded(pod: &NamespaceState, nodes: &[IpAddr], family: Family) -> Option<MacAddr> {
    let is_peer = |known: &&Neighbor| {
        ![NODE_LINK, VETH0].contains(&known.dev.as_str())
            && Family::of(known.address) == family
            && nodes.contains(&known.address)
    };
    pod.neighbors.iter().find(is_peer).map(|known| known.mac)
}

/// The first hop of a family whose MAC is known, in the order of the routes.
fn known_hop(known: &[Neighbor<u32>], hops: &[IpAddr], family: Family) -> Option<MacAddr> {
    let mut hops = hops.iter().filter(|hop| Family::of(**hop) == family);
    hops.find_map(|hop| known.iter().find(|known| known.address == *hop)).map(|known| known.mac)
}

/// Asks until what is wanted is known, or for as long as a next hop may take.
async fn ask(
    netlink: &mut Netlink,
    pod: &NamespaceState,
    nic: &Link,
    hops: &[IpAddr],
    wanted: NextHops,
    is_recorded: impl Fn(Family) -> bool,
) -> Result<Vec<Neighbor<u32>>, PluginError> {
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(1));
    loop {
        let known = netlink.known_neighbors(nic.index).await?;
        let is_known = |family| known_hop(&known, hops, family).is_some();
        let is_any_known = Family::ALL.into_iter().any(is_known);
        // The kernel solicits IPv6 neighbors with the link-local address, and not while that is tentative. A pod waits for it only
        // if there is nothing else: it may take longer than the next hop has.
        let solicits_v6 = has_link_local(netlink, pod, nic).await?;
        let has_other = is_any_known || Family::ALL.into_iter().any(&is_recorded);
        let is_waited_for = |hop: &&IpAddr| {
            let family = Family::of(**hop);
            let is_late = is_any_known && is_recorded(family) && begun.elapsed() >= LIMIT_OF_RECORDED;
            !is_known(family) && !is_late && (hop.is_ipv4() || solicits_v6 || !has_other)
        };
        let silent: Vec<IpAddr> = hops.iter().filter(is_waited_for).copied().collect();
        let is_enough = wanted == NextHops::Any && is_any_known;
        if is_enough || silent.is_empty() || begun.elapsed() >= LIMIT {
            return Ok(known);
        }
        for hop in silent.into_iter().filter(|hop| hop.is_ipv4() || solicits_v6) {
            netlink.solicit_neighbor(nic.index, hop).await?;
        }
        // Nobody else is served by this thread.
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn has_link_local(
    netlink: &mut Netlink,
    pod: &NamespaceState,
    nic: &Link,
) -> Result<bool, NetlinkError> {
    let tentative = netlink.tentative_addresses(nic.index).await?;
    let is_link_local = |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let mut own = pod.addresses.iter().filter(|address| address.dev == nic.name);
    Ok(own.any(|address| is_link_local(address.net.addr()) && !tentative.contains(&address.net)))
}
