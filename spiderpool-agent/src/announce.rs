//! Announces new addresses of a NIC that is up already, by gratuitous ARP and unsolicited neighbor advertisements.
//!
//! A NIC that comes up with its addresses is announced by the kernel, which the plugin asks for; some main plugins
//! (SR-IOV) have it up before. The plugin does not announce itself: closing its socket would take 10 ms of the ADD.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spiderpool_api::agent::OpenNetns;
use spiderpool_api::agent::ipam::{IpConfig, IpamAddArgs};
use spiderpool_core::names::IfName;
use spiderpool_core::net::Medium;
use spiderpool_net::announce::announce;
use spiderpool_net::block_on;
use spiderpool_net::netlink::NetlinkError;
use spiderpool_net::netns::NetNsError;
use tracing::debug;

use crate::pod_network::netns;

/// What to announce where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Announcement {
    netns: PathBuf,
    /// Its descriptor ends with the plugin; the identity does not.
    open_netns: Option<OpenNetns>,
    nic: IfName,
    addresses: Vec<IpAddr>,
}

impl Announcement {
    /// Of a NIC's addresses; `None` if there is nothing to announce.
    pub(crate) fn new(request: &IpamAddArgs, addresses: &[IpConfig]) -> Option<Self> {
        let own = addresses.iter().filter(|address| address.nic == request.if_name.as_str());
        let addresses: Vec<IpAddr> =
            own.filter_map(|address| address.address.split('/').next()?.parse().ok()).collect();
        let nic = request.if_name.clone();
        let netns = PathBuf::from(&request.net_namespace);
        let open_netns = request.open_netns.clone();
        (!addresses.is_empty() && netns != Path::new("")).then_some(Self {
            netns,
            open_netns,
            nic,
            addresses,
        })
    }

    /// The NIC.
    pub(crate) fn nic(&self) -> &IfName {
        &self.nic
    }

    /// Whether it is of a NIC of the same name.
    pub(crate) fn is_of_same_nic(&self, other: &Self) -> bool {
        self.nic == other.nic
    }

    /// Announces them. Blocks; nothing of it is a reason to fail.
    pub(crate) fn send(&self) {
        match block_on(self.try_send()) {
            Ok(0) => {}
            Ok(count) => debug!(nic = %self.nic, count, "addresses announced"),
            Err(error) => debug!(nic = %self.nic, %error, "addresses not announced"),
        }
    }

    /// How many were announced.
    async fn try_send(&self) -> Result<usize, AnnounceError> {
        let netns = netns::of_request(&self.netns, self.open_netns.as_ref())?;
        let link = netns.netlink()?.link_by_name(&self.nic).await?;
        let Some(link) = link.filter(|link| link.up && link.medium == Medium::Ethernet) else { return Ok(0) };
        let Some(mac) = link.mac else { return Ok(0) };
        let sent = netns.run(|| {
            self.addresses
                .iter()
                .map(|address| announce(link.index, mac, *address))
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(sent?.len())
    }
}

#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error(transparent)]
    Netns(#[from] NetNsError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Announce(#[from] spiderpool_net::announce::AnnounceError),
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use spiderpool_core::mac::MacAddr;
    use spiderpool_core::names::PodName;
    use spiderpool_net::netlink::{Netlink, NewVeth};
    use spiderpool_net::netns::NetNs;

    use super::*;

    fn request(netns: &str, nic: &str) -> IpamAddArgs {
        let pod = PodName::new("n", "p").unwrap();
        let new = IpamAddArgs::new("c".parse().unwrap(), nic.parse().unwrap(), pod, None);
        IpamAddArgs { net_namespace: netns.into(), ..new }
    }

    fn address(nic: &str, address: &str) -> IpConfig {
        IpConfig { nic: nic.into(), address: address.into(), ..IpConfig::default() }
    }

    #[test]
    fn only_the_nics_own_addresses_are_announced() {
        let answer = [address("net1", "10.6.0.5/16"), address("net2", "10.7.0.5/16")];
        let announcement = Announcement::new(&request("/run/netns/x", "net1"), &answer).unwrap();
        assert_eq!(announcement.addresses, ["10.6.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(Announcement::new(&request("/run/netns/x", "net3"), &answer), None);
        assert_eq!(Announcement::new(&request("", "net1"), &answer), None);
    }

    #[tokio::test]
    async fn only_ethernet_nics_that_are_up_are_announced() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let (near, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let path = format!("/proc/{}/fd/{}", std::process::id(), near.as_fd().as_raw_fd());
        let names: [IfName; 2] = ["net1", "peer"].map(|name| name.parse().unwrap());
        let mut netlink = near.netlink().unwrap();
        let macs = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        netlink
            .add_veth(&NewVeth {
                name: &names[0],
                mac: macs[0],
                peer_name: &names[1],
                peer_mac: macs[1],
                peer_netns: &far,
                mtu: 1500,
            })
            .await
            .unwrap();
        let sent = async |nic: &str| {
            let answer = [address(nic, "10.6.0.5/16"), address(nic, "fd00::5/64")];
            Announcement::new(&request(&path, nic), &answer).unwrap().try_send().await.unwrap()
        };
        let index = async |netlink: &mut Netlink, nic: &str| {
            netlink.link_by_name(&nic.parse().unwrap()).await.unwrap().unwrap().index
        };
        assert_eq!(sent("net1").await, 0, "the kernel announces when it comes up");
        for nic in ["lo", "net1"] {
            let index = index(&mut netlink, nic).await;
            netlink.set_up(index).await.unwrap();
        }
        assert_eq!((sent("lo").await, sent("net1").await, sent("net9").await), (0, 2, 0));
    }
}
