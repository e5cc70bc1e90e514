//! The addresses of this node that pods must reach by their cluster NIC, and the devices by which pods send, followed as
//! they change.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::thread;

use backon::BackoffBuilder as _;
use ipnet::IpNet;
use spiderpool_core::dataplane::{PodDevice, may_be_host_end, node_addresses, pod_devices};
use spiderpool_core::ip::Family;
use spiderpool_core::net::{Address, Link, Scope};
use spiderpool_net::block_on;
use spiderpool_net::events::{Events, NetlinkEvent};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_runtime::backoff;
use spiderpool_runtime::health::Condition;
use tokio::sync::watch;
use tracing::{debug, error, warn};

/// What has changed on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChange {
    /// The node's addresses, all of them.
    Addresses(Vec<IpAddr>),
    /// The devices by which pods send, all of them.
    PodDevices(BTreeMap<u32, PodDevice>),
}

/// Links and addresses of the node as the kernel reports them.
#[derive(Debug, Default)]
struct Seen {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<(u32, IpNet), Scope>,
    /// The uplinks among the devices that could be host ends of pods. One stays while its link does: a route may be away
    /// for a moment.
    uplinks: BTreeSet<u32>,
}

impl Seen {
    async fn list() -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let links = netlink.links().await?.into_iter().map(|link| (link.index, link)).collect();
        let addresses = netlink.addresses(None).await?.into_iter();
        let addresses = addresses.map(|address| ((address.dev, address.net), address.scope)).collect();
        let mut seen = Self { links, addresses, uplinks: BTreeSet::new() };
        for dev in seen.addresses.keys().map(|(dev, _)| *dev).collect::<BTreeSet<_>>() {
            seen.look_for_next_hop(dev).await?;
        }
        Ok(seen)
    }

    /// Whether a device is an uplink, if that decides over its addresses: a node may have very many routes.
    async fn look_for_next_hop(&mut self, dev: u32) -> Result<(), NetlinkError> {
        let has_address = self.addresses.iter().any(|(key, scope)| key.0 == dev && *scope == Scope::Global);
        let matters = has_address && self.links.get(&dev).is_some_and(may_be_host_end);
        if !matters || self.uplinks.contains(&dev) {
            return Ok(());
        }
        let mut netlink = Netlink::open()?;
        for family in Family::ALL {
            let routes = netlink.routes_of(family, Some(dev)).await?;
            if routes.iter().any(|route| route.gateway.is_some() || route.is_default()) {
                self.uplinks.insert(dev);
            }
        }
        Ok(())
    }

    async fn apply(&mut self, event: NetlinkEvent) -> Result<(), NetlinkError> {
        match event {
            NetlinkEvent::Link(link) => drop(self.links.insert(link.index, link)),
            NetlinkEvent::LinkGone(link) => {
                self.links.remove(&link.index);
                self.uplinks.remove(&link.index);
                self.addresses.retain(|(dev, _), _| *dev != link.index);
            }
            NetlinkEvent::Address(address) => {
                self.addresses.insert((address.dev, address.net), address.scope);
                self.look_for_next_hop(address.dev).await?;
            }
            NetlinkEvent::AddressGone(address) => {
                self.addresses.remove(&(address.dev, address.net));
            }
            NetlinkEvent::Route(dev) => self.look_for_next_hop(dev).await?,
            NetlinkEvent::Neighbor { .. } => {}
            NetlinkEvent::Lost => *self = Self::list().await?,
        }
        Ok(())
    }

    fn own(&self, services: &[IpNet]) -> Vec<IpAddr> {
        node_addresses(self.links.values(), &self.addresses(), &self.uplinks, services)
    }

    fn pod_devices(&self) -> BTreeMap<u32, PodDevice> {
        pod_devices(self.links.values(), &self.addresses(), &self.uplinks)
    }

    fn addresses(&self) -> Vec<Address> {
        let address = |(&(dev, net), &scope): (&(u32, IpNet), &Scope)| Address { dev, net, scope };
        self.addresses.iter().map(address).collect()
    }
}

/// Follows the node's addresses on a thread of its own, for ever; `services` are the Service CIDRs. `followed` is met while
/// it can. A node without any address is never reported: what is known stays.
pub fn follow(
    followed: Condition,
    services: watch::Receiver<Vec<IpNet>>,
    mut changed: impl FnMut(NodeChange) + Send + 'static,
) -> std::io::Result<()> {
    thread::Builder::new().name("addresses".to_owned()).spawn(move || {
        let mut pauses = backoff::exponential().build();
        loop {
            let outcome = block_on(follow_events(services.clone(), |change| {
                pauses = backoff::exponential().build();
                if matches!(change, NodeChange::Addresses(_)) {
                    followed.met();
                }
                changed(change);
            }));
            let Err(error) = outcome;
            let pause = pauses.next().unwrap_or(backoff::MAX_PAUSE);
            error!(%error, ?pause, "node addresses cannot be followed, trying again");
            followed.unmet(error.to_string());
            thread::sleep(pause);
        }
    })?;
    Ok(())
}

/// Calls `changed` with what there is now and whenever that changes. Ends only by failing.
async fn follow_events(
    mut services: watch::Receiver<Vec<IpNet>>,
    mut changed: impl FnMut(NodeChange),
) -> Result<Infallible, NetlinkError> {
    let mut events = Events::open()?;
    let mut seen = Seen::list().await?;
    let (mut known, mut known_devices) = (Vec::new(), None);
    loop {
        let devices = seen.pod_devices();
        if known_devices.as_ref() != Some(&devices) {
            known_devices = Some(devices.clone());
            changed(NodeChange::PodDevices(devices));
        }
        let now = seen.own(&services.borrow_and_update());
        if now.is_empty() {
            warn!(?known, "no address of the node is found, those that are known stay");
        } else if now != known {
            debug!(addresses = ?now, "node addresses changed");
            known.clone_from(&now);
            changed(NodeChange::Addresses(now));
        }
        tokio::select! {
            event = events.next() => seen.apply(event?).await?,
            () = next_change(&mut services) => {}
        }
    }
}

