//! Kernel parameters of the NIC that gets the addresses. Main plugins ask for addresses when the NIC is in the pod's
//! namespace under its name, and put them on it afterwards; what is set here is in force by then.

use std::net::IpAddr;

use spiderpool_core::ip::Family;
use spiderpool_core::names::IfName;
use spiderpool_net::block_on;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::sysctl::{self, SysctlError};
use tracing::{debug, warn};

/// Whether the kernel asks the link for another owner of an IPv6 address before it uses it, which takes 1 to 2 s that
/// the main plugin waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DuplicateDetection {
    /// As the node and the pod have it.
    AsConfigured,
    /// Not on this NIC: the address is the pod's by allocation.
    Off,
}

/// When the kernel tells neighbors of the NIC's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NeighborNotice {
    /// As soon as the NIC comes up.
    WhenUp,
    /// Not by itself: another pod still uses them.
    Never,
}

/// One parameter, and how much it matters.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    key: String,
    value: &'static str,
    /// What the user sees if it cannot be set; nothing if there is nothing to see.
    without_it: Option<&'static str>,
}

/// Sets what the addresses need. Nothing of this is a reason to fail: without it, the ADD takes longer, and the
/// neighbors learn later.
///
/// A NIC that comes up is announced by the kernel as soon as the addresses are on it. One that is up already is
/// announced by the agent: closing a packet socket takes longer than all the rest here.
pub(super) fn prepare(
    netns: &NetNs,
    nic: &IfName,
    families: &[Family],
    detection: DuplicateDetection,
    notice: NeighborNotice,
) {
    let settings = plan_settings(nic, families, detection, notice);
    let written = netns.run(|| {
        for setting in &settings {
            write(setting);
        }
        if detection == DuplicateDetection::Off && families.contains(&Family::V6) {
            look_at_all_nics();
            if let Err(error) = block_on(end_detection(nic)) {
                warn!(%error, "duplicate address detection of the NIC's link-local address goes on");
            }
        }
    });
    if let Err(error) = written {
        warn!(%error, "kernel parameters of the NIC cannot be set");
    }
}

fn plan_settings(
    nic: &IfName,
    families: &[Family],
    detection: DuplicateDetection,
    notice: NeighborNotice,
) -> Vec<Setting> {
    // Written in both cases: the node may have another default.
    let notify = match notice {
        NeighborNotice::WhenUp => "1",
        NeighborNotice::Never => "0",
    };
    let setting = |family: Family, name: &str, value, without_it| Setting {
        key: format!("net/ipv{}/conf/{nic}/{name}", family.version()),
        value,
        without_it,
    };
    let mut settings = Vec::new();
    for family in families {
        match family {
            Family::V4 => settings.push(setting(*family, "arp_notify", notify, None)),
            Family::V6 => {
                settings.push(setting(*family, "ndisc_notify", notify, None));
                if detection == DuplicateDetection::Off {
                    let without =
                        "the NIC's IPv6 addresses are usable only after duplicate address detection";
                    settings.push(setting(*family, "accept_dad", "0", Some(without)));
                }
            }
        }
    }
    settings
}

fn write(setting: &Setting) {
    match (sysctl::write(&setting.key, setting.value), setting.without_it) {
        (Ok(_), _) => {}
        (Err(error @ SysctlError::Io { .. }), Some(without_it)) => warn!(%error, "{without_it}"),
        // Some main plugins (ptp) make the NIC after they have the addresses.
        (Err(error), _) => debug!(%error, "kernel parameter of the NIC is not set"),
    }
}

/// The parameter of all NICs outweighs that of one: `addrconf_dad_begin()` in net/ipv6/addrconf.c skips detection
/// only if both are below 1. It is 0 in a new namespace, and other NICs may count on it where it is not.
fn look_at_all_nics() {
    const KEY: &str = "net/ipv6/conf/all/accept_dad";
    if let Ok(value) = sysctl::read(KEY)
        && value.parse::<i32>().is_ok_and(|value| value > 0)
    {
        warn!(
            key = KEY,
            value,
            "duplicate address detection stays on for all NICs of the pod; set the parameter to 0 to have IPv6 \
             addresses usable at once"
        );
    }
}

