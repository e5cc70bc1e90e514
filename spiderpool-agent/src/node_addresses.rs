//! The addresses of this node that pods must reach by their cluster NIC, followed as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::thread;

use backon::BackoffBuilder as _;
use spiderpool_core::net::{Address, Link};
use spiderpool_net::block_on;
use spiderpool_net::events::{Events, NetlinkEvent};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_runtime::backoff;
use spiderpool_runtime::health::Condition;
use tracing::{debug, error};

/// Devices of pods, bridges of container runtimes and holders of virtual addresses: their addresses are not the
/// node's own. By the beginning of the name; `lo` only as a whole.
const OTHERS: [&str; 12] = [
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "cali",
    "flannel",
    "kube-ipvs",
    "cni",
    "vx-submariner",
    "cilium",
];

/// The node's own addresses among all that its devices have, in order.
pub fn node_addresses<'a>(
    links: impl IntoIterator<Item = &'a Link>,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Vec<IpAddr> {
    let own: BTreeSet<u32> =
        links.into_iter().filter(|link| is_own(link.name.as_str())).map(|link| link.index).collect();
    let found: BTreeSet<IpAddr> = addresses
        .into_iter()
        .filter(|address| own.contains(&address.dev))
        .map(|address| address.net.addr())
        .filter(|ip| !is_local(*ip))
        .collect();
    found.into_iter().collect()
}

fn is_own(name: &str) -> bool {
    name != "lo" && !OTHERS.iter().any(|other| name.starts_with(other))
}

fn is_local(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified()
}

/// Links and addresses of the node as the kernel reports them.
#[derive(Debug, Default)]
struct Seen {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, ipnet::IpNet)>,
}

impl Seen {
    async fn list() -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let links = netlink.links().await?.into_iter().map(|link| (link.index, link)).collect();
        let addresses =
            netlink.addresses(None).await?.into_iter().map(|address| (address.dev, address.net)).collect();
        Ok(Self { links, addresses })
    }

    async fn apply(&mut self, event: NetlinkEvent) -> Result<(), NetlinkError> {
        match event {
            NetlinkEvent::Link(link) => drop(self.links.insert(link.index, link)),
            NetlinkEvent::LinkGone(link) => {
                self.links.remove(&link.index);
                self.addresses.retain(|(dev, _)| *dev != link.index);
            }
            NetlinkEvent::Address(address) => drop(self.addresses.insert((address.dev, address.net))),
            NetlinkEvent::AddressGone(address) => drop(self.addresses.remove(&(address.dev, address.net))),
            NetlinkEvent::Lost => *self = Self::list().await?,
        }
        Ok(())
    }

    fn own(&self) -> Vec<IpAddr> {
        let addresses: Vec<Address> =
            self.addresses.iter().map(|(dev, net)| Address { dev: *dev, net: *net }).collect();
        node_addresses(self.links.values(), &addresses)
    }
}

/// Follows the node's addresses on a thread of its own, for ever. `followed` is met while it can.
pub fn follow(
    followed: Condition,
    mut changed: impl FnMut(Vec<IpAddr>) + Send + 'static,
) -> std::io::Result<()> {
    thread::Builder::new().name("addresses".to_owned()).spawn(move || {
        let mut pauses = backoff::exponential().build();
        loop {
            let outcome = block_on(follow_events(|addresses| {
                pauses = backoff::exponential().build();
                followed.met();
                changed(addresses);
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

/// Calls `changed` with the node's addresses now and whenever they change. Ends only by failing.
async fn follow_events(mut changed: impl FnMut(Vec<IpAddr>)) -> Result<Infallible, NetlinkError> {
    let mut events = Events::open()?;
    let mut seen = Seen::list().await?;
    let mut known = seen.own();
    debug!(addresses = ?known, "node addresses listed");
    changed(known.clone());
    loop {
        seen.apply(events.next().await?).await?;
        let now = seen.own();
        if now != known {
            debug!(addresses = ?now, "node addresses changed");
            known.clone_from(&now);
            changed(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_core::net::Medium;

    use super::*;

    fn check(name: &str, address: &str, counts: bool) {
        let seen =
            Seen { links: [(7, link(name))].into(), addresses: [(7, address.parse().unwrap())].into() };
        assert_eq!(!seen.own().is_empty(), counts, "{address} on {name}");
    }

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
        }
    }

    #[test]
    fn the_nodes_own_devices_count_tunnels_and_bonds_included() {
        for name in ["eth0", "bond0.100", "tunl0", "vxlan.calico", "lo1", "enp3s0"] {
            check(name, "10.6.0.1/16", true);
        }
        for name in
            ["lo", "docker0", "cali123", "veth0", "cni0", "kube-ipvs0", "cilium_host", "flannel.1", "dummy1"]
        {
            check(name, "10.6.0.1/16", false);
        }
    }

    #[test]
    fn only_addresses_that_others_can_use_count() {
        check("eth0", "fd00::1/64", true);
        for address in ["169.254.20.10/32", "fe80::1/64", "127.0.0.1/8", "::1/128"] {
            check("eth0", address, false);
        }
    }

    #[tokio::test]
    async fn a_link_takes_its_addresses_along() {
        let mut seen = Seen {
            links: [(7, link("eth0"))].into(),
            addresses: [(7, "10.6.0.1/16".parse().unwrap())].into(),
        };
        seen.apply(NetlinkEvent::LinkGone(link("eth0"))).await.unwrap();
        seen.apply(NetlinkEvent::Link(link("eth0"))).await.unwrap();
        assert!(seen.own().is_empty());
        seen.apply(NetlinkEvent::Address(Address { dev: 7, net: "10.6.0.2/16".parse().unwrap() }))
            .await
            .unwrap();
        assert_eq!(seen.own(), ["10.6.0.2".parse::<IpAddr>().unwrap()]);
    }
}