/// Never, when nobody writes them any more.
async fn next_change(services: &mut watch::Receiver<Vec<IpNet>>) {
    if services.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_core::mac::MacAddr;
    use spiderpool_core::net::{Medium, Route};
    use spiderpool_net::netlink::NewVeth;
    use spiderpool_net::netns::NetNs;

    use super::*;

    fn link(name: &str) -> Link {
        Link {
            name: name.parse().unwrap(),
            index: 7,
            mac: None,
            mtu: 1500,
            tx_queue_len: 0,
            up: true,
            kind: String::new(),
            medium: Medium::Ethernet,
            peer: None,
            peer_netns: None,
            master: None,
            detail: spiderpool_core::net::LinkDetail::Nothing,
        }
    }

    fn own(seen: &Seen) -> Vec<String> {
        seen.own(&[]).iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_link_takes_its_addresses_along() {
        let mut seen = Seen {
            links: [(7, link("eth0"))].into(),
            addresses: [((7, "10.6.0.1/16".parse().unwrap()), Scope::Global)].into(),
            ..Seen::default()
        };
        seen.apply(NetlinkEvent::LinkGone(link("eth0"))).await.unwrap();
        seen.apply(NetlinkEvent::Link(link("eth0"))).await.unwrap();
        assert!(own(&seen).is_empty());
        let address = Address::new(7, "10.6.0.2/16".parse().unwrap());
        seen.apply(NetlinkEvent::Address(address)).await.unwrap();
        assert_eq!(own(&seen), ["10.6.0.2"]);
    }

    /// A veth into another namespace; its index.
    async fn veth_into(other: &NetNs, node: &mut Netlink, name: &str) -> Result<u32, NetlinkError> {
        let names = [name, "eth0"].map(|name| name.parse().unwrap());
        let veth = NewVeth {
            name: &names[0],
            mac: MacAddr([2, 0, 0, 0, 0, 1]),
            peer_name: &names[1],
            peer_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            peer_netns: other,
            mtu: 1500,
        };
        node.add_veth(&veth).await?;
        Ok(node.link_by_name(&names[0]).await?.unwrap().index)
    }

    /// As the kernel lists them: scopes, and which veth leads into another namespace.
    #[test]
    fn an_address_on_lo_counts_and_that_of_a_host_end_does_not() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let test = async || {
            let (pod, mut node) = (NetNs::create().unwrap(), Netlink::open()?);
            let veth = veth_into(&pod, &mut node, "caliab12").await?;
            for (index, net) in [(1, "172.30.99.11/32"), (1, "fd99::11/128"), (veth, "10.244.1.1/32")] {
                node.set_up(index).await?;
                node.add_address(index, net.parse().unwrap()).await?;
            }
            Seen::list().await
        };
        let seen = NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
        assert_eq!(own(&seen), ["172.30.99.11", "fd99::11"]);
    }

    /// As LXD's `routed` NICs are, whether the route is there first or the agent.
    #[test]
    fn the_only_address_of_a_node_whose_nic_is_a_veth_with_a_next_hop_counts() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let test = async || {
            let (host, mut node) = (NetNs::create().unwrap(), Netlink::open()?);
            let dev = veth_into(&host, &mut node, "routed0").await?;
            node.set_up(dev).await?;
            node.add_address(dev, "10.20.0.5/32".parse().unwrap()).await?;
            let mut events = Events::open()?;
            let mut seen = Seen::list().await?;
            assert!(own(&seen).is_empty());
            let default = Route::new("0.0.0.0/0".parse().unwrap(), dev);
            let gateway = "169.254.0.1".parse().ok();
            // Whoever it is, it is not us.
            node.add_route(&Route { gateway, onlink: true, protocol: 3, ..default }).await?;
            assert_eq!(own(&Seen::list().await?), ["10.20.0.5"]);
            while own(&seen) != ["10.20.0.5"] {
                seen.apply(events.next().await?).await?;
            }
            Ok::<_, NetlinkError>(())
        };
        NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
    }

    /// An interface that is not there any more, a virtual address that moves: what maps and node links have must stay.
    #[test]
    fn a_node_whose_last_address_is_gone_keeps_those_that_are_known() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let test = async || {
            let mut node = Netlink::open()?;
            let (first, second) = ("10.6.0.1/32".parse().unwrap(), "10.6.0.2/32".parse().unwrap());
            node.set_up(1).await?;
            node.add_address(1, first).await?;
            let (reports, mut reported) = tokio::sync::mpsc::unbounded_channel();
            let (services, known) = watch::channel(Vec::new());
            let follows = follow_events(known, |change| {
                if let NodeChange::Addresses(addresses) = change {
                    reports.send(addresses).unwrap();
                }
            });
            let changes = async {
                assert_eq!(reported.recv().await.unwrap(), [first.addr()]);
                node.delete_address(1, first).await?;
                node.add_address(1, second).await?;
                assert_eq!(reported.recv().await.unwrap(), [second.addr()], "none is not reported");
                node.add_address(1, first).await?;
                assert_eq!(reported.recv().await.unwrap(), [first.addr(), second.addr()]);
                services.send_replace(vec![first]);
                assert_eq!(reported.recv().await.unwrap(), [second.addr()], "it is a Service's");
                Ok::<_, NetlinkError>(())
            };
            tokio::select! {
                ended = follows => panic!("{ended:?}"),
                changed = changes => changed,
            }
        };
        NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
    }
}
