//! Follows what the kernel reports of the node's ends of node links, so that what others take away is put right at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use spiderpool_core::coordinator::is_host_end_name;
use spiderpool_core::names::IfName;
use spiderpool_net::block_on;
use spiderpool_net::events::{Events, NetlinkEvent};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_runtime::backoff;
use tracing::warn;

/// After more events than the socket could hold, so that whoever makes them does not make as many lists of links.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// What another program may have changed of a host end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is down, or a route by it is another.
    LinkOrRoute,
    /// The entry of this neighbor, which may be one that its pod has made.
    Neighbor(IpAddr),
}

/// Calls `changed` with the host ends that lost a route or a neighbor or are down, on a thread of its own, for ever. What
/// it misses the sweep over all pods finds.
pub fn follow(changed: impl Fn(&IfName, Change) + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("host-ends".to_owned()).spawn(move || {
        loop {
            let Err(error) = block_on(follow_events(&changed));
            warn!(%error, pause = ?backoff::MAX_PAUSE, "changes of node links cannot be followed, trying again");
            thread::sleep(backoff::MAX_PAUSE);
        }
    })?;
    Ok(())
}

async fn follow_events(changed: impl Fn(&IfName, Change)) -> Result<Infallible, NetlinkError> {
    let mut events = Events::of_routes()?;
    let mut hosts = list().await?;
    loop {
        match events.next().await? {
            NetlinkEvent::Link(link) if is_host_end_name(&link.name) => {
                hosts.insert(link.index, link.name.clone());
                if !link.up {
                    changed(&link.name, Change::LinkOrRoute);
                }
            }
            NetlinkEvent::LinkGone(link) => drop(hosts.remove(&link.index)),
            NetlinkEvent::Route(index) => {
                if let Some(host) = hosts.get(&index) {
                    changed(host, Change::LinkOrRoute);
                }
            }
            NetlinkEvent::Neighbor { dev, address } => {
                if let Some(host) = hosts.get(&dev) {
                    changed(host, Change::Neighbor(address));
                }
            }
            NetlinkEvent::Lost => {
                thread::sleep(AFTER_LOSS);
                hosts = list().await?;
            }
            NetlinkEvent::Link(_) | NetlinkEvent::Address(_) | NetlinkEvent::AddressGone(_) => {}
        }
    }
}

async fn list() -> Result<BTreeMap<u32, IfName>, NetlinkError> {
    let links = Netlink::open()?.links().await?.into_iter();
    Ok(links.filter(|link| is_host_end_name(&link.name)).map(|link| (link.index, link.name)).collect())
}
