//! Follows what the kernel reports of the node's ends of node links, so that what others take away is put right at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use spiderpool_core::coordinator::is_host_end_name;
use spiderpool_core::names::IfName;
use spiderpool_core::net::Scope;
use spiderpool_net::block_on;
use spiderpool_net::events::{Events, NetlinkEvent};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_runtime::backoff;
use tracing::warn;

/// After more events than the socket could hold, so that whoever makes them does not make as many lists of links.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// What the kernel reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// Another program may have changed something of a host end.
    Changed(IfName, Change),
    /// The node has lost an address, not one of a link alone, of which each pod's host end has one.
    AddressGone,
}

/// What another program may have changed of a host end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is down, or a route by it is another.
    LinkOrRoute,
    /// The entry of this neighbor, which may be one that its pod has made.
    Neighbor(IpAddr),
}

/// Calls `reported` with the host ends that lost a route or a neighbor or are down, and when the node has lost an address,
/// on a thread of its own, for ever. What it misses the sweep over all pods finds.
pub fn follow(reported: impl Fn(HostEvent) + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("host-ends".to_owned()).spawn(move || {
        loop {
            let Err(error) = block_on(follow_events(&reported));
            warn!(%error, pause = ?backoff::MAX_PAUSE, "changes of node links cannot be followed, trying again");
            thread::sleep(backoff::MAX_PAUSE);
        }
    })?;
    Ok(())
}

async fn follow_events(reported: impl Fn(HostEvent)) -> Result<Infallible, NetlinkError> {
    let mut events = Events::of_routes()?;
    let mut hosts = list().await?;
    loop {
        match events.next().await? {
            NetlinkEvent::Link(link) if is_host_end_name(&link.name) => {
                hosts.insert(link.index, link.name.clone());
                if !link.up {
                    reported(HostEvent::Changed(link.name, Change::LinkOrRoute));
                }
            }
            NetlinkEvent::LinkGone(link) => drop(hosts.remove(&link.index)),
            NetlinkEvent::Route(index) => {
                if let Some(host) = hosts.get(&index) {
                    reported(HostEvent::Changed(host.clone(), Change::LinkOrRoute));
                }
            }
            NetlinkEvent::Neighbor { dev, address } => {
                if let Some(host) = hosts.get(&dev) {
                    reported(HostEvent::Changed(host.clone(), Change::Neighbor(address)));
                }
            }
            NetlinkEvent::Lost => {
                thread::sleep(AFTER_LOSS);
                hosts = list().await?;
            }
            NetlinkEvent::AddressGone(address) if address.scope == Scope::Global => {
                reported(HostEvent::AddressGone);
            }
            NetlinkEvent::Link(_) | NetlinkEvent::Address(_) | NetlinkEvent::AddressGone(_) => {}
        }
    }
}

async fn list() -> Result<BTreeMap<u32, IfName>, NetlinkError> {
    let links = Netlink::open()?.links().await?.into_iter();
    Ok(links.filter(|link| is_host_end_name(&link.name)).map(|link| (link.index, link.name)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use spiderpool_core::mac::MacAddr;
    use spiderpool_core::net::{Neighbor, Route};
    use spiderpool_net::netlink::NewVeth;
    use spiderpool_net::netns::NetNs;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn what_others_do_to_a_host_end_is_reported_without_a_sweep() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let test = || {
            let (sender, received) = channel();
            follow(move |event| drop(sender.send(event))).unwrap();
            let (host, pod): (IfName, _) = ("sp0123456789abc".parse().unwrap(), NetNs::create().unwrap());
            let (peer, mac) = ("sp0".parse().unwrap(), MacAddr([2; 6]));
            let veth =
                NewVeth { name: &host, mac, peer_name: &peer, peer_mac: mac, peer_netns: &pod, mtu: 1500 };
            block_on(async { Netlink::open()?.add_veth(&veth).await }).unwrap();
            let address = "10.6.0.9".parse().unwrap();
            let change = async || {
                let mut netlink = Netlink::open()?;
                let index = netlink.link_by_name(&host).await?.unwrap().index;
                netlink.set_up(index).await?;
                let route = Route::new(IpAddr::into(address), index);
                netlink.set_neighbor(&Neighbor { dev: index, address, mac }).await?;
                netlink.add_route(&route).await?;
                netlink.delete_neighbor(index, address).await?;
                netlink.delete_route(&route).await?;
                let lo = netlink.link_by_name(&"lo".parse().unwrap()).await?.unwrap().index;
                netlink.add_address(lo, "10.7.0.1/32".parse().unwrap()).await?;
                netlink.delete_address(lo, "10.7.0.1/32".parse().unwrap()).await
            };
            let changed = |change| HostEvent::Changed(host.clone(), change);
            let mut wanted = vec![
                changed(Change::Neighbor(address)),
                changed(Change::LinkOrRoute),
                HostEvent::AddressGone,
            ];
            let deadline = Instant::now() + LIMIT;
            // The thread may not have begun when something changes.
            while !wanted.is_empty() {
                assert!(Instant::now() < deadline, "not reported: {wanted:?}");
                block_on(change()).unwrap();
                while let Ok(event) = received.recv_timeout(Duration::from_millis(100)) {
                    wanted.retain(|one| *one != event);
                }
            }
        };
        NetNs::create().unwrap().run(test).unwrap();
    }
}