/// A NIC that is up already (host-device, SR-IOV) may be in the middle of the detection for its link-local address,
/// and the main plugin waits for that one too. Only deleting the address ends it; added again, it has none.
async fn end_detection(nic: &IfName) -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.link_by_name(nic).await?.filter(|link| link.up) else { return Ok(()) };
    for address in netlink.tentative_addresses(link.index).await? {
        // One that a router has announced has a lifetime, which would be lost.
        if !is_link_local(address.addr()) {
            continue;
        }
        debug!(%address, "address is added again, without duplicate address detection");
        netlink.delete_address(link.index, address).await?;
        if let Err(error) = netlink.add_address(link.index, address).await {
            warn!(%error, %address, "the NIC has lost its link-local address: set the NIC down and up");
        }
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use spiderpool_core::mac::MacAddr;
    use spiderpool_net::netlink::NewVeth;

    use super::*;

    fn planned(families: &[Family], detection: DuplicateDetection) -> Vec<String> {
        let nic = "eth0.100".parse().unwrap();
        let settings = plan_settings(&nic, families, detection, NeighborNotice::WhenUp);
        settings.iter().map(|setting| format!("{}={}", setting.key, setting.value)).collect()
    }

    #[test]
    fn detection_is_turned_off_only_on_this_nic_and_only_for_ipv6() {
        let both = [Family::V4, Family::V6];
        assert_eq!(
            planned(&both, DuplicateDetection::Off),
            [
                "net/ipv4/conf/eth0.100/arp_notify=1",
                "net/ipv6/conf/eth0.100/ndisc_notify=1",
                "net/ipv6/conf/eth0.100/accept_dad=0"
            ]
        );
        let kept = planned(&both, DuplicateDetection::AsConfigured);
        assert!(!kept.iter().any(|setting| setting.contains("accept_dad")), "{kept:?}");
        assert_eq!(planned(&[Family::V4], DuplicateDetection::Off), ["net/ipv4/conf/eth0.100/arp_notify=1"]);
    }

    #[test]
    fn neighbors_are_not_told_of_what_another_pod_still_uses() {
        let nic = "net1".parse().unwrap();
        let both = [Family::V4, Family::V6];
        let settings = plan_settings(&nic, &both, DuplicateDetection::Off, NeighborNotice::Never);
        let of_notices: Vec<_> = settings.iter().filter(|setting| setting.key.ends_with("_notify")).collect();
        assert!(of_notices.len() == 2 && of_notices.iter().all(|setting| setting.value == "0"));
    }

    #[test]
    fn a_nic_that_comes_later_is_no_failure() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let netns = NetNs::create().unwrap();
        let read =
            |nic: &str| netns.run(|| sysctl::read(&format!("net/ipv6/conf/{nic}/accept_dad"))).unwrap();
        let before = (read("all").unwrap(), read("default").unwrap());
        let prepare = |nic: &str, families: &[Family]| {
            let nic = nic.parse().unwrap();
            prepare(&netns, &nic, families, DuplicateDetection::Off, NeighborNotice::WhenUp);
        };
        prepare("net1", &[Family::V4, Family::V6]);
        assert_eq!((read("all").unwrap(), read("default").unwrap()), before);
        prepare("lo", &[Family::V6]);
        assert_eq!(read("lo").unwrap(), "0");
    }

    #[tokio::test]
    async fn a_detection_that_goes_on_is_ended() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
            return;
        }
        let (near, far) = (NetNs::create().unwrap(), NetNs::create().unwrap());
        let names: [IfName; 2] = ["net1", "peer"].map(|name| name.parse().unwrap());
        let macs = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        let mut netlink = near.netlink().unwrap();
        let veth = NewVeth {
            name: &names[0],
            mac: macs[0],
            peer_name: &names[1],
            peer_mac: macs[1],
            peer_netns: &far,
            mtu: 1500,
        };
        netlink.add_veth(&veth).await.unwrap();
        let mut far_netlink = far.netlink().unwrap();
        let peer = far_netlink.link_by_name(&names[1]).await.unwrap().unwrap().index;
        let index = netlink.link_by_name(&names[0]).await.unwrap().unwrap().index;
        netlink.set_up(index).await.unwrap();
        far_netlink.set_up(peer).await.unwrap();
        // The kernel makes the address when it has seen the carrier.
        let deadline = Instant::now() + Duration::from_secs(10);
        while netlink.addresses(Some(index)).await.unwrap().is_empty() {
            assert!(Instant::now() < deadline, "no link-local address");
            thread::sleep(Duration::from_millis(5));
        }
        let before = netlink.addresses(Some(index)).await.unwrap();
        prepare(&near, &names[0], &[Family::V6], DuplicateDetection::Off, NeighborNotice::WhenUp);
        assert_eq!(netlink.tentative_addresses(index).await.unwrap(), []);
        assert_eq!(netlink.addresses(Some(index)).await.unwrap(), before);
    }
}
